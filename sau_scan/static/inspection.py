"""Which analysers look at which bytes: by what they are, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sau_scan.checkpoint.downloads import HEAD, ends_of, spoilt
from sau_scan.checkpoint.naming import PICKLES, WEIGHT_NAMES
from sau_scan.findings import Severity
from sau_scan.static.archives import check_packed, check_tail, check_tar, check_wrapped, check_zip
from sau_scan.static.content import WHOLE, Content
from sau_scan.static.facts import Fact, Unfinished, damaged
from sau_scan.static.foreign import check_model_code, check_numpy, check_path_file
from sau_scan.static.header import early, parse_header
from sau_scan.static.magic import CALLED, PACKED, WRAPPED, check_name, kind_of
from sau_scan.static.pickles import check_pickle, is_pickle_name, is_whole_pickle
from sau_scan.static.texts import check_json, check_metadata, check_text

JSON_NAME = ".json"
TEMPLATE_NAMES = (".jinja", ".jinja2", ".j2")
SPOILT = "spoilt"
# Kinds that other analysers judge under any name.
JUDGED = frozenset({SPOILT, "zip", "tar", "pickle", "other", "safetensors", "program", "script"}) | PACKED | WRAPPED


def _names(content: Content, kind: str) -> Iterator[Fact]:
    return check_name(content, kind) if kind != SPOILT else iter(())


def _archives(content: Content, kind: str) -> Iterator[Fact]:
    if kind == "zip":
        yield from check_zip(content, inspect)
    elif kind == "tar":
        yield from check_tar(content, inspect)
    elif kind in WRAPPED:
        yield from check_wrapped(content, kind, inspect)
    elif kind in PACKED:
        yield from check_packed(content, kind)
    else:
        yield from check_tail(content, kind, inspect)


def _pickles(content: Content, kind: str) -> Iterator[Fact]:
    """Anything but a zip may be a pickle, as a loader that is told so would find: the first bytes of most other
    kinds are opcodes, too."""
    if kind != "zip":
        named = is_pickle_name(content)
        yield from check_pickle(content, certain=named and kind in {"pickle", "other"}, named=named)


def _weights(content: Content, kind: str) -> Iterator[Fact]:
    """Under the names of torch's files, what is neither one of its archives nor a pickle from beginning to end."""
    if content.size and content.suffix in PICKLES and kind not in JUDGED and not is_whole_pickle(content):
        called = CALLED.get(kind, "of another kind")
        yield Fact("disguised", f"{content.subject} is {called}, not the weights that its name says.")


def _numpy(content: Content, kind: str) -> Iterator[Fact]:
    return check_numpy(content) if kind == "numpy" else iter(())


def _model_code(content: Content, kind: str) -> Iterator[Fact]:
    yield from check_model_code(content)
    if kind in ("text", SPOILT):
        yield from check_path_file(content)


def _texts(content: Content, kind: str) -> Iterator[Fact]:
    name = content.name.lower()
    if kind == "text" and name.endswith(TEMPLATE_NAMES):
        yield from check_text(content.read(0, WHOLE // 8).decode("utf-8", "replace"), content.subject)
    if not name.endswith(JSON_NAME) or not content.size:
        return
    if kind != "text":
        yield Fact("json", f"{content.subject} is not JSON in UTF-8.", Severity.LOW)
    elif content.size > WHOLE:
        yield Fact("json-oversize", f"{content.subject} has {content.size:,} bytes.")
    else:
        yield from check_json(content.whole())


def _packed_safetensors(content: Content, kind: str) -> Iterator[Fact]:
    """The header of safetensors within archives; those on disk are followed while they are read."""
    if kind != "safetensors" or not content.inside:
        return
    length = int.from_bytes(content.head(8), "little")
    header = early(length, content.size) or parse_header(content.read(8, length), content.size)
    yield from header.facts
    yield from check_metadata(header.metadata)


Analyser = Callable[[Content, str], Iterator[Fact]]
# All of them see every file; each says what it has nothing to say about.
ANALYSERS: tuple[tuple[str, Analyser], ...] = (
    ("names", _names),
    ("archives", _archives),
    ("pickles", _pickles),
    ("weights", _weights),
    ("arrays", _numpy),
    ("model code", _model_code),
    ("texts", _texts),
    ("safetensors", _packed_safetensors),
)


def inspect(content: Content) -> Iterator[Fact]:
    """All that is to say about some bytes. An analyser that chokes is a fact of its own. Never raises."""
    try:
        kind = kind_of(content.head(HEAD))
        wrong = _spoilt(content, kind)
    except (OSError, Unfinished) as error:
        yield failed("names", error)
        return
    if wrong:
        yield damaged(wrong)
        kind = kind if kind == "zip" else SPOILT
    for name, analyser in ANALYSERS:
        try:
            yield from analyser(content, kind)
        except Exception as error:  # hostile bytes may break anything; that is worth telling
            yield failed(name, error)


def _spoilt(content: Content, kind: str) -> str:
    """What a download left in place of weights, or ""; a pickle can be a text, and is none the less one."""
    if content.inside or content.suffix not in WEIGHT_NAMES or kind not in {"text", "zip", "other"}:
        return ""
    found = spoilt(ends_of(content.stream, content.size))
    return found.what if found is not None and not (content.size and is_whole_pickle(content)) else ""


def failed(name: str, error: Exception) -> Fact:
    """The fact that an analyser could not finish."""
    reason = str(error) if isinstance(error, Unfinished) else f"{type(error).__name__}: {ascii(str(error)[:80])[1:-1]}"
    return Fact("analyser-failed", f"The check of its {name} did not finish: {reason}.")
