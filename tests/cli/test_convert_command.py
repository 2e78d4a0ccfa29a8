"""The command around ``convert``: what it prints, and how it exits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from sau_scan.cli.app import app
from sau_scan.convert import Conversion
from tests.cli.conftest import Invoke
from tests.test_convert import STATE, Canary, saved


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["convert", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_the_command(tmp_path: Path) -> None:
    target = tmp_path / "new.safetensors"
    source = saved(tmp_path, {"state_dict": STATE, "epoch": 3})
    code, out, err = run(source, target)
    assert (
        code == 0
        and "CONVERTED" in out
        and "epoch (int)" in out
        and hashlib.sha256(target.read_bytes()).hexdigest() in out
    )
    assert f"{len(STATE)} tensors written, and read back bit for bit" in err
    target.unlink()
    code, out, err = run(source, target, "--format", "json", "--quiet")
    assert code == 0 and not err
    assert len(Conversion.model_validate(json.loads(out)).tensors) == len(STATE)


def test_the_word_of_an_embedding(tmp_path: Path) -> None:
    source = saved(tmp_path, {"string_to_param": {"*": torch.ones(1, 16)}, "name": "moon"})
    code, out, _ = run(source, tmp_path / "new.safetensors")
    assert code == 0 and "'moon', as before" in out and "left out   nothing" in out


def test_exit_codes_of_the_command(tmp_path: Path) -> None:
    target = tmp_path / "new.safetensors"
    evil = saved(tmp_path, {"x": Canary(tmp_path / "canary")}, "evil.ckpt")
    code, out, err = run(evil, target)
    assert code == 3 and not out and "was not opened" in err and "exit 3" in err and not target.exists()
    save_file({"a": torch.ones(1)}, tmp_path / "old.safetensors")
    code, _, err = run(tmp_path / "old.safetensors", target)
    assert code == 3 and "already" in err
    assert run(tmp_path / "none.ckpt", target)[0] == 3
    assert run(evil)[0] == 2


def test_names_are_shown_escaped(invoke: Invoke, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "a\u202eb.ckpt")
    result = invoke("convert", "a\u202eb.ckpt", "b.safetensors", "--format", "json")
    assert result.stdout.isascii()
    assert json.loads(result.stdout)["before"]["path"] == "a\u202eb.ckpt"


def test_a_file_that_may_not_be_read(invoke: Invoke, tmp_path: Path, deny: Callable[[Path], None]) -> None:
    deny(saved(tmp_path, STATE))
    result = invoke("convert", "old.ckpt", "new.safetensors")
    assert result.exit_code == 3 and "cannot be read: Permission denied" in result.stderr
