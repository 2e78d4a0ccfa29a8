"""The command line. Nothing here imports torch until a command needs it: help and completion must be instant."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script."""
    try:
        from sau_scan.cli.app import main as run
    except KeyboardInterrupt:  # before there is a guard that knows how to say it
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    run()
