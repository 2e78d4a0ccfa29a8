"""What is typed for a repository: ``org/name``, a file of it, a revision; or its address in a browser."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from sau_scan.checkpoint.hub.choice import is_plain
from sau_scan.checkpoint.naming import WEIGHT_NAMES

SITE = "https://huggingface.co"
DEFAULT_REVISION = "main"
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_PART = re.compile(r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_ADDRESS = re.compile(r"[a-z]+://", re.IGNORECASE)
_VIEWS = ("tree", "blob", "resolve", "raw")


@dataclass(frozen=True)
class HubName:
    """``file`` and ``revision`` are empty where they were not named."""

    id: str
    file: str = ""
    revision: str = ""

    @classmethod
    def of(cls, text: str) -> HubName:
        """From ``org/name[@REVISION][/FILE]``; a slash in the revision is written ``%2F``."""
        organisation, second, *path = text.split("/")
        name, _, revision = second.partition("@")
        return cls(f"{organisation}/{name}", "/".join(path), unquote(revision))

    def __str__(self) -> str:
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"{self.id}{revision}" + (f"/{self.file}" if self.file else "")


def looks_like_hub_id(text: str) -> bool:
    """Whether ``text``, as it was typed, is to be looked for on the hub: it has the form of a name there.

    A path whose first folder is here is one, or what a failed build did not make would be asked for by a stranger's
    name; only ``@REVISION`` says that the hub is meant all the same.
    """
    if not has_form_of_hub_id(text) or os.path.lexists(text):
        return False
    return "@" in text.split("/")[1] or not os.path.lexists(text.split("/")[0])


def has_form_of_hub_id(text: str) -> bool:
    parts = text.split("/")
    if len(parts) < 2 or not is_plain(text) or parts[0].lower() in _HOSTS:
        return False
    name, at, revision = parts[1].partition("@")
    if not all(_PART.fullmatch(part) for part in (parts[0], name)) or (at and not revision):
        return False
    if len(parts) == 2 and not at and PurePosixPath(text).suffix.lower() in WEIGHT_NAMES:  # a file, mistyped
        return False
    return not any("--" in part or ".." in part or part.endswith(".git") for part in (parts[0], name))


def from_address(text: str) -> str:
    """An address of the hub as a name of it; other texts as they are.

    Raises ValueError for other addresses, since nothing else is fetched, and where the name is taken by a path here.
    """
    host = text.split("/")[0]
    if host.lower() in _HOSTS and not os.path.lexists(host):  # as browsers show it; nobody means a user of that name
        text = f"{SITE}/{text.partition('/')[2]}"
    if not _ADDRESS.match(text):
        return text
    address, known = urlsplit(text), {*_HOSTS, urlsplit(os.environ.get("HF_ENDPOINT") or SITE).netloc}
    parts = [unquote(part) for part in address.path.split("/") if part]
    if address.netloc.lower() not in known or len(parts) < 2 or parts[0] in ("datasets", "spaces"):
        raise ValueError("only models of the hub are fetched; download it first, and name the file or folder here")
    view = parts[2:3] and parts[2] in _VIEWS
    revision, file = (parts[3] if len(parts) > 3 else "", parts[4:]) if view else ("", parts[2:])
    name = HubName("/".join(parts[:2]), "/".join(file), revision)
    if not revision and not looks_like_hub_id(str(name)):  # but elsewhere --revision may still say which
        name = replace(name, revision=DEFAULT_REVISION)
    if not has_form_of_hub_id(str(name)) or HubName.of(str(name)) != name:  # a part can hold slashes, encoded
        raise ValueError("that is no address of a model, or of a file of one")
    if os.path.lexists(str(name)):
        raise ValueError(f"it stands for {name}, and what lies here under that name is not what the hub has")
    return str(name)
