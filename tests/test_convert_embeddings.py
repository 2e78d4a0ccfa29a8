"""convert keeps an embedding's word, by which alone a prompt reaches it, or refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sau_scan.checkpoint.adapters.applying import read_rows
from sau_scan.checkpoint.families import identify
from sau_scan.checkpoint.loader import load_model
from sau_scan.checkpoint.source import Checkpoint
from sau_scan.convert import Conversion, convert
from sau_scan.errors import CheckpointError, NotACheckpoint, UnsafeFile
from sau_scan.static import open_vetted
from tests.conftest import WIDTH

ROWS = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
OTHER = torch.ones(2, WIDTH)
PARAM = "string_to_param"


def converted(content: Any, folder: Path, name: str = "new") -> tuple[Conversion, dict[str, torch.Tensor]]:
    torch.save(content, folder / "cat.pt")
    target = folder / f"{name}.safetensors"
    return convert(folder / "cat.pt", target), load_file(target)


def word(path: Path, base: Path) -> str:
    checkpoint: Checkpoint = open_vetted(path, base=base)[0]
    assert checkpoint.base is not None
    modules = {"text_encoder": load_model(checkpoint.base).text_encoder}
    return read_rows(checkpoint, identify(checkpoint), modules).word


@pytest.mark.parametrize(
    ("content", "said", "dropped"),
    [
        (
            {"string_to_token": {"*": 265}, PARAM: {"*": ROWS}, "name": "moon", "step": 5},
            "moon",
            ("string_to_token.* (int)", "step (int)"),
        ),
        (
            {"string_to_token": {"*": torch.tensor(265)}, PARAM: {"*": ROWS}},
            "cat",
            ("string_to_token.* (tensor)",),
        ),
        ({"emb_params": ROWS, "name": "moon"}, "cat", ("name (str)",)),
        ({"<toy>": ROWS.half()}, "<toy>", ()),
    ],
)
def test_the_new_file_says_the_same_word(
    content: dict[str, Any], said: str, dropped: tuple[str, ...], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    done, tables = converted(content, tmp_path)
    assert tables.keys() == {said} and torch.equal(tables[said].float(), ROWS.to(tables[said].dtype).float())
    assert done.dropped == dropped
    assert done.word == word(tmp_path / "new.safetensors", tiny_checkpoint) == said


def test_a_word_that_is_the_name_of_its_file(tmp_path: Path) -> None:
    content = {"clip_l": ROWS, "clip_g": ROWS[:, :16]}
    with pytest.raises(NotACheckpoint, match="'cat', which the new file would say by its name") as caught:
        converted(content, tmp_path)
    assert caught.value.hint == "Convert it to cat.safetensors"
    done, tables = converted(content, tmp_path, "cat")
    assert done.word == "cat" and tables.keys() == content.keys()


ODD = {"a lora_ word": "'a lora_ word.safetensors'", "a_lora_é": r"$'a_lora_\u00e9.safetensors'"}


@pytest.mark.parametrize("said", ["verybad_v1.3", "a.b", "weight", "512", "clip.l", "emb_params", *ODD])
def test_a_word_that_only_the_name_of_its_file_says(said: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    content = {PARAM: {"*": ROWS}, "name": said}
    with pytest.raises(NotACheckpoint, match="which the new file would say by its name") as caught:
        converted(content, tmp_path)
    assert caught.value.hint == f"Convert it to {ODD.get(said, f'{said}.safetensors')}"
    done, tables = converted(content, tmp_path, said)
    assert tables.keys() == {"emb_params"} and torch.equal(tables["emb_params"], ROWS)
    assert done.word == word(tmp_path / f"{said}.safetensors", tiny_checkpoint) == said


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ({PARAM: {"*": ROWS}, "name": "clip_l"}, NotACheckpoint, "'clip_l', which the new file would say by its name"),
        ({PARAM: {"*": ROWS}, "name": "__metadata__"}, NotACheckpoint, "would say by its name"),
        ({PARAM: {"*": ROWS}, "name": "a/lora_"}, NotACheckpoint, "which no safetensors file"),
        ({PARAM: {"*": ROWS}, "name": "lora_\0"}, NotACheckpoint, "which no safetensors file"),
        ({PARAM: {"*": ROWS}, "name": "lora_" + "\xe9" * 120}, NotACheckpoint, "which no safetensors file"),
        ({PARAM: {"*": ROWS}, "name": 5}, NotACheckpoint, "word 5, which no safetensors file"),
        ({PARAM: {"*": ROWS}, "name": "a\ud800"}, NotACheckpoint, "which no safetensors file"),
        ({PARAM: {"*": ROWS}, "name": "a\x1b"}, UnsafeFile, r"called 'a\\x1b'"),
        ({PARAM: {"a": ROWS, "b": OTHER}}, NotACheckpoint, "holds 2 words"),
        ({PARAM: {"*": ROWS}, "text_model.a": OTHER}, UnsafeFile, "an embedding among other things"),
        ({PARAM: {"*": ROWS}, "model": {"moon": OTHER}}, UnsafeFile, "an embedding among other things"),
        ({PARAM: {5: ROWS}, "string_to_token": {"*": OTHER}}, UnsafeFile, "an embedding among other things"),
        ({PARAM: ROWS, "string_to_token": {"*": OTHER}}, NotACheckpoint, "no textual inversion"),
    ],
)
def test_what_the_new_file_could_not_say(
    content: dict[str, Any], kind: type[CheckpointError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words) as caught:
        converted(content, tmp_path)
    assert type(caught.value) is kind and caught.value.exit_code == 3
    assert {path.name for path in tmp_path.iterdir()} == {"cat.pt"}
