"""Loading of the rules about files, and the errors for a file that is no such rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from sau_scan.errors import ConfigError
from sau_scan.file_rules import file_rule, load_file_rules
from sau_scan.rules import load_rules, shipped_rules

VALID = (shipped_rules() / "files/pickle.yaml").read_text("utf-8")


def write(folder: Path, text: str, name: str = "files/pickle.yaml") -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, "utf-8")
    return folder


def test_both_kinds_of_rules_keep_apart() -> None:
    about_files, about_texts = {rule.id for rule in load_file_rules()}, {rule.id for rule in load_rules()}
    assert len(about_files) > 30 and not about_files & about_texts


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("blocks: false", "blocks: false\ncolour: red", "unknown field 'colour'"),
        ("blocks: false", "blocks: maybe", "field 'blocks'"),
        ("severity: info", "severity: dreadful", "field 'severity'"),
        ("id: pickle", "id: other", "not where the file is"),
        ("  - maker: torch-zip", "  - maker: Torch Zip", "field 'positive.0.maker'"),
    ],
)
def test_a_bad_rule_is_refused_with_file_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in VALID
    with pytest.raises(ConfigError, match=message) as caught:
        load_file_rules(write(tmp_path, VALID.replace(old, new, 1)))
    assert "pickle.yaml" in str(caught.value) and caught.value.hint


def test_a_rule_that_is_missing_is_an_error_not_a_crash() -> None:
    with pytest.raises(ConfigError, match="no rule for files"):
        file_rule("nothing")
