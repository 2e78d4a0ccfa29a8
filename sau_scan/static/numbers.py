"""Statistics of weights, taken while their bytes pass by: values that are not numbers, and tensors that are dead.

Floating-point numbers are looked at as whole ones. The greatest word with a sign tells whether a positive value is
infinite or NaN, the greatest without one does so for negative values; both are found without copying anything, far
faster than the bytes are hashed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sau_scan.findings import Evidence
from sau_scan.static.facts import Fact
from sau_scan.static.header import Tensor

MOST_NAMED = 3
# Biases and offsets start at zero and may stay there; and a vector of one value is an ordinary scale.
LEAST_DEAD = 4096


@dataclass(frozen=True)
class Format:
    """A type's words: ``bits`` without and with a sign, and the least word (sign off) that is no finite number."""

    unsigned: Any
    signed: Any
    infinite: int | None


FORMATS: dict[str, Format] = {
    "F64": Format(np.uint64, np.int64, 0x7FF0_0000_0000_0000),
    "F32": Format(np.uint32, np.int32, 0x7F80_0000),
    "F16": Format(np.uint16, np.int16, 0x7C00),
    "BF16": Format(np.uint16, np.int16, 0x7F80),
    "F8_E5M2": Format(np.uint8, np.int8, 0x7C),
    "F8_E4M3": Format(np.uint8, np.int8, 0x7F),
    "I64": Format(np.uint64, np.int64, None),
    "I32": Format(np.uint32, np.int32, None),
    "I16": Format(np.uint16, np.int16, None),
    "I8": Format(np.uint8, np.int8, None),
    "U8": Format(np.uint8, np.int8, None),
}
# First bytes of what does not belong into a tensor of whole numbers.
PAYLOADS = (b"\x7fELF", b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"\x80\x02}q", b"\x80\x04\x95", b"\x80\x05\x95", b"#!/")
_BYTES = frozenset({"U8", "I8", "BOOL"})


@dataclass
class _State:
    """What is known of the tensor whose bytes are passing."""

    bad: int = 0
    least: int | None = None
    most: int = 0
    most_signed: int = -(2**63)


@dataclass
class Statistics:
    """Fed with a file's bytes behind the header, in order."""

    tensors: Sequence[Tensor]
    position: int
    bad: dict[str, int] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)
    payloads: list[str] = field(default_factory=list)
    _next: int = 0
    _state: _State = field(default_factory=_State)
    _carry: bytes = b""

    def update(self, chunk: memoryview) -> None:
        """The next bytes."""
        end = self.position + len(chunk)
        while self._next < len(self.tensors):
            tensor = self.tensors[self._next]
            if tensor.begin >= end and tensor.end > tensor.begin:
                break
            part = chunk[max(0, tensor.begin - self.position) : max(0, tensor.end - self.position)]
            if self.position <= tensor.begin and len(part):
                self._look(tensor, bytes(part[:16]))
            self._take(tensor, part)
            if tensor.end > end:
                break
            self._finish(tensor)
        self.position = end

    def _look(self, tensor: Tensor, head: bytes) -> None:
        if tensor.dtype in _BYTES and head.startswith(PAYLOADS):
            self.payloads.append(tensor.name)

    def _take(self, tensor: Tensor, part: memoryview) -> None:
        """Words may be cut by the ends of chunks."""
        form = FORMATS.get(tensor.dtype)
        if form is None or not len(part):
            return
        width = np.dtype(form.unsigned).itemsize
        if self._carry:
            missing = width - len(self._carry)
            word, part = self._carry + bytes(part[:missing]), part[missing:]
            self._carry = word if len(word) < width else b""
            if not self._carry:
                self._words(form, np.frombuffer(word, form.unsigned))
        whole = len(part) // width * width
        if whole:
            self._words(form, np.frombuffer(part[:whole], form.unsigned))
        self._carry += bytes(part[whole:])

    def _words(self, form: Format, words: NDArray[Any]) -> None:
        state = self._state
        most, most_signed = int(words.max()), int(words.view(form.signed).max())
        if state.least is None or state.least == state.most:  # as long as it may be constant
            state.least = min(int(words.min()), most if state.least is None else state.least)
        state.most, state.most_signed = max(state.most, most), max(state.most_signed, most_signed)
        if form.infinite is not None:
            sign = 1 << (8 * words.itemsize - 1)
            if most_signed >= form.infinite or most >= sign + form.infinite:
                state.bad += int(np.count_nonzero((words & words.dtype.type(sign - 1)) >= form.infinite))

    def _finish(self, tensor: Tensor) -> None:
        state = self._state
        if state.bad:
            self.bad[tensor.name] = state.bad
        form = FORMATS.get(tensor.dtype)
        count = (tensor.end - tensor.begin) // np.dtype(form.unsigned).itemsize if form else 0
        if form is not None and form.infinite is not None and count >= LEAST_DEAD and len(tensor.shape) > 1:
            sign = 1 << (8 * np.dtype(form.unsigned).itemsize - 1)
            zero = state.most_signed == 0 and state.most in {0, sign}
            if zero or state.least == state.most:
                self.dead.append(tensor.name)
        self._state, self._carry = _State(), b""
        self._next += 1

    def facts(self) -> Iterator[Fact]:
        """What the statistics say, at the end of the file."""
        total = len(self.tensors)
        if self.bad:
            yield Fact(
                "nan-weights",
                f"{len(self.bad):,} of {total:,} tensors hold NaN or infinite values.",
                tensor=next(iter(self.bad)),
                evidence=(Evidence(name="values that are not numbers", value=sum(self.bad.values())),),
            )
        if self.dead:
            yield Fact(
                "dead-weights",
                f"{len(self.dead):,} of {total:,} tensors hold one value only: {_named(self.dead)}.",
                tensor=self.dead[0],
            )
        if self.payloads:
            yield Fact(
                "tensor-payload",
                f"The bytes of {_named(self.payloads)} begin as those of a program, an archive or a pickle.",
                tensor=self.payloads[0],
            )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(ascii(name)[1:-1][:80] for name in names[:MOST_NAMED]) + more
