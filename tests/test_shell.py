"""Commands that can be pasted: every word is, in bash, the very bytes of the name."""

from __future__ import annotations

import os
import subprocess

import pytest

from sau_scan.shell import ascii_command, word

NAMES = [
    b"plain.bin",
    b"it's.bin",
    b"\xfe\x1b[2J;touch PWNED;\n.bin",
    "\u0438'\u0444 \\x41".encode(),
    b"a\xff\\'f",
    b"!$(x)`y`\x01f",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("terminal", [str, ascii_command])
def test_a_word_is_the_name(name: bytes, terminal: type[str]) -> None:
    command = terminal(f"printf %s {word(os.fsdecode(name))}")
    assert command.isprintable()
    told = subprocess.run(["bash", "-c", command], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert told.stdout == name
    assert terminal is str or command.isascii()


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_saved_command_with_either_quotes(quote: str) -> None:
    assert ascii_command(f"less {quote}caf\u00e9{quote} '' \"\"") == "less $'caf\\u00e9' '' \"\""
    assert ascii_command(f"less {quote}{quote} {quote}a{quote}") == f"less {quote}{quote} {quote}a{quote}"
