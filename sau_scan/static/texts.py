"""Texts that travel with a model, in safetensors metadata and JSON files: code and templates that reach for code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sau_scan.findings import Severity
from sau_scan.static.facts import Fact

MOST_TEXT = 4 * 2**20  # one value of metadata; training captions fill some hundred KB
# Objects, lists and commas; the largest vocabularies have less than two million, each of which takes some 100 bytes.
MOST_BRACKETS = 2_500_000
SHOWN = 60
# What no description of a model says, and programs do.
CODE = re.compile(
    r"__import__\s*\(|(?<![.\w])(?:eval|exec)\s*\(\s*['\"\w(]|\bos\s*\.\s*(?:system|popen|exec[lv])|"
    r"\bsubprocess\s*\.|\bimportlib\s*\.|\bpickle\s*\.\s*loads?|\bctypes\s*\.|\bmarshal\s*\.\s*loads|"
    r"<script\b|javascript:|data:text/html|\bpowershell\b|(?:curl|wget)\s[^|\n]{1,300}\|\s*(?:ba)?sh\b|"
    r"\bbase64\s*\.\s*b64decode|^#!\s*/|!!python/|\brm\s+-rf\s+[/~]",
    re.IGNORECASE,
)
# Ways from a template to Python: attributes with underscores, and the globals that sandboxes have leaked.
_BRACES = re.compile(r"\{\{|\{%|\$\{|<%")
REACHING = re.compile(
    r"__\w+__|\\x5f\\x5f|\|\s*attr\s*\(|\b(?:cycler|joiner|lipsum|namespace|self|request|config)\s*(?:\.|\[)\s*"
    r"['\"]?_|\bpopen\b|\bos\s*\.\s*system|\bsubprocess\b|\bimport\s*os\b|getattr",
)
# Base64 of the first bytes of pickles, programs and archives.
ENCODED = re.compile(r"^(?:gA[I-X][A-Za-z0-9+/]|f0VMR|UEsDB|N3q8r|H4sIA)[A-Za-z0-9+/=\s]{24,}$")


def check_text(text: str, where: str) -> Iterator[Fact]:
    """``where`` names the field, escaped."""
    start = text[:MOST_TEXT]
    if len(text) > MOST_TEXT:
        yield Fact("metadata-large", f"{where} holds {len(text):,} characters.")
    code = CODE.search(start)
    if _BRACES.search(start) and (reaching := REACHING.search(start)):
        yield Fact("template", f"{where} is a template that reaches for {_shown(start, reaching)}.")
    elif code:
        yield Fact("metadata", f"{where} holds code: {_shown(start, code)}.")
    if ENCODED.match(start):
        yield Fact("metadata", f"{where} holds a program, an archive or a pickle in base64.")


def _shown(text: str, match: re.Match[str]) -> str:
    begin = max(0, match.start() - 10)
    return ascii(text[begin : begin + SHOWN])


def check_metadata(metadata: dict[str, Any]) -> Iterator[Fact]:
    """The texts beside the tensors of a safetensors file."""
    for key, value in metadata.items():
        yield from check_text(str(value), f"Its metadata {ascii(key)[:40]}")
        yield from check_text(key, "A name in its metadata")


def check_json(data: bytes) -> Iterator[Fact]:
    """Any JSON file: names that stand twice, and texts anywhere within."""
    try:
        value, repeated = load_json(data)
    except TooLarge as error:
        yield Fact("json-oversize", str(error))
        return
    except (ValueError, RecursionError):
        yield Fact("json", "It is not JSON, or nested deeper than any configuration.", Severity.LOW)
        return
    if repeated:
        yield Fact("json", f"It names {ascii(repeated)[:60]} twice, so that two readers can see two different files.")
    for text, where in _strings(value):
        yield from check_text(text, where)


class TooLarge(Exception):
    """JSON that would fill the memory."""


def load_json(data: bytes) -> tuple[Any, str | None]:
    """The value, and a name that stands twice in one object. Raises TooLarge, ValueError or RecursionError."""
    if data.count(b"{") + data.count(b"[") + data.count(b",") > MOST_BRACKETS:
        raise TooLarge("It holds more values than any configuration or vocabulary has.")
    repeated: str | None = None

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        result = dict(items)
        if len(result) != len(items) and repeated is None:
            seen: set[str] = set()
            repeated = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return result

    return json.loads(data.decode("utf-8-sig"), object_pairs_hook=pairs), repeated


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Texts worth a look, with their place. Those of a vocabulary are not: single tokens run nothing."""
    waiting: list[tuple[Any, str]] = [(value, "")]
    while waiting:
        part, place = waiting.pop()
        if isinstance(part, str) and len(part) > 12:
            yield part, f"Its field {ascii(place)[1:-1][:60] or 'value'}"
        elif isinstance(part, dict) and not _is_vocabulary(part):
            waiting += [(inner, f"{place}.{key}" if place else key) for key, inner in part.items()]
        elif isinstance(part, list):
            waiting += [(inner, place) for inner in part if isinstance(inner, (str, dict, list))]


def _is_vocabulary(part: dict[str, Any]) -> bool:
    return len(part) > 200 and all(type(number) is int for number in part.values())
