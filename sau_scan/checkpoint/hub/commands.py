"""Commands that reports and errors suggest, about files of the hub: they name the repository and its commit, where
what was scanned lay in a private folder that is gone by then."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from sau_scan.checkpoint.hub.naming import HubName
from sau_scan.checkpoint.hub.snapshot import HubSnapshot
from sau_scan.findings import escape

_PIECE = r"""'[^']*'|"[^"]*"|[^\s'"]+"""  # shlex.quote makes a word of several, where it holds a quote
_WORD = rf"((?:{_PIECE})+)"
_OURS = re.compile(r"sau-scan (?:detect|fix) ")

Snapshots = Sequence[HubSnapshot]


def renamed(text: str, snapshots: Snapshots) -> str:
    """``text`` with repositories in place of private folders, and commands of ours that can be pasted."""
    if not any(folder in text for snapshot in snapshots for folder in _spellings(snapshot)):
        return text
    text = _replaced("--out ", text, snapshots, lambda snapshot, rest: _beside(snapshot.id + rest))
    text = _replaced("--base ", text, snapshots, _pinned)
    text = _replaced(_OURS.pattern, text, snapshots, _at_commit)
    for snapshot in snapshots:
        for folder in _spellings(snapshot):
            text = text.replace(folder, snapshot.id)
    return text


def fetched_first(command: str, snapshots: Snapshots) -> str:
    """A finding's next step; what looks at a file on this machine needs the file there."""
    if _OURS.match(command):
        return renamed(command, snapshots)
    for word in re.findall(_WORD, command):
        found = _lying_in(word, snapshots)
        if found is not None and found[1]:
            snapshot, file = found[0], shlex.quote(found[1].strip("/"))
            fetch = f"hf download {snapshot.id} {file} --revision {snapshot.commit} --local-dir {_here(snapshot, '')}"
            return f"{fetch} && {_replaced('', command, snapshots, _here)}"
    return renamed(command, snapshots)


def _lying_in(word: str, snapshots: Snapshots) -> tuple[HubSnapshot, str] | None:
    """The repository whose private folder a word names, and the rest of the word."""
    path = "".join(piece[1:-1] if piece[0] in "'\"" else piece for piece in re.findall(_PIECE, word))
    for snapshot in snapshots:
        for folder in _spellings(snapshot):
            if path.startswith(folder):
                return snapshot, path.removeprefix(folder)
    return None


def _spellings(snapshot: HubSnapshot) -> tuple[str, str]:
    return str(snapshot.folder), escape(str(snapshot.folder))


def _replaced(pattern: str, text: str, snapshots: Snapshots, spell: Callable[[HubSnapshot, str], str]) -> str:
    """Words behind ``pattern`` that name a private folder, as ``spell`` has it."""

    def one(match: re.Match[str]) -> str:
        found = _lying_in(match[2], snapshots)
        return match[1] + spell(*found) if found is not None else match[0]

    return re.sub(f"({pattern}){_WORD}", one, text)


def _beside(path: str) -> str:
    """A copy goes into the folder where the command is run."""
    return shlex.quote(PurePosixPath(path).name)


def _here(snapshot: HubSnapshot, rest: str) -> str:
    """In the folder that was fetched into."""
    return shlex.quote(snapshot.id.split("/")[1] + rest)


def _pinned(snapshot: HubSnapshot, rest: str) -> str:
    return shlex.quote(str(HubName(snapshot.id, rest.strip("/"), snapshot.commit)))


def _at_commit(snapshot: HubSnapshot, rest: str) -> str:
    return f"{shlex.quote(snapshot.id + rest)} --revision {snapshot.commit}"
