"""The command line. Nothing here imports torch until a command needs it: help and completion must be instant."""

from sau_scan.cli.app import app, main

__all__ = ["app", "main"]
