"""How strongly a LoRA acts where no tensor says so: the settings that diffusers and PEFT write beside the tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sau_scan.checkpoint.adapters.layouts import COMPONENTS, Place
from sau_scan.checkpoint.source import parse_json
from sau_scan.errors import DamagedFile, NotACheckpoint

METADATA = "lora_adapter_metadata"  # the key under which diffusers writes them
HIGHEST_ALPHA = 1e9
KEPT = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "bias")
# Beginnings that PEFT takes out of the base's own weights, whenever it adds the adapter to it.
CHANGING = ("pissa", "corda", "olora", "loftq", "mica", "lora_ga")
AGAIN = "Download the file again, or check it against the sha256 that its source publishes."
MERGE = "Merge it into its base with the tool that made it, and scan the merged checkpoint."


@dataclass(frozen=True)
class Settings:
    """``by_component``: fields of PEFT's ``LoraConfig``; no entry where the file comes without settings."""

    by_component: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    where: str = ""

    def scale(self, place: Place, rank: int) -> float:
        """What the product of an update of ``rank`` is multiplied by: alpha over rank, 1 without settings."""
        component, parameter = place
        values = self.by_component.get(component, {})
        alpha = values.get("lora_alpha", rank)
        patterns = values.get("alpha_pattern") or {}
        if not isinstance(patterns, Mapping):
            raise self._damaged()
        module = parameter.removesuffix(".weight")
        for pattern, value in patterns.items():
            if _means(pattern, module):
                alpha = value
                break
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) < HIGHEST_ALPHA:
            raise self._damaged()
        return float(alpha) / (math.sqrt(rank) if values.get("use_rslora") else rank)

    def _damaged(self) -> DamagedFile:
        return DamagedFile(f"{self.where} comes with settings that give no usable lora_alpha.", hint=AGAIN)


def readings(metadata: Mapping[str, str], config: Mapping[str, Any] | None, where: str) -> tuple[Settings, ...]:
    """What programs make of the settings: those who read the file alone, and those who read ``config``, too."""
    alone = read_settings(metadata, None, where)
    return (alone,) if config is None else (alone, read_settings({}, config, where))


def read_settings(metadata: Mapping[str, str], config: Mapping[str, Any] | None, where: str) -> Settings:
    """Settings from safetensors ``metadata`` or PEFT's ``adapter_config.json`` (``config``), which holds for all.

    Raises DamagedFile, or NotACheckpoint where they ask for more than a plain LoRA.
    """
    if config is not None:
        found: dict[str, Mapping[str, Any]] = dict.fromkeys(COMPONENTS, config)
    else:
        text = metadata.get(METADATA, "{}").encode(errors="replace")
        table = parse_json(text, f"{where}: its {METADATA}")
        found = {component: _below(table, component) for component in COMPONENTS}
    for values in found.values():
        kind = values.get("peft_type", "LORA")
        if str(kind).upper() != "LORA":
            raise NotACheckpoint(f"{where} comes with settings that call it {ascii(kind)[:40]}.", hint=MERGE)
        if values.get("use_dora"):
            raise NotACheckpoint(f"{where} is a DoRA, which cannot be merged here.", hint=MERGE)
        started = values.get("init_lora_weights")
        if isinstance(started, str) and started.lower().startswith(CHANGING):
            shown = ascii(started)[:40]
            raise NotACheckpoint(
                f"{where} is a LoRA of the kind {shown}, which changes its base first, and cannot be merged here.",
                hint=MERGE,
            )
    return Settings({component: values for component, values in found.items() if values}, where)


def as_metadata(config: Mapping[str, Any], components: Iterable[str]) -> dict[str, str]:
    """The metadata by which a file alone is as strong as with ``config`` beside it."""
    kept = {key: value for key, value in config.items() if key in KEPT}
    return {
        METADATA: json.dumps({f"{component}.{key}": value for component in components for key, value in kept.items()})
    }


def _below(table: Mapping[str, Any], component: str) -> dict[str, Any]:
    prefix = component + "."
    return {key.removeprefix(prefix): value for key, value in table.items() if key.startswith(prefix)}


def _means(pattern: str, module: str) -> bool:
    """PEFT takes patterns for regular expressions; here they are names, since a stranger's expression may never end."""
    name = pattern.removeprefix("^").removeprefix("text_model.")
    return module == name or (not pattern.startswith("^") and module.endswith("." + name))
