"""What the project promises to a fresh machine: versions, make targets, pins, layers, README."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import sau_scan

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
README = (ROOT / "README.md").read_text("utf-8")
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text("utf-8").lower().replace("_", "-").splitlines()
    if "==" in line
)


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!\[; ]", requirement)[0].lower() for requirement in requirements}


def test_every_dependency_is_pinned() -> None:
    project = PROJECT["project"]
    wanted = _names(project["dependencies"]) | _names(project["optional-dependencies"]["dev"])
    assert wanted - set(PINS) == set()
    assert PINS["torch"] == "2.13.0"


def test_every_exported_name_exists() -> None:
    assert sorted(sau_scan.__all__) == ["__version__", "detect", "fix"]
    assert all(callable(getattr(sau_scan, name)) for name in ("detect", "fix"))


def test_importing_the_modules_leaves_the_functions_in_place() -> None:
    import sau_scan.fix
    import sau_scan.scan

    assert callable(sau_scan.fix)
    assert callable(sau_scan.detect)
    assert sau_scan.fix is sau_scan.fix


def test_the_readme_has_exactly_two_set_up_commands() -> None:
    setup = README.split("## Set up")[1].split("```")[1]
    assert [line.split("#")[0].strip() for line in setup.strip().splitlines()] == ["make demo", "make test"]


def test_the_readme_names_only_options_that_exist() -> None:

    source = "".join(file.read_text("utf-8") for file in (ROOT / "sau_scan" / "cli").glob("*.py"))
    for option in set(re.findall(r"--[a-z][a-z-]+", README)) - {"--install-completion"}:
        name = option.removeprefix("--").replace("-", "_")
        assert f'"{option}"' in source or re.search(rf"\b{name}_?: arg\.", source), option


def test_the_files_that_git_must_carry_are_there() -> None:
    for name in ("LICENSE", "CHANGELOG.md", "constraints.txt", ".ci/run", "sau_scan/reports/schema.json"):
        assert (ROOT / name).is_file(), name
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_ci_fails_when_tests_or_checks_fail(tmp_path: Path) -> None:
    """The script itself, with a make that fails in one target."""
    script = tmp_path / ".ci" / "run"
    script.parent.mkdir()
    script.write_text((ROOT / ".ci" / "run").read_text("utf-8"))
    for broken in ("check", "test", "none"):
        (tmp_path / "Makefile").write_text(
            f"check test:\n\t@test $@ != {broken} || {{ echo broken >&2; exit 5; }}\n.PHONY: check test\n"
        )
        done = subprocess.run(["bash", script], check=False, capture_output=True, cwd="/")
        assert (done.returncode == 0) == (broken == "none"), broken
