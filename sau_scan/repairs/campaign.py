"""All repairs of one run: a growing patch, and what it was made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from sau_scan.checkpoint.model import DiffusionModel
from sau_scan.checkpoint.patch import WeightPatch
from sau_scan.checkpoint.rewriting import copied
from sau_scan.checkpoint.source import INDEX, Form
from sau_scan.findings import Component, Location, RepairStep, RepairSummary, Trigger
from sau_scan.options import Progress
from sau_scan.probes.carriers import Words
from sau_scan.probes.runner import Counter
from sau_scan.repairs.base import Bench, Effort, relative_change, with_patch
from sau_scan.repairs.case import Case
from sau_scan.repairs.locate import locate
from sau_scan.repairs.prompts import PromptSource
from sau_scan.repairs.registry import Attempt, ladder
from sau_scan.repairs.token_rows import METHOD, plan_rows
from sau_scan.rules import Rule


@dataclass
class Campaign:
    """Repairs triggers of ``model`` one after the other, each on top of the patch so far.

    ``found_in``: the patch with which the triggers to come were found.
    """

    model: DiffusionModel
    method: str
    words: Words
    rules: tuple[Rule, ...]
    seed: int
    progress: Progress
    effort: Effort = field(default_factory=Effort)
    counter: Counter = field(default_factory=Counter)
    patch: WeightPatch = field(default_factory=WeightPatch)
    found_in: WeightPatch = field(init=False)
    cases: list[Case] = field(default_factory=list)
    located: list[str] = field(default_factory=list)
    steps: list[RepairStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found_in = self.patch

    def repair(
        self, trigger: Trigger, *, hint: Component | None = None, given: bool = False, once: bool = False
    ) -> None:
        """Adds to the patch what removes ``trigger``: attempt by attempt, until it is gone from the model in memory.

        ``hint``: the component that a finding names, which decides where behaviour does not tell text encoder and
        denoiser apart. ``given``: by the user, so that it must be shown to act; ``once``: stop after the first attempt.
        What earlier repairs removed as well is left at that. Raises TriggerHasNoEffect.
        """
        current = with_patch(self.model, self.patch)
        self.progress.stage("locate", 1)
        changed = self.patch is not self.found_in
        if changed and self._gone(trigger, current, given):
            self.progress.done(f'"{trigger.escaped}" went with the repairs so far')
            return
        case = self._case(trigger, current)
        if given and not changed:
            case.require_effect()
        found = locate(current, case.probe, case.reaction, self.counter, hint)
        self.progress.done(found.sentence)
        self.cases.append(case)
        self.located.append(found.sentence)
        lora = self.model.checkpoint.form is Form.LORA
        attempts = ladder(self.method, found.component, lora=lora)
        self.progress.plan(self._plan(trigger, attempts))
        bench = Bench(current, current, case.source, self.effort, self.seed, self.progress, self.counter)
        done = (self.patch, len(self.steps))
        for attempt in attempts:
            if attempt.afresh:
                self.patch, bench.model = done[0], current
                del self.steps[done[1] :]
            if attempt.on_top and not any(step.component is found.component for step in self.steps):
                continue
            if not self._try(attempt, trigger, bench):
                continue
            if once or all(check.passed for check in case.checks(bench.model, self.counter)):
                return

    def plain_rows(self, trigger: Trigger) -> None:
        """Adds what makes the rows of an embedding say no more than its word does."""
        planned = plan_rows(self.model)
        if not planned.tensors:
            return
        self.located.append(f'the rows for "{trigger.escaped}" in the embedding')
        self.steps.append(self._step(METHOD, Component.ADAPTER, trigger, self.model, planned))
        self.patch = self.patch.merge(planned)

    def _step(
        self, method: str, component: Component, trigger: Trigger, model: DiffusionModel, planned: WeightPatch
    ) -> RepairStep:
        return RepairStep(
            method=method,
            component=component,
            trigger=trigger,
            tensors=tuple(Location(path=ref.file, tensor=ref.name) for ref in sorted(planned.tensors)),
            relative_change=relative_change(model, planned),
        )

    def _case(self, trigger: Trigger, model: DiffusionModel) -> Case:
        source = PromptSource(model, trigger, self.words, self.rules, self.seed)
        return Case.of(model, source, self.counter, self.seed)

    def _gone(self, trigger: Trigger, current: DiffusionModel, given: bool) -> bool:
        """Whether ``trigger`` acts in ``current`` no more as it did where it was found: several may come of one edit.

        It is verified like the others then. Raises TriggerHasNoEffect.
        """
        case = self._case(trigger, with_patch(self.model, self.found_in))
        if given:
            case.require_effect()
        gone = all(check.passed for check in case.checks(current, self.counter))
        if gone:
            self.cases.append(case)
        return gone

    def _try(self, attempt: Attempt, trigger: Trigger, bench: Bench) -> bool:
        """Whether there was anything to change."""
        before = len(self.steps)
        for repair in attempt.repairs:
            planned = repair.plan(bench)
            if not planned.tensors:
                self.progress.done("nothing to repair in this way")
                continue
            step = self._step(repair.id, repair.component, trigger, bench.model, planned)
            self.steps.append(step)
            self.patch = self.patch.merge(planned)
            bench.model = with_patch(bench.model, planned)
            self.progress.done(f"{len(step.tensors):,} tensors moved by {step.relative_change:.1%}")
        return len(self.steps) > before

    def _plan(self, trigger: Trigger, attempts: tuple[Attempt, ...]) -> str:
        first, *later = (" and ".join(repair.summary for repair in attempt.repairs) for attempt in attempts)
        passes = [sum(repair.passes(self.effort) for repair in attempt.repairs) for attempt in attempts]
        text = f'"{trigger.escaped}": {first}; {passes[0]:,} UNet passes, and what measuring takes'
        if later:
            text += f"; if that is not enough: {', then '.join(later)}; up to {sum(passes):,} passes beside"
        return text

    def summary(self) -> RepairSummary:
        """What was done so far; ``cost`` without seconds."""
        index = {INDEX} if self.model.checkpoint.left_out else set()
        changed = tuple(sorted({ref.file for ref in self.patch.tensors} | index))
        return RepairSummary(
            located="; ".join(dict.fromkeys(self.located)),
            steps=tuple(self.steps),
            tensors_changed=len(self.patch.tensors),
            tensors_total=len(self.model.disk),
            files_changed=changed,
            files_identical=len(copied(self.model.checkpoint)) - len(changed),
        )
