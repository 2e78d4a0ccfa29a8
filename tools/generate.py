"""Writes the generated files: shell completions, the JSON Schema of reports, golden reports. Tests compare them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sau_scan.cli.completion import SHELLS, completion  # noqa: E402
from sau_scan.reports.json_report import SCHEMA_PATH, schema_text  # noqa: E402
from tests.reports.samples import GOLDEN, golden_reports  # noqa: E402


def generated() -> dict[Path, str]:
    """Path -> content of every generated file."""
    files = {ROOT / "completions" / name: completion(shell) for shell, name in SHELLS.items()}
    files[SCHEMA_PATH] = schema_text()
    files |= {GOLDEN / name: text for name, text in golden_reports().items()}
    return files


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        print(path.relative_to(ROOT))
