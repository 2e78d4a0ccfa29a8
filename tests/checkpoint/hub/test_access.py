"""What is not there, not shown, or not reachable; and the environment that says where to ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sau_scan.checkpoint.hub import asked_offline
from sau_scan.errors import HubUnreachable, NoAccess, NotOnHub
from tests.checkpoint.hub.conftest import Fetch, refused
from tests.hub_server import FakeHub, files_below


@pytest.mark.parametrize(("value", "is_offline"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_wish_for_no_network(value: str, is_offline: bool) -> None:
    assert asked_offline({"HF_HUB_OFFLINE": value}) is asked_offline({"TRANSFORMERS_OFFLINE": value}) is is_offline


def test_what_is_not_there(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    refused(NotOnHub, "neither a path on this machine nor a repository", lambda: fetch("org/missing"))
    refused(NotOnHub, "has no revision v9", lambda: fetch("org/name", "v9"))
    refused(NotOnHub, "has no revision", lambda: fetch("org/name", "0" * 40))


def test_private_and_gated(
    hub: FakeHub, folder: dict[str, bytes], fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo("org/name").private = True
    hub.repo("org/gated").push(folder)
    hub.repo("org/gated").gated = True
    refused(NotOnHub, "org/name is neither", lambda: fetch("org/name"))
    refused(NoAccess, "org/gated is gated", lambda: fetch("org/gated"))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(NoAccess, "not shown to this token", lambda: fetch("org/name"))
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert fetch("org/name").files and fetch("org/gated").files
    # The store of large files is another host: the token is none of its business.
    served = [line for line in hub.requests if line.startswith("GET") and "/resolve/" in line]
    assert all(line.endswith(" token") != line.split()[1].endswith(".safetensors") for line in served)


def test_offline(hub: FakeHub, folder: dict[str, bytes], fetch: Fetch) -> None:
    refused(HubUnreachable, "not in the cache", lambda: fetch("org/name", offline=True))
    online = fetch("org/name")
    hub.requests.clear()
    for revision in (None, online.commit):
        got = fetch("org/name", revision, offline=True)
        assert got.commit == online.commit and files_below(got.root) == folder
        assert "HF_HUB_OFFLINE" in got.left[-1].reason
    refused(HubUnreachable, "at revision v2 is not in the cache", lambda: fetch("org/name", "v2", offline=True))
    assert not hub.requests


def test_no_network(folder: dict[str, bytes], fetch: Fetch) -> None:
    fetch("org/name")
    # What was fetched before may be out of date: it is for the user to say that it will do.
    refused(HubUnreachable, "cannot be reached", lambda: fetch("org/name", endpoint="http://127.0.0.1:9"))


def test_the_library_stays_offline_but_for_the_named(
    folder: dict[str, bytes], fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("org/name").files and constants.HF_HUB_OFFLINE
    refused(NotOnHub, "org/missing", lambda: fetch("org/missing"))
    assert constants.HF_HUB_OFFLINE


SCRIPT = """
import sys
from sau_scan.checkpoint.hub import looks_like_hub_id, resolve
assert looks_like_hub_id("org/name") and "huggingface_hub" not in sys.modules and "torch" not in sys.modules
from tests.checkpoint.hub.conftest import Silent
with resolve("org/name", progress=Silent()) as got:
    print(got.commit, got.folder)
"""


def test_the_environment_is_honoured(hub: FakeHub, folder: dict[str, bytes], tmp_path: Path) -> None:
    hub.repo("org/name").private = True
    names = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_TOKEN": hub.token}

    def run(**more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=os.environ | names | more, capture_output=True, text=True, check=True
        )
        assert not done.stderr
        return done.stdout

    printed = run()
    commit, place = printed.split()
    assert commit == hub.repo("org/name").branches["main"] and place.startswith(str(tmp_path / "hub"))
    hub.requests.clear()
    assert run(HF_HUB_OFFLINE="1").split()[0] == commit and not hub.requests
    assert not Path(place).exists()
