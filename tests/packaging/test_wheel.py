"""The wheel: builds, holds rules, schema and demo, and works where there is no checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", out, ROOT], check=True, timeout=500
    )
    [built] = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_its_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    rules = {f"sau_scan/data/{file.relative_to(ROOT)}" for file in (ROOT / "rules").rglob("*.yaml")}
    demo = {str(file.relative_to(ROOT)) for file in (ROOT / "sau_scan" / "demo").rglob("*") if file.suffix == ".json"}
    assert rules
    assert rules | demo <= names
    assert {"sau_scan/py.typed", "sau_scan/reports/schema.json"} <= names
    shipped = (ROOT / "sau_scan" / "checkpoint" / "shipped").rglob("*.*")
    assert {str(file.relative_to(ROOT)) for file in shipped if file.suffix != ".pyc"} <= names
    assert not [name for name in names if name.startswith(("zoo/", "tests/", "rules/"))]


@pytest.mark.slow
def test_the_wheel_works_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(place)
    # A folder of another project called rules beside the package is none of its business.
    (place / "rules").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "sau_scan", "rules", "list"],
        cwd=place, env={"PYTHONPATH": str(place), "PATH": "/usr/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "invisible/zero-width" in done.stdout
