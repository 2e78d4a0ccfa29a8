"""Which repairs there are, and in which order they are tried: gentle first, wider when verification fails."""

from __future__ import annotations

from dataclasses import dataclass

from sau_scan.errors import UsageError
from sau_scan.findings import Component
from sau_scan.repairs.adapter import Silence
from sau_scan.repairs.base import Repair
from sau_scan.repairs.cross_attention import FAR_DRIFT, Blindness
from sau_scan.repairs.restore import Restore
from sau_scan.repairs.sau import Unlearn
from sau_scan.repairs.text_encoder import MORE, Realign

REPAIRS: tuple[Repair, ...] = (
    Realign(),
    Realign(MORE, id="realign-text-encoder-further", summary=f"realign it further, on {MORE} times the prompts"),
    Restore(),
    Blindness(),
    Blindness(FAR_DRIFT),
    Unlearn(),
    Unlearn(wide=True),
)

# Method -> component that carries the effect -> ids of the repairs of the first attempt, of the second, and so on.
# "afresh": what was done so far aimed at the wrong place, or was not enough and only adds drift, and is dropped.
# "on top": only beside what was done so far; where that is nothing, it is left out.
AFRESH, ON_TOP = "afresh", "on top"
CLOSED = (("blind-cross-attention",), (AFRESH, "blind-cross-attention-firmly"))
REALIGNED = (("realign-text-encoder",), (ON_TOP, "realign-text-encoder-further"))
RESTORED = (("restore-cross-attention",),)
LEARNT = (("unlearn-cross-attention",), (AFRESH, "unlearn-unet"))
METHODS: dict[str, dict[Component, tuple[tuple[str, ...], ...]]] = {
    "sau": {
        Component.TEXT_ENCODER: (*REALIGNED, (AFRESH, *LEARNT[0]), LEARNT[1]),
        # What restoring leaves is little, which blindness removes gently; by itself, blindness costs content.
        Component.CROSS_ATTENTION: (*RESTORED, (ON_TOP, *CLOSED[0]), (AFRESH, *LEARNT[0]), LEARNT[1]),
        Component.UNET: LEARNT,
    },
    "closed-form": {
        Component.TEXT_ENCODER: CLOSED,
        Component.CROSS_ATTENTION: CLOSED,
        Component.UNET: CLOSED,
    },
    "restore": {
        Component.TEXT_ENCODER: RESTORED,
        Component.CROSS_ATTENTION: RESTORED,
        Component.UNET: RESTORED,
    },
}


@dataclass(frozen=True)
class Attempt:
    """Repairs to be tried together, beside those of earlier attempts, or ``afresh``, or only ``on_top`` of others."""

    repairs: tuple[Repair, ...]
    afresh: bool = False
    on_top: bool = False


def check_method(method: str) -> None:
    """Raises UsageError for an unknown method."""
    if method not in METHODS:
        raise UsageError(f"Unknown method {method!a}.", hint=f"Use one of: {', '.join(METHODS)}.")


def ladder(method: str, component: Component, *, lora: bool = False) -> tuple[Attempt, ...]:
    """The attempts of ``method`` at an effect in ``component``. Raises UsageError for an unknown method.

    ``lora``: where it came with a LoRA, which is silenced first: what its base would do without it is known.
    """
    check_method(method)
    known = {repair.id: repair for repair in REPAIRS}
    first = (Attempt((Silence(),)),) if lora and component is not Component.TEXT_ENCODER else ()
    return first + tuple(
        Attempt(
            tuple(known[name] for name in names if name not in (AFRESH, ON_TOP)),
            AFRESH in names or (bool(first) and not at),
            ON_TOP in names,
        )
        for at, names in enumerate(METHODS[method][component])
    )
