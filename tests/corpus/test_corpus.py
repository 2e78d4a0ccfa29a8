"""The corpus is what it says: the hostile half executes when it is loaded carelessly, the benign half is harmless."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from tests.corpus import BENIGN, HOSTILE, SAMPLES, by_id, make
from tests.corpus.loaders import LOADERS, appears, run_loaders
from tests.corpus.weights import _PLAIN, _TORCH


def test_there_are_hundreds_and_each_is_told_apart() -> None:
    assert len(HOSTILE) >= 100 and len(BENIGN) >= 100
    assert len({sample.id for sample in SAMPLES}) == len(SAMPLES)
    assert all(sample.what and sample.name and not sample.name.startswith("/") for sample in SAMPLES)
    assert {sample.load for sample in HOSTILE} - {""} <= set(LOADERS)
    assert not any(sample.load or sample.link for sample in BENIGN)


def test_the_hostile_ones_execute_when_they_are_loaded(tmp_path: Path) -> None:
    samples = [sample for sample in HOSTILE if sample.load]
    canaries = {sample.id: tmp_path / f"canary-{sample.id}" for sample in samples}
    made = [(sample, make(sample, tmp_path / "made", canaries[sample.id])) for sample in samples]
    assert len(samples) >= 100 and not any(canary.exists() for canary in canaries.values())
    run_loaders(made)
    assert [name for name, canary in canaries.items() if not appears(canary)] == []


# What ``weights_only`` does not read, though it is as harmless: numpy's values and the later protocols.
UNREADABLE = {"torch-numpy-scalar", "torch-numpy-array", "random-states", "torch-protocol-4", "torch-protocol-5"}
HARMLESS = {"torch", "numpy", "collections", "_codecs"}


class Inert:
    """Stands for whatever a pickle names, and does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    __setstate__ = __setitem__ = __init__


class Names(pickle.Unpickler):
    """Reads a pickle without importing anything, and notes the modules that it names."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> type:
        self.modules.add(module.split(".")[0])
        return Inert

    def persistent_load(self, pid: object) -> object:
        return pid


def made(name: str, folder: Path) -> Path:
    return make(by_id(f"benign-{name}"), folder, folder / "canary")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", [row[0] for row in _TORCH if row[0] not in UNREADABLE])
def test_benign_torch_files_load_as_weights_only(name: str, tmp_path: Path) -> None:
    torch.load(made(name, tmp_path), weights_only=True)


@pytest.mark.parametrize("name", [*sorted(UNREADABLE), *(row[0] for row in _PLAIN if row[1].endswith(".pkl"))])
def test_benign_pickles_name_nothing_that_acts(name: str, tmp_path: Path) -> None:
    path = made(name, tmp_path)
    data = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            data = file.read(next(entry for entry in file.namelist() if entry.endswith("data.pkl")))
    reader = Names(data)
    reader.load()
    assert reader.modules <= HARMLESS
