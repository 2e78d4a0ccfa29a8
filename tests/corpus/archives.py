"""Hostile pickles inside archives: torch's own, broken and lying zips, 7z, tar and compressed streams."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from sau_scan.findings import Severity
from tests.corpus.gadgets import PICKLESCAN
from tests.corpus.opcodes import PROTO_4, assemble, evil
from tests.corpus.sample import Sample, writes
from tests.corpus.zips import Entry, evil_zip, marked_zip, torch_entries, torch_zip, zip_bytes

MAGIC = 0x1950A86A20F9469CFC6C
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154"
    "789c63606060000000040001f61738550000000049454e44ae426082"
)


def _legacy(part: int) -> Callable[[Path], bytes]:
    """Torch's old stream of five pickles, the hostile one in a place of its own."""

    def data(canary: Path) -> bytes:
        system = {"protocol_version": 1001, "little_endian": True}
        parts = [pickle.dumps(value, 2) for value in (MAGIC, 1001, system, {"a": 1}, [])]
        return b"".join([*parts[:part], evil(canary), *parts[part + 1 :]])

    return data


def _tar(canary: Path) -> bytes:
    """Torch's oldest format: a tar of pickles."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, data in (("storages", evil(canary)), ("tensors", pickle.dumps(0)), ("pickle", pickle.dumps({}))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _seven(name: str, data: Callable[[Path], bytes]) -> Callable[[Path], bytes]:
    def packed(canary: Path) -> bytes:
        import py7zr

        out = io.BytesIO()
        with py7zr.SevenZipFile(out, "w") as file:
            file.writestr(data(canary), name)
        return out.getvalue()

    return packed


def _lying(**changes: object) -> Callable[[Path], bytes]:
    return lambda canary: torch_zip(evil(canary), **changes)


def _spoilt(canary: Path) -> bytes:
    """The checksum belongs to other data."""
    return torch_zip(evil(canary), crc=1)


def _twice(canary: Path) -> bytes:
    """Two entries of one name; readers differ in which they take."""
    honest = assemble({"a": 1})
    return zip_bytes(*torch_entries(evil(canary)), Entry("archive/data.pkl", honest))


def _two_directories(canary: Path) -> bytes:
    """A whole honest zip, then the hostile one."""
    honest = torch_zip(assemble({"a": 1}))
    return zip_bytes(*torch_entries(evil(canary)), before=honest)


def _unlisted(canary: Path) -> bytes:
    """An entry that only the local headers know."""
    return zip_bytes(Entry("archive/data.pkl", evil(canary), listed=False), *torch_entries(assemble({"a": 1})))


def _elsewhere(canary: Path) -> bytes:
    """The directory sends the reader to data under another local name."""
    hidden = Entry("archive/readme.txt", evil(canary))
    return zip_bytes(hidden, Entry("archive/data.pkl", evil(canary), offset=0, stored=False), *torch_entries(b"N.")[1:])


def _other_entry(canary: Path) -> bytes:
    return zip_bytes(*torch_entries(assemble({"a": 1})), Entry("archive/config.p", evil(canary)))


def _constants(canary: Path) -> bytes:
    """A TorchScript archive keeps further pickles."""
    return zip_bytes(*torch_entries(assemble({"a": 1})), Entry("archive/constants.pkl", evil(canary)))


def _nested_zip(canary: Path) -> bytes:
    return zip_bytes(Entry("inner.zip", evil_zip(canary)))


def _in_text(canary: Path) -> bytes:
    return zip_bytes(Entry("data.txt", evil(canary)))


def _no_magic(canary: Path) -> bytes:
    """An entry without the bytes by which pickles are told."""
    return zip_bytes(*torch_entries(evil(canary)[len(PROTO_4) :]))


def _marker(canary: Path) -> bytes:
    return PNG + b"--model--" + evil(canary)


_JFROG = "https://jfrog.com/blog/unveiling-3-zero-day-vulnerabilities-in-picklescan/"
_NULLIFAI = "https://www.reversinglabs.com/blog/rl-identifies-malware-ml-model-hosted-on-hugging-face"
_CRC, _NAMES, _FLAGS, _ENDINGS, _SUFFIX = (
    PICKLESCAN + name
    for name in (
        "GHSA-mjqp-26hc-grxg",
        "GHSA-7q5r-7gvp-wc82",
        "GHSA-w8jq-xcqf-f792",
        "GHSA-769v-p64c-89pr",
        "GHSA-jgw4-cr84-mqxg",
    )
)

# id, file name, what it is, its bytes, link, how it is loaded
_ARCHIVES: tuple[tuple[str, str, str, Callable[[Path], bytes], str, str], ...] = (
    ("torch-pt", "model.pt", "torch archive", evil_zip, "", "torch"),
    ("torch-ckpt", "model.ckpt", "torch archive", evil_zip, "", "torch"),
    ("torch-bin", "diffusion_pytorch_model.bin", "torch archive", evil_zip, "", "torch"),
    ("torch-pth", "model.pth", "torch archive", evil_zip, "", "torch"),
    ("torch-safetensors", "model.safetensors", "torch archive named safetensors", evil_zip, "", "torch-handle"),
    ("torch-no-ending", "model", "torch archive without an ending", evil_zip, "", "torch"),
    ("torch-prefix", "model.pt", "torch archive with another prefix", lambda c: torch_zip(evil(c), "x y"), "", "torch"),
    ("torch-deflate", "model.pt", "torch archive, compressed", _lying(deflate=True), "", "torch"),
    ("torch-no-magic", "model.pt", "torch archive, pickle without PROTO", _no_magic, "", "torch"),
    ("zip-crc", "model.pt", "wrong checksum", _spoilt, _CRC, "torch"),
    ("zip-names", "model.pt", "another name before the data", _lying(local_name="archive/datap.kl"), _NAMES, "torch"),
    *((f"zip-flag-{flag:x}", "model.pt", f"flag {flag:#x} before the data", _lying(local_flags=flag), _FLAGS, "torch") for flag in (0x1, 0x20, 0x40)),
    ("zip-locked", "model.pt", "said to be encrypted", _lying(flags=1, local_flags=1), _FLAGS, ""),
    ("zip-twice", "model.pt", "two entries of one name", _twice, "", "zip"),
    ("zip-two-zips", "model.pt", "an honest zip before it", _two_directories, "", "torch"),
    ("zip-unlisted", "model.pt", "an entry that the directory does not know", _unlisted, "", ""),
    ("zip-elsewhere", "model.pt", "the directory points into another entry", _elsewhere, "", "torch"),
    ("zip-other-entry", "model.pt", "a pickle under another name", _other_entry, _ENDINGS, "torch-other-entry"),
    ("zip-constants", "model.pt", "a second pickle", _constants, "", "zip"),
    ("zip-text", "data.zip", "a pickle named .txt in a zip", _in_text, _ENDINGS, "zip"),
    ("zip-in-zip", "model.zip", "a zip in a zip", _nested_zip, "", "zip-in-zip"),
    ("zip-after-png", "preview.png", "behind a picture", lambda c: PNG + evil_zip(c), "", "zip-extracted"),
    ("zip-after-text", "model.pt", "behind other bytes", lambda c: b"#!\n" * 9 + evil_zip(c), "", "zip-extracted"),
    ("zip-before-junk", "model.pt", "with a comment after it", lambda c: zip_bytes(*torch_entries(evil(c)), after=b"x" * 99), "", "torch"),
    ("zip-marked", "pytorch_model.bin", "the mark of an end as its comment, and a method that does not exist", lambda c: marked_zip(evil(c)), "", "torch"),
    ("zip-wrong-count", "model.pt", "the directory claims no entries", lambda c: zip_bytes(*torch_entries(evil(c)), count=0), "", ""),
    ("seven-pickle", "model.7z", "7z with a pickle", _seven("data.pkl", evil), _NULLIFAI, "7z"),
    ("seven-renamed", "pytorch_model.bin", "7z named .bin", _seven("data.pkl", evil), _NULLIFAI, "7z"),
    ("seven-text", "model.7z", "7z with a pickle named .txt", _seven("data.txt", evil), "", "7z"),
    ("seven-torch", "model.7z", "7z with a torch archive", _seven("model.pt", evil_zip), _NULLIFAI, ""),
    ("tar", "model.pt", "tar, torch's oldest format", _tar, "", "torch"),
    ("tar-named", "model.tar", "tar of pickles", _tar, "", "tar"),
    *((f"legacy-{part}", "model.pt", f"pickle {part + 1} of torch's old stream", _legacy(part), "", "torch") for part in (0, 1, 2, 3, 4)),
    ("wrong-ending-bin", "model.bin", "a plain pickle named .bin", evil, _SUFFIX, "pickle"),
    ("wrong-ending-pt", "model.pt", "a plain pickle named .pt", evil, _JFROG, "pickle"),
    ("wrong-ending-txt", "notes.txt", "a pickle named .txt", evil, _SUFFIX, "pickle"),
    ("wrong-ending-json", "config.json", "a pickle named .json", evil, _SUFFIX, "pickle"),
    ("wrong-ending-md", "README.md", "a pickle named .md", evil, _SUFFIX, "pickle"),
    ("wrong-ending-jpg", "preview.jpg", "a pickle named .jpg", evil, _SUFFIX, "pickle"),
    ("wrong-ending-safetensors", "model.safetensors", "a pickle named .safetensors", evil, "", "pickle"),
    ("wrong-ending-none", "weights", "a pickle without an ending", evil, _SUFFIX, "pickle"),
    ("gzip", "model.pkl.gz", "gzip", lambda c: gzip.compress(evil(c)), "", "joblib"),
    ("gzip-named-pkl", "model.pkl", "gzip named .pkl", lambda c: gzip.compress(evil(c)), "", "joblib"),
    ("bz2", "model.pkl.bz2", "bzip2", lambda c: bz2.compress(evil(c)), "", "joblib"),
    ("xz", "model.pkl.xz", "xz", lambda c: lzma.compress(evil(c)), "", "joblib"),
    ("lzma", "model.joblib", "lzma", lambda c: lzma.compress(evil(c), lzma.FORMAT_ALONE), "", "joblib"),
    ("zlib", "model.joblib", "zlib", lambda c: zlib.compress(evil(c)), "", "joblib"),
    ("joblib", "model.joblib", "a plain pickle named .joblib", evil, "", "joblib"),
    ("after-png", "preview.png", "a pickle behind a picture", _marker, "", "after-marker"),
)  # fmt: skip

ARCHIVES = tuple(
    Sample(f"archive-{name}", file, what, writes(data), Severity.HIGH, link, load=load)
    for name, file, what, data, link, load in _ARCHIVES
)
