"""A process that vets files under a limit of memory, for the fuzz tests: paths in, one line of JSON for each out.

    python -m tests.static.fuzz_worker

Of a file named ``.pkl`` it also tells what the real unpickler would import, by one that imports nothing.
"""

from __future__ import annotations

import io
import json
import pickle
import resource
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from sau_scan.errors import SauScanError
from sau_scan.static import vet_file
from sau_scan.static.opening import open_vetted
from tests.corpus.verdicts import worst

GIGABYTE = 2**30
MEGABYTES = 4 * 2**20  # more than that is not read at once


class Inert:
    """Stands for whatever a pickle names, and does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, *_: object) -> Inert:
        return self

    __setstate__ = __setitem__ = append = __init__


class Names(pickle.Unpickler):
    """Reads a pickle without importing anything, and notes what it names."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.names: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add(f"{module}.{name}")
        return Inert()

    def persistent_load(self, pid: object) -> object:
        return pid


def imported(path: Path) -> list[str]:
    """What unpickling the file would import, until it ends or breaks."""
    reader = Names(path.read_bytes())
    with suppress(Exception):  # what ran before the break did run
        reader.load()
    return sorted(reader.names)


def open_it(path: Path) -> None:
    """Opens a file as a scan does; whatever is wrong with it must come out as an error of our own."""
    with suppress(SauScanError):
        open_vetted(path)


def answer(path: Path) -> dict[str, Any]:
    try:
        results = vet_file(path)
        open_it(path)
        names = imported(path) if path.suffix == ".pkl" and path.stat().st_size < MEGABYTES else []
    except BaseException:
        return {"error": traceback.format_exc()}
    return {"error": "", "rank": worst(results), "ids": [getattr(r, "id", "skipped") for r in results], "names": names}


def main() -> None:
    sys.set_int_max_str_digits(4300)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GIGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(Path(json.loads(line)))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
