"""Repairs: where a trigger's effect lives, and weight patches that undo it. Nothing here writes files."""
