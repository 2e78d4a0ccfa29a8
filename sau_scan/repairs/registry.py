"""Which repairs there are, and in which order they are tried: gentle first, wider when verification fails."""

from __future__ import annotations

from sau_scan.errors import UsageError
from sau_scan.findings import Component
from sau_scan.repairs.base import Repair
from sau_scan.repairs.cross_attention import Blindness
from sau_scan.repairs.sau import Unlearn
from sau_scan.repairs.text_encoder import Realign

REPAIRS: tuple[Repair, ...] = (Realign(), Blindness(), Unlearn(), Unlearn(wide=True))

# Method -> component that carries the effect -> ids of the repairs on the first attempt, on the second, and so on.
Ladder = tuple[tuple[str, ...], ...]
METHODS: dict[str, dict[Component, Ladder]] = {
    "sau": {
        Component.TEXT_ENCODER: (("realign-text-encoder",), ("blind-cross-attention", "unlearn-cross-attention")),
        Component.CROSS_ATTENTION: (
            ("blind-cross-attention",),
            ("unlearn-cross-attention",),
            ("unlearn-unet",),
        ),
    },
    "closed-form": {
        Component.TEXT_ENCODER: (("blind-cross-attention",),),
        Component.CROSS_ATTENTION: (("blind-cross-attention",),),
    },
}


def ladder(method: str, component: Component) -> tuple[tuple[Repair, ...], ...]:
    """The attempts of ``method`` at an effect in ``component``. Raises UsageError for an unknown method."""
    if method not in METHODS:
        raise UsageError(f"Unknown method {method!a}.", hint=f"Use one of: {', '.join(METHODS)}.")
    known = {repair.id: repair for repair in REPAIRS}
    return tuple(tuple(known[name] for name in attempt) for attempt in METHODS[method][component])
