"""The configurations make the published architectures, and the table tokenises as OpenCLIP does."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sau_scan.checkpoint.shipped import SHIPPED, shipped_files

UNET = {"sd1": 859_520_964, "sd2": 865_910_724, "sd2-base": 865_910_724, "sdxl": 2_567_463_684}
TEXT = {"sd1": 123_060_480, "sd2": 340_387_840, "sd2-base": 340_387_840, "sdxl": 123_060_480}
# By open_clip 3.3.0: SimpleTokenizer().encode(text).
IDS = {
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "An astronaut riding a horse, oil on canvas.": [550, 18376, 6765, 320, 4558, 267, 2870, 525, 7483, 269],
    "it's the dog's 3rd birthday; we'll see 12 balloons": [
        *(585, 568, 518, 1929, 568, 274, 1973, 1166, 282, 649, 1342, 862, 272, 273, 18130),
    ],
    "ph\u043eto of a house": [745, 13506, 531, 539, 320, 1212],
    "caf\u00e9 na\u00efve \u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439": [
        *(15304, 1097, 35689, 563, 39121, 44353, 34002, 508, 16370, 39729, 23669, 23669, 27152, 29503, 373),
    ],
    "\U0001f600 smile \u200b hidden": [7334, 3490, 9844, 7029],
    "supercalifragilisticexpialidocious": [1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466],
    "(masterpiece:1.2), 4k, --ar 16:9 #art @home": [
        *(263, 12066, 281, 272, 269, 273, 2361, 275, 330, 267, 2432, 625, 272, 277, 281, 280, 258, 794, 287, 1137),
    ],
    "tab\tand\nnewline   spaces": [14724, 537, 1218, 1148, 9006],
}


def config(family: str, path: str) -> dict[str, object]:
    value = json.loads(shipped_files(family)[path])
    assert isinstance(value, dict)
    return value


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("family", SHIPPED)
def test_the_architectures_have_the_published_sizes(family: str) -> None:
    with torch.device("meta"):
        assert parameters(UNet2DConditionModel.from_config(config(family, "unet/config.json"))) == UNET[family]
        assert parameters(AutoencoderKL.from_config(config(family, "vae/config.json"))) == 83_653_863
        encoder = CLIPTextModel(CLIPTextConfig(**config(family, "text_encoder/config.json")))
        assert parameters(encoder) == TEXT[family]
        if family == "sdxl":
            second = CLIPTextConfig(**config(family, "text_encoder_2/config.json"))
            assert parameters(CLIPTextModelWithProjection(second)) == 694_659_840


@pytest.mark.parametrize("family", SHIPPED)
def test_the_index_names_what_is_there(family: str) -> None:
    files = shipped_files(family)
    index = config(family, "model_index.json")
    named = {name for name, value in index.items() if isinstance(value, list) and value[0]}
    assert named == {path.split("/")[0] for path in files if "/" in path}
    assert hasattr(diffusers, str(index["_class_name"]))
    scheduler = config(family, "scheduler/scheduler_config.json")
    assert index["scheduler"] == ["diffusers", scheduler["_class_name"]]
    kind = getattr(diffusers, str(scheduler["_class_name"]))
    known = inspect.signature(kind).parameters
    made = kind.from_config({key: value for key, value in scheduler.items() if key in known})
    assert float(made.alphas_cumprod[999]) == pytest.approx(0.00466, rel=1e-3)


@pytest.mark.parametrize(
    ("family", "component", "pad"), [("sd1", "tokenizer", 49_407), ("sd2", "tokenizer", 0), ("sdxl", "tokenizer_2", 0)]
)
def test_the_tokenizer_gives_the_ids_of_open_clip(family: str, component: str, pad: int, tmp_path: Path) -> None:
    for path, data in shipped_files(family).items():
        if path.startswith(component + "/"):
            (tmp_path / Path(path).name).write_bytes(data)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert len(tokenizer) == 49_408
    for text, ids in IDS.items():
        assert tokenizer(text, padding="max_length", max_length=77).input_ids == [
            49_406,
            *ids,
            49_407,
            *[pad] * (75 - len(ids)),
        ]


def test_what_is_not_shipped_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        shipped_files("sd9")
