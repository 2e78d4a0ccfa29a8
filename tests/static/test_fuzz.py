"""Whatever the bytes: no crash, no execution, at most a gigabyte more and a minute; and no import is overlooked.

In ``make test`` there are few examples, always the same; ``make test-all`` looks for new ones at length.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sau_scan.findings import Severity
from tests.corpus import make
from tests.corpus.folders import FAST, honest
from tests.corpus.sample import Sample
from tests.static.fuzz_strategies import (
    ENDINGS,
    FILES,
    LARGEST,
    PICKLES,
    Change,
    changed,
    headers,
    nested,
    some_changes,
    streams,
    zips,
)

SECONDS = 60.0
FEW, MANY = 60, 3_000
EXAMPLES = int(os.environ.get("SAU_SCAN_FUZZ", FEW))
# Modules whose import by a pickle nobody needs.
OUTSIDE = ("posix.", "os.", "nt.", "subprocess.", "sys.", "builtins.eval", "builtins.exec")
fuzz = settings(max_examples=EXAMPLES, derandomize=EXAMPLES == FEW, suppress_health_check=list(HealthCheck))
ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """The process of ``fuzz_worker``, started anew after a file that killed it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.canary = folder, folder / "canary"
        self.process: subprocess.Popen[str] | None = None

    def vet(self, data: bytes, name: str) -> dict[str, Any]:
        """What vetting these bytes under this name comes to; fails the test where it does not come back."""
        path = self.folder / name
        path.write_bytes(data)
        answer = self.vet_path(path)
        path.unlink()
        return answer

    def vet_path(self, path: Path) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            line = process.stdout.readline() if selector.select(SECONDS) else ""
        if not line:
            state = process.poll()
            self.close()
            pytest.fail(f"{path.name}: {'slower than a minute' if state is None else f'died with {state}'}")
        answer = json.loads(line)
        assert answer["error"] == "", answer["error"]
        assert not self.canary.exists()
        return dict(answer)

    def _running(self) -> subprocess.Popen[str]:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.static.fuzz_worker"],
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
                cwd=ROOT,
            )
        return self.process

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()


Read = Callable[[Sample], bytes]


@pytest.fixture(scope="module")
def bytes_of(worker: Worker) -> Read:
    """The bytes of a sample that is one file, or the first of them."""
    known: dict[str, bytes] = {}

    def read(sample: Sample) -> bytes:
        if sample.id not in known:
            known[sample.id] = make(sample, worker.folder / "made", worker.canary).read_bytes()[:LARGEST]
        return known[sample.id]

    return read


def check_imports(answer: dict[str, Any]) -> None:
    """What the real unpickler would import from outside was told of."""
    outside = [name for name in answer["names"] if name.startswith(OUTSIDE)]
    assert not outside or answer["rank"] >= Severity.HIGH.rank, (outside, answer)


@fuzz
@given(st.sampled_from(FILES), st.none() | st.sampled_from(FILES), some_changes, st.none() | st.sampled_from(ENDINGS))
def test_changed_files(
    worker: Worker, bytes_of: Read, sample: Sample, other: Sample | None, done: list[Change], ending: str | None
) -> None:
    data = changed(bytes_of(sample), done) + (bytes_of(other) if other else b"")
    worker.vet(data, sample.name if ending is None else f"model.{ending}")


@fuzz
@given(st.sampled_from(PICKLES), some_changes)
def test_no_import_of_a_changed_pickle_is_overlooked(
    worker: Worker, bytes_of: Read, sample: Sample, done: list[Change]
) -> None:
    check_imports(worker.vet(changed(bytes_of(sample), done), "model.pkl"))


@fuzz
@given(streams)
def test_no_import_of_a_stream_of_opcodes_is_overlooked(worker: Worker, stream: bytes) -> None:
    check_imports(worker.vet(stream, "model.pkl"))


@fuzz
@given(headers)
def test_headers(worker: Worker, data: bytes) -> None:
    worker.vet(data, "model.safetensors")


@fuzz
@given(zips, st.sampled_from(("model.pt", "model.zip", "model.safetensors")))
def test_zips(worker: Worker, data: bytes, name: str) -> None:
    worker.vet(data, name)


@fuzz
@given(st.sampled_from(("model_index.json", "unet/config.json", FAST)), st.text(max_size=12), nested, st.booleans())
def test_tables_of_a_folder(worker: Worker, table: str, key: str, value: object, whole: bool) -> None:
    """Odd values in the place of one field, or of the whole table."""
    folder = worker.folder / "checkpoint"
    if not folder.exists():
        honest(folder)
    path = folder / table
    before = path.read_text()
    fields = json.loads(before)
    key = sorted(fields)[len(key) % len(fields)] if fields else key
    path.write_text(json.dumps(value if whole else {**fields, key: value}))
    worker.vet_path(folder)
    path.write_text(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.pkl", "config.json"])
@pytest.mark.parametrize("start", [b"", b"PK\3\4", b"\x80\x04", b"{", b"\x00\x00\x00\xff\0\0\0\0{"])
def test_huge_files(worker: Worker, name: str, start: bytes) -> None:
    """Two gigabytes, without taking them from the disk."""
    path = worker.folder / name
    with path.open("wb") as file:
        file.write(start)
        file.truncate(2 * 10**9)
    worker.vet_path(path)
    path.unlink()


def test_what_is_no_file(worker: Worker) -> None:
    """A pipe that nobody writes to, devices, a broken link, a folder in itself: each is told of, none is waited for."""
    os.mkfifo(worker.folder / "pipe.pt")
    (worker.folder / "broken.pt").symlink_to("nowhere")
    (worker.folder / "circle.pt").symlink_to("circle.pt")
    for path in (
        "/dev/zero",
        "/dev/null",
        *(worker.folder / f"{name}.pt" for name in ("pipe", "broken", "circle", "none")),
    ):
        assert worker.vet_path(Path(path))["ids"], path
    for name in ("pipe", "broken", "circle"):
        (worker.folder / f"{name}.pt").unlink()


@pytest.mark.slow
def test_at_length() -> None:
    """All of the above on many new examples."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", __file__],
        env={**os.environ, "SAU_SCAN_FUZZ": str(MANY)},
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:]
