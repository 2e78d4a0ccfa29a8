"""What downloads leave in place of weights, or of their end: told for what it is, since no author meant it so."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

from sau_scan.checkpoint.source import DOWNLOAD_AGAIN

HEAD = 512
# Readers look for an archive's end in the last 64 KiB, torch's in 4 KiB more; what stands before it may be of use.
TAIL = 2**17
MOST_POINTER = 1024  # as git-lfs has it
MOST_TEXT = 2**20  # of a page that is sent instead of a file
ZIP, ZIP_END, ZIP_END_SIZE = b"PK\x03\x04", b"PK\x05\x06", 22
_POINTERS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")


class Ends(NamedTuple):
    """The first HEAD and the last TAIL of a file's ``size`` bytes; there may be fewer than it claims."""

    head: bytes
    tail: bytes
    size: int

    @property
    def start(self) -> int:
        """Where the tail begins."""
        return max(0, self.size - TAIL)


def ends_of(stream: BinaryIO, size: int) -> Ends:
    stream.seek(0)
    head = stream.read(HEAD)
    stream.seek(max(0, size - TAIL))
    return Ends(head, stream.read(TAIL), size)


class Spoilt(NamedTuple):
    """``what`` follows the file's name in a sentence; ``hint`` says what to do."""

    what: str
    hint: str = DOWNLOAD_AGAIN


def spoilt(ends: Ends) -> Spoilt | None:
    """What is wrong with a file of weights; None for nothing that could be told in this way."""
    head, _, size = ends
    if not size:
        return Spoilt("is empty")
    if head.startswith(_POINTERS) and size <= MOST_POINTER and is_text(head):
        pull = "Run git lfs pull in its repository, or download the file itself."
        return Spoilt("is a Git LFS pointer, a note of where the weights are", pull)
    if size <= MOST_TEXT and is_text(head) and not head.startswith(b"#!"):
        page = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES)
        told = "is a web page, not weights" if page else "is a text, not weights"
        return Spoilt(told, "Download it again: the site sent this instead, perhaps because it asks for a login.")
    if len(head) == HEAD and not any(head):
        return Spoilt("begins with nothing but zeros, as a download that was not finished")
    if is_cut_zip(ends):
        return Spoilt(f"ends after {size:,} bytes, within its archive: it is cut short")
    return None


def is_cut_zip(ends: Ends) -> bool:
    """Whether an archive has lost its end, without which loaders do not find what is in it."""
    return ends.head.startswith(ZIP) and zip_end(ends.tail) < 0


def zip_end(tail: bytes) -> int:
    """Where an archive's end begins in its last TAIL, or -1: the last mark with a whole end behind it. Readers differ
    in what else they ask of it; torch's asks for no more."""
    return tail.rfind(ZIP_END, 0, len(tail) - ZIP_END_SIZE + len(ZIP_END)) if len(tail) >= ZIP_END_SIZE else -1


def is_text(head: bytes) -> bool:
    """Whether these are characters in UTF-8, the last of which may be cut, as texts have them."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not merely a character that was cut
            return False
        text = head[: error.start].decode("utf-8")
    return not any(ch < " " and ch not in "\t\n\r\f\x1b" for ch in text)
