"""Checks of a checkpoint's files, without running the model."""

from __future__ import annotations

from sau_scan.static.facts import blocks
from sau_scan.static.opening import Opened, Vetted, in_base, open_vetted, require_harmless
from sau_scan.static.vetting import vet_file
from sau_scan.static.watch import Sink, Watch

__all__ = ["Opened", "Sink", "Vetted", "Watch", "blocks", "in_base", "open_vetted", "require_harmless", "vet_file"]
