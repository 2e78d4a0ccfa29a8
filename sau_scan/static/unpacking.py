"""What comes out of the entries of a zip archive, whatever they are packed with."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib

from sau_scan.static.content import WHOLE, Content
from sau_scan.static.zips import Entry


def unpack(content: Content, entry: Entry, most: int) -> bytes:
    """Up to ``most`` bytes of an entry; as much as comes out before it breaks. Raises Unfinished, ValueError."""
    packed = content.read(entry.begin, min(entry.packed, WHOLE))
    if entry.method == 0:
        return packed[:most]
    opener = _METHODS.get(entry.method)
    if opener is None:
        raise ValueError(f"method {entry.method}")
    try:
        data: bytes = opener(packed, most)
    except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError, MemoryError) as error:
        raise ValueError(str(error)) from error
    content.budget.spend(len(data))
    return data


def _inflate(packed: bytes, most: int) -> bytes:
    return zlib.decompressobj(-15).decompress(packed, most)


def _bunzip(packed: bytes, most: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(packed, most)


def _unlzma(packed: bytes, most: int) -> bytes:
    """Method 14: a version, the size of the properties, the properties, then raw LZMA."""
    size = struct.unpack("<H", packed[2:4])[0]
    lc_lp_pb, dictionary = struct.unpack("<BL", packed[4:9])
    if size != 5 or dictionary > 64 * 2**20:
        raise ValueError("properties")
    rest, lc = divmod(lc_lp_pb, 9)
    pb, lp = divmod(rest, 5)
    chain = [{"id": lzma.FILTER_LZMA1, "dict_size": dictionary, "lc": lc, "lp": lp, "pb": pb}]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=chain).decompress(packed[9:], most)


_METHODS = {8: _inflate, 12: _bunzip, 14: _unlzma}
