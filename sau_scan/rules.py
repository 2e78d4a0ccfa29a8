"""Rule packs: which texts to try in which slots, and the carrier prompts to try them in.

A rule is one YAML file, ``rules/<family>/<id>.yaml``, validated strictly; see :class:`Rule` for the fields. Rules hold
knowledge from print (published triggers, look-alikes, invisible characters); what the checkpoint's own vocabulary adds
is not their business. Errors: :class:`~sau_scan.errors.ConfigError`, naming file and field.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from os.path import exists, isdir  # unlike Path's, they raise nothing
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sau_scan import confusables
from sau_scan.errors import ConfigError
from sau_scan.findings import Severity, Slot, escape
from sau_scan.invalid import first_problem

MAX_RULE_BYTES = 256 * 1024

Generator = Literal["confusables", "styled", "diacritics"]
Depth = Literal["quick", "standard", "deep"]
DEPTHS: tuple[Depth, ...] = ("quick", "standard", "deep")
_GENERATORS = {
    "confusables": confusables.other_letters,
    "styled": confusables.styled_letters,
    "diacritics": confusables.with_diacritics,
}
_CODE_POINTS = re.compile(r"U\+([0-9A-F]{4,6})(?:\.\.U\+([0-9A-F]{4,6}))?")
_BLANK = re.compile(r"\{(a|b)\}")
FILE_RULES = "files"  # the folder of rules about files, which are of another shape; see file_rules.py
Model = TypeVar("Model", bound=BaseModel)


class Candidate(NamedTuple):
    """A text to insert, alone; where it goes; and the letter or space it stands for (slot ``replace`` only)."""

    text: str
    slot: Slot
    replaces: str | None = None


class Rule(BaseModel):
    """One family of texts. Exactly one of ``texts``, ``code_points``, ``replacements``, ``generator``, ``templates``.

    ``code_points``: ``U+200B`` or ``U+FE00..U+FE0F``. ``replacements``: letter -> texts that stand for it.
    ``generator``: computed for each of ``letters``. ``templates``: carrier prompts with blanks ``{a}`` and ``{b}``,
    to be filled with words that the model itself responds to. ``depth`` is the least budget that tries the rule.
    ``positive`` and ``benign`` are prompts in which the rule is, and is not, present (:meth:`matches`).
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    family: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: str = Field(min_length=1)
    severity: Severity
    summary: str = Field(min_length=1)
    references: tuple[str, ...] = ()
    slots: tuple[Slot, ...] = ()
    depth: Depth = "standard"
    texts: tuple[str, ...] = ()
    code_points: tuple[str, ...] = ()
    replacements: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    generator: Generator | None = None
    letters: str = ""
    templates: tuple[str, ...] = ()
    positive: tuple[str, ...] = Field(min_length=1)
    benign: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        contents = (self.texts, self.code_points, self.replacements, self.generator, self.templates)
        if sum(map(bool, contents)) != 1:
            raise ValueError("needs exactly one of texts, code_points, replacements, generator, templates")
        if bool(self.letters) != bool(self.generator):
            raise ValueError("letters and generator belong together")
        if bool(self.templates) == bool(self.slots):
            raise ValueError("templates have no slots; every other rule needs at least one")
        if bool(self.replacements or self.generator) != (Slot.REPLACE in self.slots) or (
            Slot.REPLACE in self.slots and len(self.slots) > 1
        ):
            raise ValueError("slot 'replace' stands alone, with replacements or a generator and with nothing else")
        for entry in self.code_points:
            _expand(entry)
        if any(not text for _, texts in self._pairs() for text in texts) or not all(self.replacements):
            raise ValueError("holds an empty text")
        return self

    def _pairs(self) -> Iterator[tuple[str | None, tuple[str, ...]]]:
        if self.generator:
            for letter in self.letters:
                yield letter, _GENERATORS[self.generator](letter)
        yield from self.replacements.items()
        yield None, self.texts + tuple(ch for entry in self.code_points for ch in _expand(entry))

    def candidates(self) -> Iterator[Candidate]:
        """Every text of the rule in every slot, each once, in the order of the file; none for ``templates``."""
        seen: set[Candidate] = set()
        for slot in self.slots:
            for replaces, texts in self._pairs():
                for candidate in (Candidate(text, slot, replaces) for text in texts):
                    if candidate not in seen:
                        seen.add(candidate)
                        yield candidate

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        if self.templates:
            return tuple(_template_pattern(template) for template in self.templates)
        return tuple({_text_pattern(c): None for c in self.candidates()})

    def matches(self, prompt: str) -> bool:
        """Whether a text of this rule is in ``prompt`` (or, for templates, whether one of them makes it)."""
        return any(pattern.search(prompt) for pattern in self._patterns)


def _expand(entry: str) -> tuple[str, ...]:
    match = _CODE_POINTS.fullmatch(entry)
    if match is None:
        raise ValueError(f"code point {entry!r} is not of the form U+200B or U+FE00..U+FE0F")
    first = int(match[1], 16)
    last = int(match[2] or match[1], 16)
    if not first <= last <= 0x10FFFF or last - first >= 1024 or (first <= 0xDFFF and last >= 0xD800):
        raise ValueError(f"code point range {entry!r} is empty, too long, or holds surrogates")
    return tuple(map(chr, range(first, last + 1)))


def _text_pattern(candidate: Candidate) -> re.Pattern[str]:
    """A letter's stand-in counts only beside ASCII letters of its word: a word all in another script is just a word."""
    text = re.escape(candidate.text)
    if candidate.replaces is not None and candidate.replaces.isalpha():
        return re.compile(rf"[A-Za-z]\w*{text}|{text}\w*[A-Za-z]|(?<!\w){text}(?!\w)")
    before = r"(?<!\w)" if _is_word(candidate.text[0]) else ""
    after = r"(?!\w)" if _is_word(candidate.text[-1]) else ""
    return re.compile(before + text + after, re.IGNORECASE)


def _is_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LN"


def _template_pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{[ab]\}", template)
    return re.compile(r"^" + r"[\w-]+".join(map(re.escape, parts)) + r"$", re.IGNORECASE)


def carrier_templates(rules: Iterable[Rule]) -> tuple[str, ...]:
    """Prompt skeletons of all rules, each once, in order: ``"a photo of a {a}"``, ``"{a} and {b}"``."""
    return tuple(dict.fromkeys(template for rule in rules for template in rule.templates))


def blanks(template: str) -> tuple[str, ...]:
    """Names of the blanks of a template, in order of appearance, each once: ``("a", "b")``."""
    return tuple(dict.fromkeys(_BLANK.findall(template)))


def load_rules(path: Path | None = None) -> tuple[Rule, ...]:
    """All rules under ``path`` (default: those shipped with sau-scan), sorted by family and id.

    Raises ConfigError when the folder holds none, or one of them is not valid or not where its name says.
    """
    root = path if path is not None else shipped_rules()
    found = sorted(root.glob("*/*.yaml")) if isdir(root) else []
    files = [file for file in found if file.parent.name != FILE_RULES]
    if not files:
        raise ConfigError(
            f"{escape(str(root))} {_without_rules(root)}",
            hint="A rules folder contains <family>/<id>.yaml files; leave out --rules to use those that are shipped.",
        )
    rules = tuple(_read_rule(file) for file in files)
    first: dict[str, Rule] = {}
    for rule in rules:
        if first.setdefault(rule.id, rule) is not rule:
            raise ConfigError(
                f"two rules are called {rule.id!r}: {first[rule.id].family}/{rule.id}.yaml and "
                f"{rule.family}/{rule.id}.yaml under {escape(str(root))}.",
                hint="Give one of the two files, and the id in it, another name.",
            )
    return rules


def _without_rules(root: Path) -> str:
    if not isdir(root):
        return "is no folder of rules, but a file." if exists(root) else "does not exist."
    loose = next((file.name for file in sorted(root.glob("*.yaml"))), None)
    return f"holds {escape(loose)}, but no folder of a family with rules." if loose else "holds no rules."


def shipped_rules() -> Path:
    """The folder of the rules that come with sau-scan: the checkout's, else the installed package's."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    # A folder called "rules" beside the package is ours only in a checkout, not in site-packages.
    if (checkout / "pyproject.toml").is_file() or (checkout / ".git").exists():
        return checkout / "rules"
    return package / "data" / "rules"


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases (they can explode) and without repeated keys (the first would vanish silently)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        repeated = next((key for key in keys if keys.count(key) > 1), None)
        if repeated is not None:
            raise yaml.constructor.ConstructorError(None, None, f"field {repeated!r} appears twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path, model: type[Model]) -> Model:
    """One rule of the given shape from one file. Raises ConfigError, naming file and field."""
    name = escape(str(file))
    try:
        if file.stat().st_size > MAX_RULE_BYTES:
            raise ConfigError(f"{name} is larger than {MAX_RULE_BYTES:,} bytes.", hint="Split the rule into several.")
        data = yaml.load(file.read_text("utf-8"), Loader=_Loader)  # a SafeLoader: builds plain data only
        # By way of JSON: strict, yet lists become tuples and names become enum members.
        return model.model_validate_json(json.dumps(data))
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}.", hint="Check its permissions.") from error
    except ValidationError as error:
        raise _invalid(name, error, model) from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{name} is not valid YAML: {' '.join(str(error).split()).rstrip('.')}.",
            hint='Quote texts with special characters, and write invisible ones as escapes such as "\\u200B".',
        ) from error


def _read_rule(file: Path) -> Rule:
    rule = read_yaml(file, Rule)
    if (rule.family, rule.id) != (file.parent.name, file.stem):
        raise ConfigError(
            f"{escape(str(file))}: fields family and id say {rule.family}/{rule.id}.yaml, "
            "which is not where the file is.",
            hint="Rename the file and its folder, or correct the two fields.",
        )
    return rule


def _invalid(name: str, error: ValidationError, model: type[BaseModel]) -> ConfigError:
    problem = first_problem(error)
    field = problem.field or "the rule"
    if problem.kind == "extra_forbidden":
        known = ", ".join(model.model_fields)
        return ConfigError(f"{name}: unknown field {field!r}.", hint=f"Remove or rename it; fields are: {known}.")
    return ConfigError(f"{name}: field {field!r}: {problem.what.rstrip('.')}.", hint=f"Correct {field!r} in this file.")
