"""What a file is by its first bytes, against what its name says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from sau_scan.checkpoint.downloads import is_text
from sau_scan.checkpoint.naming import CODE, OTHER_PICKLES, PICKLES
from sau_scan.checkpoint.tensor_file import is_safetensors
from sau_scan.findings import Severity
from sau_scan.static.content import Content
from sau_scan.static.facts import Fact

MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"PK\x07\x08", "zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
    (0, b"\x1f\x8b\x08", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"\x5d\x00\x00\x80\x00", "lzma"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"MSCF", "cab"),
    (257, b"ustar", "tar"),
    (0, b"\x7fELF", "program"),
    (0, b"\xcf\xfa\xed\xfe", "program"),
    (0, b"\xce\xfa\xed\xfe", "program"),
    (0, b"\xca\xfe\xba\xbe", "program"),
    (0, b"\0asm", "program"),
    (0, b"#!/", "script"),
    (0, b"\x93NUMPY", "numpy"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"GGUF", "gguf"),
    (0, b"\x89PNG\r\n\x1a\n", "picture"),
    (0, b"\xff\xd8\xff", "picture"),
    (0, b"GIF8", "picture"),
    (0, b"RIFF", "picture"),
    (0, b"%PDF", "document"),
)
CALLED = {
    "zip": "a zip archive",
    "program": "a program",
    "script": "a script",
    "pickle": "a pickle",
    "numpy": "a NumPy array",
    "hdf5": "an HDF5 file",
    "gguf": "a GGUF file",
    "picture": "a picture",
    "document": "a document",
    "safetensors": "safetensors",
    "text": "text",
    "other": "of a kind that is not known",
}
PACKED = frozenset({"7z", "rar", "zstd", "lz4", "cab"})
WRAPPED = frozenset({"gzip", "bzip2", "xz", "lzma"})
RUNS = frozenset({"pickle", "program", "script", "zip", "tar"}) | PACKED | WRAPPED
_ZIPS = frozenset({"zip"})
PICKLE_NAMES = PICKLES | OTHER_PICKLES
# Suffix -> kinds that it stands for. What is not listed may be anything.
EXPECTED: dict[str, frozenset[str]] = {
    ".safetensors": frozenset({"safetensors"}),
    ".npz": _ZIPS,
    ".zip": _ZIPS,
    ".keras": _ZIPS,
    ".npy": frozenset({"numpy"}),
    ".h5": frozenset({"hdf5"}),
    ".gguf": frozenset({"gguf"}),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".webp"), frozenset({"picture"})),
    **dict.fromkeys((".json", ".txt", ".md", ".yaml", ".yml", ".csv", ".html", ".jsonl", ".toml"), frozenset({"text"})),
    **dict.fromkeys(PICKLE_NAMES, frozenset()),
}


def kind_of(head: bytes) -> str:
    """A name for what begins with ``head`` (at least 512 bytes of it, where there are so many)."""
    for offset, magic, kind in MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    if head[:2] == b"MZ" and b"PE\0\0" in head[:512]:
        return "program"
    if is_safetensors(head):
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "pickle"
    return "text" if is_text(head) else "other"


def check_name(content: Content, kind: str) -> Iterator[Fact]:
    """Whether the name says something else than the first bytes."""
    suffix = PurePosixPath(content.name.lower()).suffix
    wanted = EXPECTED.get(suffix)
    called = CALLED.get(kind, f"a {kind} archive")
    if suffix == ".safetensors" and content.size <= 8:
        yield Fact("safetensors-header", f"{content.subject} is too short for a header.")
    if content.size == 0 or (wanted is not None and kind in wanted):
        return
    if kind == "program":
        yield Fact("program", f"By its first bytes {content.shown} is a program; it was not run.")
    elif content.inside and suffix in _PROGRAMS:
        yield Fact("program", f"By its name {content.shown} is a program.", Severity.MEDIUM)
    elif kind == "script" and not content.inside and suffix not in CODE:
        yield Fact("code", f"{content.subject} is a script, by its first line.", Severity.MEDIUM)
    if suffix == ".safetensors" or (wanted and kind in RUNS) or (wanted is not None and kind == "script"):
        told = "; a program that trusts the content instead of the name may run code from it"
        runs = told if kind in RUNS else ""
        yield Fact("disguised", f"{content.subject} is {called}, not what its name says{runs}.")
    elif kind == "safetensors" and wanted is not None:
        yield Fact("disguised", f"{content.subject} is safetensors in spite of its name.", Severity.INFO)


_PROGRAMS = frozenset({".so", ".dll", ".dylib", ".exe", ".pyd", ".bat", ".cmd", ".ps1", ".scr", ".msi", ".jar", ".sh"})
