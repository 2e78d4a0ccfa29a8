"""What findings and errors about files advise can be followed, and helps."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.opening import open_checkpoint
from sau_scan.errors import UnsafeFile
from sau_scan.findings import Finding
from sau_scan.static import open_vetted, require_harmless, vet_file
from sau_scan.static.facts import Fact, findings
from tests.checkpoint.spoiling import UNET
from tests.static.makers import MAKERS


def found(path: Path) -> list[Finding]:
    return [note for note in vet_file(path) if isinstance(note, Finding)]


def test_bytes_behind_the_last_tensor_are_shown_from_the_end(tmp_path: Path) -> None:
    path = MAKERS["header-trailing"](tmp_path, tmp_path)
    (finding,) = found(path)
    assert finding.next_step == f"tail -c 1 {path} | xxd | head -n 20"


def test_a_path_in_an_index_of_shards_is_read_there(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = MAKERS["shard-outside"](tmp_path, tiny_checkpoint)
    (finding,) = found(folder)
    assert finding.next_step == f"less {folder}/unet/x.safetensors.index.json"


def test_a_pickle_that_runs_code_is_explained(tmp_path: Path) -> None:
    finding = found(MAKERS["pickle-system"](tmp_path, tmp_path))[0]
    assert finding.next_step == "sau-scan rules show pickle-danger"


def test_bytes_are_escaped_once(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"\xf9" + bytes(range(256)) * 8)
    assert any("at byte 0 stands 0xf9" in finding.behaviour for finding in found(tmp_path / "a.ckpt"))


def test_a_hostile_class_is_named_and_no_reason_to_get_other_weights(tmp_path: Path, tiny_checkpoint: Path) -> None:
    checkpoint, notes = open_vetted(MAKERS["custom-class-name"](tmp_path, tiny_checkpoint))
    with pytest.raises(UnsafeFile, match="'pipeline', 'Mine'") as caught:
        require_harmless(checkpoint, [note for note in notes if isinstance(note, Finding)])
    assert "safetensors" not in caught.value.hint and "source that you trust" in caught.value.hint


def test_a_pipe_in_place_of_a_configuration_is_no_pickle(copy_of: Path) -> None:
    (copy_of / "unet/config.json").unlink()
    os.mkfifo(copy_of / "unet/config.json")
    with pytest.raises(UnsafeFile, match=r"config.json was not opened: not a regular file") as caught:
        load_model(open_checkpoint(copy_of))
    assert "safetensors" not in caught.value.hint


def test_a_pipe_in_place_of_weights_is_not_to_be_saved_otherwise(copy_of: Path) -> None:
    (copy_of / UNET).unlink()
    os.mkfifo(copy_of / UNET)
    with pytest.raises(UnsafeFile, match="not a regular file") as caught:
        load_model(open_checkpoint(copy_of))
    assert caught.value.hint == "Download the checkpoint again, with all components."


HOSTILE = [
    ("a;touch owned;b", "{folder}.json"),
    ("a;touch owned;b", "{new}{path}.json"),
    ("{path}", "'; touch owned; '.json"),
    (".", "+!touch owned.json"),
    (".", "--help.json"),
]


@pytest.mark.parametrize(("folder", "name"), HOSTILE)
def test_a_hostile_name_is_one_word_of_the_command_and_no_option(folder: str, name: str) -> None:
    root = Path(folder)
    fact = Fact("json", "x", command="less {path} {folder} {new}")
    (finding,) = findings(root, name, [fact])
    program, path, *others = shlex.split(finding.next_step)
    assert (program, others) == ("less", [str(root), f"{root}-fixed"])
    assert Path(path) == root / name and path[0] not in "+-"


def test_a_name_that_is_no_text_is_told_one_way_and_can_be_pasted(tmp_path: Path, copy_of: Path) -> None:
    name = b"\xfe\x1b[2J;touch owned;\n.bin"
    path = copy_of / os.fsdecode(name)
    path.write_bytes(MAKERS["pickle-system"](tmp_path, tmp_path).read_bytes())
    shown = r"\udcfe\x1b[2J;touch owned;\n.bin"
    checkpoint, notes = open_vetted(copy_of)
    about = [note for note in notes if isinstance(note, Finding)]
    assert {note.location.path for note in about if note.location} == {shown}
    (command,) = (note.next_step for note in about if note.id == "file/odd-name")
    listed = subprocess.run(["bash", "-c", command.replace("ls -l", "ls")], capture_output=True, check=True)
    assert listed.stdout == os.fsencode(path) + b"\n"
    with pytest.raises(UnsafeFile, match=re.escape(f" {shown}: ")):
        require_harmless(checkpoint, about)


@pytest.mark.parametrize(("data", "runs"), [(b"\x05" + bytes(7) + b"[1,2]", False), (b"\x80\x04K\x01.", True)])
def test_only_what_could_run_is_said_to_run(tmp_path: Path, data: bytes, runs: bool) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    told = [note.behaviour for note in found(tmp_path / "model.safetensors") if note.id == "file/disguised"]
    assert told and all(("may run code" in text) == runs for text in told)
