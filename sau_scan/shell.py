"""Words of commands that somebody pastes into a POSIX shell, or into bash or zsh where a name is odd."""

from __future__ import annotations

import re
import shlex

_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")


def word(text: str) -> str:
    """``text`` as one word of a command; what is unprintable in it, as of names that are no text, as escapes."""
    return shlex.quote(text) if text.isprintable() else _ansi(text)


def ascii_command(command: str) -> str:
    """``command``, whose odd words are between quotes, for terminals that are only trusted with ASCII."""
    return _QUOTED.sub(lambda match: match[0] if match[0].isascii() else _ansi(match[0][1:-1]), command)


def _ansi(text: str) -> str:
    """The shell's $'...' quoting, itself without a quote inside."""
    return f"$'{''.join(map(_character, text))}'"


def _character(one: str) -> str:
    code = ord(one)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if one == "\\":
        return r"\\"
    if " " <= one <= "~" and one != "'":
        return one
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
