"""A server of our own, a cache of its own, and a repository on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sau_scan.checkpoint.hub import Hub, HubSnapshot, resolve
from sau_scan.errors import SauScanError
from tests.hub_server import FakeHub, files_below, serving

UNET = "unet/diffusion_pytorch_model.safetensors"
LORA = "pytorch_lora_weights.safetensors"
Fetch = Callable[..., HubSnapshot]


class Silent:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.total = self.units = 0
        self.summary = ""
        self.said: list[str] = []

    def plan(self, text: str) -> None:
        self.said.append(text)

    def stage(self, name: str, total: int) -> None:
        self.total = total

    def advance(self, units: int = 1) -> None:
        self.units += units

    def done(self, summary: str) -> None:
        self.summary = summary


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving() as server:
        yield server


@pytest.fixture
def place(hub: FakeHub, tmp_path: Path) -> Hub:
    return Hub(endpoint=hub.endpoint, cache=tmp_path / "cache", offline=False)


@pytest.fixture
def fetch(place: Hub) -> Iterator[Fetch]:
    """:func:`resolve` from the server; what it gave is cleared away."""
    given: list[HubSnapshot] = []

    def call(name: str, revision: str | None = None, *, variant: str | None = None, **changes: object) -> HubSnapshot:
        where = replace(place, **changes)  # type: ignore[arg-type]
        given.append(resolve(name, revision, variant=variant, progress=Silent(), hub=where))
        return given[-1]

    yield call
    for snapshot in given:
        snapshot.close()


@pytest.fixture
def folder(hub: FakeHub, tiny_checkpoint: Path) -> dict[str, bytes]:
    """The files of ``org/name`` on the server."""
    files = files_below(tiny_checkpoint)
    hub.repo("org/name").push(files)
    return files


def refused(kind: type[SauScanError], words: str, call: Callable[[], object]) -> None:
    """``call`` raises exactly this kind, with these words, and a hint."""
    with pytest.raises(kind, match=words) as caught:
        call()
    assert type(caught.value) is kind and caught.value.hint and caught.value.exit_code in (2, 3)
