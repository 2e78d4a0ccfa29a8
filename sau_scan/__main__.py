"""``python -m sau_scan``: the same as ``sau-scan``."""

from sau_scan.cli import main

main()
