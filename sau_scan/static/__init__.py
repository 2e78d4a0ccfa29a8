"""Checks of a checkpoint's files, without running the model."""
