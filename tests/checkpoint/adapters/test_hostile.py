"""Whatever names, shapes and values a file holds, it is placed or refused, never a crash."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from sau_scan.checkpoint.adapters.inversion import extend_tokenizer, read_inversion
from sau_scan.checkpoint.adapters.layouts import COMPONENTS, KOHYA
from sau_scan.checkpoint.adapters.lora import parse
from sau_scan.checkpoint.adapters.settings import METADATA
from sau_scan.errors import SauScanError
from tests.checkpoint.adapters.samples import LAYOUTS, shapes_of, weights
from tests.conftest import WIDTH, tiny_pipeline, tiny_tokenizer

BASE = shapes_of(weights(tiny_pipeline()))
MODULES = [n.removesuffix(".weight") for n, shape in BASE["unet"].items() if n.endswith("weight") and len(shape) > 1]
PIECES = st.sampled_from(
    [
        *KOHYA,
        *COMPONENTS,
        *MODULES[:30],
        ".",
        "_",
        "",
        "base_model.model.",
        ".processor",
        "text_model.",
        "\ud800",
        "lora",
    ]
)
FACTORS = (".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight", "_lora.up.weight")
ENDS = st.sampled_from([*FACTORS, ".lora_mid.weight", ".alpha", ".lokr_w1", ""])
NAMES = st.builds(lambda parts, end: "".join(parts) + end, st.lists(PIECES, max_size=3), ENDS)
SHAPES = st.lists(st.integers(0, 70), max_size=5).map(tuple)
NUMBERS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner))
TENSORS = st.builds(
    lambda shape, kind: torch.ones(shape, dtype=kind),
    st.lists(st.sampled_from([0, 1, 2, WIDTH]), max_size=3),
    st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool]),
)
KEYS = st.sampled_from(["string_to_param", "name", "*", "clip_l", "clip_g", "emb_params", "<toy>"]) | st.text(
    max_size=3
)
CONTENT = st.dictionaries(
    KEYS | st.integers(), TENSORS | NUMBERS | st.dictionaries(KEYS, TENSORS | NUMBERS, max_size=2), max_size=3
)


def outcome(action: Callable[[], Any]) -> Any:
    """What ``action`` gives, or None where it refuses; then the error is printable and says what to do."""
    refused: SauScanError | None = None
    try:
        return action()
    except SauScanError as error:
        refused = error
    assert refused.hint and str(refused).isascii()
    return None


@given(st.dictionaries(NAMES, SHAPES, max_size=6), st.none() | st.dictionaries(st.text(max_size=9), JSON, max_size=3))
def test_any_names_and_shapes(shapes: dict[str, tuple[int, ...]], config: dict[str, Any] | None) -> None:
    outcome(lambda: parse(shapes, BASE, where="x", base="a toy", config=config))


def good(ranks: dict[str, int], layout: str) -> dict[str, tuple[int, ...]]:
    naming = LAYOUTS[layout][0] if layout in ("peft", "kohya") else LAYOUTS["peft"][0]
    shapes: dict[str, tuple[int, ...]] = {}
    for module, rank in ranks.items():
        rows, *rest = BASE["unet"][module + ".weight"]
        down, up = naming(("unet", module))
        shapes |= {down: (rank, *rest), up: (rows, rank, *[1] * (len(rest) - 1))}
    return shapes


GOOD = st.builds(
    good, st.dictionaries(st.sampled_from(MODULES), st.integers(1, 3), min_size=1), st.sampled_from(sorted(LAYOUTS))
)


@given(GOOD, st.integers(3, 8))
def test_every_tensor_of_a_good_file_is_placed(shapes: dict[str, tuple[int, ...]], alpha: int) -> None:
    """By its settings no module is weaker than by itself, and none more than eight times as strong."""
    lora = parse(shapes, BASE, where="x", base="a toy", config={"lora_alpha": alpha})
    assert sorted(name for pair in lora.pairs.values() for name in pair.factors) == sorted(shapes)


@given(GOOD, JSON)
def test_any_strength(shapes: dict[str, tuple[int, ...]], alpha: Any) -> None:
    lora = outcome(lambda: parse(shapes, BASE, where="x", base="a toy", config={"lora_alpha": alpha}))
    if lora is not None:
        assert all(math.isfinite(pair.scale) for pair in lora.pairs.values())


@given(
    st.text(max_size=40)
    | JSON.map(json.dumps)
    | st.sampled_from(["\ud800", "[" * 10_000, '{"unet.lora_alpha": 1e999}'])
)
def test_any_metadata(text: str) -> None:
    shapes = {"unet.conv_in.lora_A.weight": (1, 4, 3, 3), "unet.conv_in.lora_B.weight": (32, 1, 1, 1)}
    outcome(lambda: parse(shapes, BASE, where="x", base="a toy", metadata={METADATA: text}))


@given(CONTENT)
def test_any_content(content: dict[Any, Any]) -> None:
    found = outcome(lambda: read_inversion(content, {"text_encoder": WIDTH}, name="toy", where="x", base="a toy"))
    if found is not None:
        outcome(lambda: extend_tokenizer(tiny_tokenizer(), found))
