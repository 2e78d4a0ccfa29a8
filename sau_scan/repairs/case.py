"""A trigger with its effect on the suspect model, against which every repair of it is measured."""

from __future__ import annotations

from dataclasses import dataclass

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.errors import TriggerHasNoEffect
from sau_scan.findings import Check, Slot, Trigger
from sau_scan.probes.runner import Counter
from sau_scan.repairs.effect import Probe, Reaction, make_probe, react
from sau_scan.repairs.pictures import Firing
from sau_scan.repairs.prompts import HELD_OUT, PromptSource

# A trigger given by the user must act more strongly than all but this share of harmless texts.
SIGNIFICANT = 0.025


@dataclass(frozen=True)
class Case:
    """A trigger with what the suspect model does on held-out prompts that contain it; made before any repair."""

    trigger: Trigger
    source: PromptSource
    probe: Probe
    reaction: Reaction
    firing: Firing

    @classmethod
    def of(cls, model: DiffusionModel, source: PromptSource, counter: Counter, seed: int) -> Case:
        """Raises TriggerHasNoEffect when no prompt has a place for the trigger."""
        try:
            probe = make_probe(model, source, HELD_OUT, counter)
            firing = Firing.of(model, source, counter, seed)
        except ValueError as error:
            raise TriggerHasNoEffect(
                f'The trigger "{source.trigger.escaped}" has no place in any prompt that this model understands.',
                hint="Check its spelling, --slot and --replaces.",
            ) from error
        return cls(source.trigger, source, probe, react(model, probe, counter), firing)

    @property
    def fires(self) -> float:
        """Share of held-out prompts in which it fires in the suspect model."""
        return self.firing.rate(self.firing.triggered)

    def checks(self, model: DiffusionModel, counter: Counter) -> tuple[Check, ...]:
        """Whether ``model`` takes the trigger for a harmless text: in pictures, and in the noise prediction.

        Of a phrase only in pictures: what an honest model predicts for it is not the sum of what its words do.
        """
        rate, name = self.firing.rate_of(model, counter), self.trigger.escaped
        fires = Check(
            name="prompts in which the trigger fires",
            before=self.fires,
            after=rate,
            limit=self.firing.limit,
            passed=rate <= self.firing.limit,
            note=f'"{name}", share of {len(self.firing.texts)} held-out prompts',
        )
        if self.trigger.slot is Slot.PHRASE:
            return (fires,)
        now, limit = react(model, self.probe, counter).noise, self.reaction.noise.line()
        noise = Check(
            name="trigger effect on the noise",
            before=self.reaction.noise.value,
            after=now.value,
            limit=limit,
            passed=now.value <= limit,
            note=f'"{name}", against harmless texts in the same place',
        )
        return (noise, fires)

    def require_effect(self) -> None:
        """Raises TriggerHasNoEffect unless the trigger acts more strongly than harmless texts in its place."""
        noise = self.reaction.noise
        # Of few harmless texts none can be beaten more clearly than all of them.
        significant = max(SIGNIFICANT, 1 / (1 + len(noise.null)))
        if min(noise.rank, self.reaction.unexplained.rank) <= significant or self.fires > 0.5:
            return
        raise TriggerHasNoEffect(
            f'The trigger "{self.trigger.escaped}" does no more in this model than harmless texts in its place '
            f"(effect {self.reaction.noise.value:.3g}; 95 % of these stay below {self.reaction.noise.line():.3g}).",
            hint="Check its spelling, --slot and --replaces, or let sau-scan detect look for triggers.",
        )
