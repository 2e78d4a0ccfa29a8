"""What a scan or a repair reports: frozen values without tensors, the JSON contract of this tool.

Sentences read "this *finding*, of this *kind* and *severity*, lives in this *component*; its *trigger* is this
text in this *slot*; the *evidence* is these numbers against these null values; the *coverage* says what was looked at".
"""

from __future__ import annotations

import hashlib
import json
import re
from enum import StrEnum
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, computed_field, model_validator

SCHEMA_VERSION = "1.0"

_HALF = re.compile("[\ud800-\udfff]")


class Value(BaseModel):
    """Base of all reported values: immutable; derived fields are written, and made anew when read back."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")

    @model_validator(mode="before")
    @classmethod
    def _make_encodable(cls, data: Any) -> Any:
        return _encodable(data)


def _null_is_nan(value: Any) -> Any:
    return float("nan") if value is None else value


def _encodable(value: Any) -> Any:
    """Text with half characters, from file names that are not UTF-8, is escaped: no report could hold it."""
    if isinstance(value, str):
        return escape(value) if _HALF.search(value) else value
    if isinstance(value, tuple | list) and any(isinstance(item, str) for item in value):
        return tuple(_encodable(item) for item in value)
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value


# JSON has no infinity: it is written as null, and null must be readable again.
Number = Annotated[float, BeforeValidator(_null_is_nan), WithJsonSchema({"type": ["number", "null"]})]


class Severity(StrEnum):
    """How bad, weakest first; comparable through :attr:`rank`."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Confidence(StrEnum):
    """How sure: ``confirmed`` by generation, ``calibrated`` by a p-value only, ``certain`` for facts about files."""

    CALIBRATED = "calibrated"
    CONFIRMED = "confirmed"
    CERTAIN = "certain"


class Kind(StrEnum):
    TRIGGER = "trigger"
    EDIT = "edit"
    TOKEN_ROW = "token_row"
    FILE = "file"


class Component(StrEnum):
    TOKENIZER = "tokenizer"
    TEXT_ENCODER = "text_encoder"
    CROSS_ATTENTION = "cross_attention"
    UNET = "unet"
    ADAPTER = "adapter"
    VAE = "vae"
    FILE = "file"


class Slot(StrEnum):
    """Where a trigger's text goes: before, after or inside the prompt, as a phrase of it, or in place of a letter."""

    PREFIX = "prefix"
    SUFFIX = "suffix"
    INSIDE = "inside"
    PHRASE = "phrase"
    REPLACE = "replace"


class Verdict(StrEnum):
    """``clean`` means: nothing found by these detectors over this coverage."""

    CLEAN = "clean"
    SUSPICIOUS = "suspicious"
    BACKDOORED = "backdoored"
    INCONCLUSIVE = "inconclusive"


def escape(text: str) -> str:
    """``text`` with everything but printable ASCII, and the backslash, as escape sequences."""
    return text.encode("unicode_escape").decode("ascii")


def shown(name: str) -> str:
    """A file's name as a report shows it; one that could not be held as it is has been escaped already."""
    return name if name.isascii() and name.isprintable() else escape(name)


class Trigger(Value):
    """A text in a slot. ``text`` is what is inserted, alone; ``replaces`` the letter it stands for (slot ``replace``).

    ``token_ids`` are the ids that the insertion adds or changes. ``parts`` are of the same shape when several
    insertions are needed together.
    """

    text: str
    slot: Slot
    replaces: str | None = None
    token_ids: tuple[int, ...] = ()
    parts: tuple[Trigger, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def escaped(self) -> str:
        return escape(self.text)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def code_points(self) -> tuple[str, ...]:
        return tuple(f"U+{ord(ch):04X}" for ch in self.text)


class Evidence(Value):
    """One number against the null of the same model: ``value`` beside what neutral words give."""

    name: str
    value: Number
    null_median: float | None = None
    null_low: float | None = None
    null_high: float | None = None
    p_value: float | None = None
    note: str = ""


class HeatMap(Value):
    """Where an effect sits: rows of values in 0..1, top row first."""

    title: str
    rows: tuple[tuple[Number, ...], ...]


class Location(Value):
    """A place in a file of the checkpoint; or, of an input that is used with another one, of that ``base``."""

    path: str
    tensor: str | None = None
    base: str | None = None


class Finding(Value):
    """One thing found. ``id`` names the rule or detector family, e.g. ``trigger/unet`` or ``file/nan-weights``.

    ``behaviour`` says in one sentence what happens; ``next_step`` is a command that can be pasted.
    ``pictures`` are paths of images written beside the report, relative to it.
    """

    id: str
    kind: Kind
    severity: Severity
    confidence: Confidence
    component: Component
    title: str
    behaviour: str = ""
    trigger: Trigger | None = None
    location: Location | None = None
    evidence: tuple[Evidence, ...] = ()
    heat_map: HeatMap | None = None
    pictures: tuple[str, ...] = ()
    declared: bool = False
    next_step: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def fingerprint(self) -> str:
        """Stable over runs of the same model: kind, component, trigger and place, but no measured number."""
        trigger = self.trigger and [self.trigger.slot, self.trigger.text, self.trigger.replaces]
        where = self.location and [self.location.path, self.location.tensor]
        if where and self.location and self.location.base is not None:
            where.append(self.location.base)
        key = json.dumps([self.id, self.kind, self.component, trigger, where])
        return hashlib.sha256(key.encode()).hexdigest()[:32]


class Skipped(Value):
    """Something that could not be checked, and why; never counts as clean.

    ``planned``: the printed plan contained it, so leaving it out makes the scan incomplete.
    """

    what: str
    reason: str
    planned: bool = False


class FileRecord(Value):
    path: str
    size: int
    sha256: str


class ModelInfo(Value):
    """What was scanned: a folder, or a file (``form``) together with the checkpoint that it is used with (``base``).

    From a hub, ``source`` is its address and ``path`` the repository or the file of it; ``revision`` is what was asked
    for, and ``commit`` what that was then.
    """

    path: str
    family: str
    form: str = "diffusers folder"
    files: tuple[FileRecord, ...] = ()
    base: ModelInfo | None = None
    source: str = ""
    revision: str = ""
    commit: str = ""

    @property
    def file(self) -> FileRecord | None:
        """The file that ``path`` names, where it is none of a folder; beside it there can be settings."""
        name = PurePath(self.path).name
        return next((file for file in self.files if file.path == name), None)

    @property
    def folder(self) -> str:
        """The folder below which ``files`` lie."""
        return self.path if self.file is None else str(PurePath(self.path).parent)


class SlotCoverage(Value):
    """How many candidates of one slot were probed, of how many there are."""

    slot: Slot
    probed: int
    total: int


SHARE = "share of candidates"  # what is skipped where a plan covers less than was asked for


class DetectorRun(Value):
    """A detector and whether it ran; ``reason`` when it did not."""

    id: str
    summary: str
    ran: bool
    reason: str = ""


class Cost(Value):
    """Model evaluations: texts through the text encoder(s), latents through the UNet, seconds of wall clock."""

    text_passes: int = 0
    unet_passes: int = 0
    seconds: float = 0.0


class Coverage(Value):
    """What was looked at and what was not."""

    files_read: int = 0
    candidates_probed: int = 0
    candidates_total: int = 0
    slots: tuple[SlotCoverage, ...] = ()
    detectors: tuple[DetectorRun, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    limits: tuple[str, ...] = ()
    seed: int = 0
    budget: str = "standard"
    device: str = "cpu"
    dtype: str = "float32"
    planned: Cost = Cost()
    used: Cost = Cost()
    versions: dict[str, str] = Field(default_factory=dict)


class NearMiss(Value):
    """The strongest candidate that was not reported, and how far it was from the line."""

    trigger: Trigger
    detector: str
    value: Number
    line: Number


class ScanResult(Value):
    """The outcome of ``detect``; findings strongest first."""

    command: Literal["detect"] = "detect"
    schema_version: str = SCHEMA_VERSION
    tool_version: str
    verdict: Verdict
    model: ModelInfo
    findings: tuple[Finding, ...]
    near_miss: NearMiss | None = None
    coverage: Coverage

    @property
    def complete(self) -> bool:
        """Whether all that was planned was looked at; findings may outrank this in the verdict."""
        planned = any(skipped.planned for skipped in self.coverage.skipped)
        return self.verdict is not Verdict.INCONCLUSIVE and not planned


class RepairStep(Value):
    """One repair that was applied: the method, what it aimed at, what it changed."""

    method: str
    component: Component
    trigger: Trigger | None = None
    tensors: tuple[Location, ...] = ()
    relative_change: Number = 0.0
    note: str = ""


class RepairSummary(Value):
    located: str
    steps: tuple[RepairStep, ...] = ()
    tensors_changed: int = 0
    tensors_total: int = 0
    files_changed: tuple[str, ...] = ()
    files_identical: int = 0
    cost: Cost = Cost()


class Check(Value):
    """One condition for publishing: a value before and after, its limit, and whether it holds."""

    name: str
    before: float | None = None
    after: float | None = None
    limit: float | None = None
    passed: bool
    note: str = ""


class Verification(Value):
    """What re-examining the written checkpoint, read back from disk, gave."""

    checks: tuple[Check, ...] = ()
    passed: bool
    prompts: int = 0


class FixResult(Value):
    """The outcome of ``fix``. ``published`` is where the repaired checkpoint is, or None, and then ``reason`` says why.

    ``nothing_to_repair``: the scan before found no trigger. ``dry_run``: only the plan was asked for.
    """

    command: Literal["fix"] = "fix"
    schema_version: str = SCHEMA_VERSION
    tool_version: str
    before: ScanResult | None
    after: ScanResult | None = None
    repair: RepairSummary | None = None
    verification: Verification | None = None
    published: str | None = None
    reason: str = ""
    nothing_to_repair: bool = False
    dry_run: bool = False


Result = Annotated[ScanResult | FixResult, Field(discriminator="command")]
