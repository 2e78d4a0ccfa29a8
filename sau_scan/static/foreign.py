"""Formats that are never loaded here, but that other programs run code from: NumPy, Keras, TensorFlow, ONNX, GGUF."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sau_scan.findings import Severity, escape
from sau_scan.static.content import Content
from sau_scan.static.facts import Fact
from sau_scan.static.pickles import check_pickle
from sau_scan.static.texts import REACHING

# Layers that Keras rebuilds from stored Python byte code, as its configuration names them.
_LAMBDA = re.compile(rb'"class_name"\s*:\s*"(?:Lambda|TFOpLambda)"|__lambda__')
# Operations of a TensorFlow graph that touch the disk or Python.
_GRAPH = re.compile(rb"\b(ReadFile|WriteFile|PyFunc|PyFuncStateless|EagerPyFunc|MergeV2Checkpoints|ShardedFilename)\b")
# ONNX: an entry of external data, key "location", then the path with its length.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
_TEMPLATE = b"tokenizer.chat_template"
SUFFIXES = frozenset({".h5", ".hdf5", ".keras", ".json", ".pb", ".onnx"})
LOOKED_AT = 16 * 2**20


def check_numpy(content: Content) -> Iterator[Fact]:
    """An array of Python objects is a pickle behind a header."""
    head = content.head(12)
    wide = head[6:7] != b"\x01"
    length = int.from_bytes(head[8 : 12 if wide else 10], "little")
    start = (12 if wide else 10) + length
    described = content.read(12 if wide else 10, min(length, 2**16))
    if re.search(rb"['\"]descr['\"]\s*:[^}]*['\"][|<>=]?O", described) or length > 2**16:
        yield Fact("pickle-unknown", f"{content.subject} is an array of Python objects, which is a pickle.")
        part = content.window("its objects", start, content.size - start)
        yield from check_pickle(part, certain=True)


def check_model_code(content: Content) -> Iterator[Fact]:
    """Code within models of other frameworks, found by the words that their loaders act on."""
    suffix = content.suffix
    if suffix not in SUFFIXES and content.head(4) not in {b"GGUF", b"\x89HDF"}:
        return
    data = content.read(0, min(content.size, LOOKED_AT))
    keras = suffix in {".h5", ".hdf5", ".keras", ".json"} or data[:8] == b"\x89HDF\r\n\x1a\n"
    if keras and _LAMBDA.search(data):
        yield Fact("model-code", f"{content.subject} has a Keras layer that is stored as Python code.")
    if suffix == ".pb" and (found := _GRAPH.search(data)):
        yield Fact("model-code", f"{content.subject} has the TensorFlow operation {found[1].decode()}.")
    if suffix == ".onnx":
        yield from _external(content, data)
    if data[:4] == b"GGUF" and (at := data.find(_TEMPLATE)) >= 0:
        text = data[at : at + 2**16].decode("utf-8", "replace")
        if reaching := REACHING.search(text):
            yield Fact("template", f"Its chat template reaches for {reaching[0]!a}.")


def check_path_file(content: Content) -> Iterator[Fact]:
    """Text called .pth: where it lies in site-packages, Python runs its lines that begin with "import"."""
    if content.suffix == ".pth" and re.search(rb"^import[ \t]", content.head(2**16), re.MULTILINE):
        sentence = f"{content.subject} is a list of paths with lines that Python runs."
        yield Fact("code", sentence, Severity.MEDIUM)


def _external(content: Content, data: bytes) -> Iterator[Fact]:
    for found in _LOCATION.finditer(data):
        path = data[found.end() : found.end() + found[1][0]].decode("utf-8", "replace")
        if path.startswith(("/", "~")) or ".." in re.split(r"[/\\]", path) or path[1:2] == ":":
            yield Fact("archive-path", f"{content.subject} takes its data from {escape(path)[:80]}.")
