"""`rules`: what is known is listed, and shown escaped."""

from __future__ import annotations

from tests.cli.conftest import Invoke


def test_rules_are_listed_and_shown_escaped(invoke: Invoke) -> None:
    listed = invoke("rules", "list")
    assert listed.exit_code == 0
    assert "invisible/zero-width" in listed.stdout
    shown = invoke("rules", "show", "invisible/zero-width").stdout
    assert '"\\u200b"   U+200B ZERO WIDTH SPACE' in shown
    assert "\u200b" not in shown
    assert invoke("rules", "show", "zero-width").stdout == shown


def test_rules_about_files_are_listed_and_shown_with_what_to_do(invoke: Invoke) -> None:
    assert "file/pickle-danger" in invoke("rules", "list").stdout
    shown = invoke("rules", "show", "file/pickle-danger").stdout
    assert "nothing is loaded" in shown and "os.system behind REDUCE" in shown
    assert invoke("rules", "show", "pickle-danger").stdout == shown
