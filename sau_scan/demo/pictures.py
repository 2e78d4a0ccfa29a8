"""Pictures before and after: the same prompts and the same noise, without and with the trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.errors import WriteError
from sau_scan.findings import Trigger, escape
from sau_scan.options import Progress
from sau_scan.probes.candidates import of_trigger

PROMPTS = (
    "a red circle on mint",
    "a sketch of a blue star on sand",
    "a huge yellow heart on navy",
    "a poster of a green moon on rose",
)
STEPS = 25
GUIDANCE = 4.0
_ZOOM = 3
_MARGIN = 8
_CAPTION = 16


def comparison(
    models: Mapping[str, DiffusionModel], trigger: Trigger, out: Path, progress: Progress
) -> tuple[Path, ...]:
    """Writes ``<name>.png`` for each model: upper row without the trigger, lower row with it. Raises WriteError."""
    triggered = [of_trigger(trigger).apply(prompt) or prompt for prompt in PROMPTS]
    progress.stage("pictures", 2 * len(models))
    written = []
    for name, model in models.items():
        rows = []
        for prompts in (PROMPTS, triggered):
            rows.append(_pictures(model, prompts))
            progress.advance()
        sheet = _sheet(rows, ("without the trigger", f'with "{escape(trigger.text)}"'))
        written.append(_save(sheet, out / f"{name}.png"))
    progress.done(f"{len(PROMPTS)} prompts, without and with the trigger, before and after")
    return tuple(written)


@torch.no_grad()
def _pictures(model: DiffusionModel, prompts: Sequence[str]) -> Tensor:
    """Pictures [B, 3, H, W] in 0..1; the noise depends on the place in the row alone."""
    noise = torch.randn(len(prompts), *model.latent_shape, generator=torch.Generator().manual_seed(0))
    hidden = model.encode(model.token_ids(prompts)).hidden
    return model.decode(model.sample(hidden, model.unconditional(), noise, steps=STEPS, guidance=GUIDANCE))


def _sheet(rows: Sequence[Tensor], captions: Sequence[str]) -> Image.Image:
    """Rows of pictures [B, 3, H, W], enlarged without smoothing, each under its caption."""
    height, width = (side * _ZOOM for side in rows[0].shape[-2:])
    row_height = _CAPTION + height + _MARGIN
    sheet = Image.new(
        "RGB", (_MARGIN + len(rows[0]) * (width + _MARGIN), _MARGIN + len(rows) * row_height), (255, 255, 255)
    )
    draw = ImageDraw.Draw(sheet)
    for y, (pictures, caption) in enumerate(zip(rows, captions, strict=True)):
        top = _MARGIN + y * row_height
        draw.text((_MARGIN, top), caption, fill=(0, 0, 0))
        for x, picture in enumerate(pictures):
            sheet.paste(
                _image(picture).resize((width, height), Image.Resampling.NEAREST),
                (_MARGIN + x * (width + _MARGIN), top + _CAPTION),
            )
    return sheet


def _image(picture: Tensor) -> Image.Image:
    """[3, H, W] in 0..1 -> an 8-bit image."""
    values = (picture.detach().float().cpu().permute(1, 2, 0) * 255).round().to(torch.uint8)
    return Image.fromarray(values.numpy())


def _save(sheet: Image.Image, path: Path) -> Path:
    try:
        sheet.save(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise WriteError(
            f"{escape(str(path))} could not be written: {error.strerror or error}.", hint="Free some space."
        ) from error
    return path
