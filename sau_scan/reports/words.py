"""How things are worded: escaped text, triggers, numbers, durations. Pure; returns plain ``str``."""

from __future__ import annotations

import math
import unicodedata

from sau_scan.findings import Cost, ModelInfo, Slot, Trigger, escape, shown
from sau_scan.shell import ascii_command

# What this tool's own sentences may hold besides printable ASCII; everything else came from a model or a prompt.
_OWN_CHARACTERS = frozenset("·–—→×≤≥≈±°…%✓✗µ²")
_PLACES = {
    Slot.PREFIX: "before the prompt",
    Slot.SUFFIX: "after the prompt",
    Slot.INSIDE: "inside the prompt",
    Slot.PHRASE: "as a phrase of the prompt",
    Slot.REPLACE: "in place of a letter",
}
_CODE_POINTS_SHOWN = 6


def safe(text: str) -> str:
    """``text`` on one line, with anything that could steer or deceive a terminal as an escape sequence.

    Backslashes stay, so that what is escaped already is not escaped again.
    """
    return "".join(_safe_character(character) for character in text)


def _safe_character(character: str) -> str:
    if character in "\n\r\t":
        return " "
    if character in _OWN_CHARACTERS or " " <= character <= "~":
        return character
    return escape(character)


def quoted(trigger: Trigger) -> str:
    r"""The trigger's text between double quotes: ``"\u200b"``."""
    return '"' + escape(trigger.text).replace('"', '\\"') + '"'


def place(trigger: Trigger) -> str:
    """``before the prompt``, ``in place of "o"``."""
    if trigger.slot is Slot.REPLACE and trigger.replaces is not None:
        return f'in place of "{escape(trigger.replaces)}"'
    return _PLACES[trigger.slot]


def code_points(text: str) -> str:
    """Names of the characters that are not plain ASCII: ``U+200B ZERO WIDTH SPACE``; empty for plain text."""
    odd = list(dict.fromkeys(ch for ch in text if not " " <= ch <= "~"))
    shown = [f"U+{ord(ch):04X} {unicodedata.name(ch, 'unnamed')}" for ch in odd[:_CODE_POINTS_SHOWN]]
    more = len(odd) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def describe(trigger: Trigger) -> str:
    r"""All about a trigger on one line: ``"\u200b"   U+200B ZERO WIDTH SPACE · token 948 · before the prompt``."""
    tokens = ", ".join(map(str, trigger.token_ids[:8])) + (" ..." if len(trigger.token_ids) > 8 else "")
    facts = [
        code_points(trigger.text),
        f"token{'s' if len(trigger.token_ids) > 1 else ''} {tokens}" if tokens else "",
        place(trigger),
    ]
    return f"{quoted(trigger)}   " + " · ".join(fact for fact in facts if fact)


def number(value: float | None) -> str:
    """Three significant digits, thousands separated: ``41.2``, ``2,629``, ``0.0031``, ``2e-09``."""
    if value is None or not math.isfinite(value):
        return "–" if value is None or math.isnan(value) else ("inf" if value > 0 else "-inf")
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e7:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent):+03d}".replace("+", "")
    if size >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(size)))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: int, noun: str) -> str:
    """``1 file``, ``2,629 files``."""
    return f"{value:,} {noun}" + ("" if value == 1 else "s")


def percent(fraction: float) -> str:
    """``74 %``, ``0.6 %``."""
    return f"{number(round(fraction * 100, 1))} %"


def duration(seconds: float) -> str:
    """``0.4 s``, ``41 s``, ``2 min 50 s``, ``1 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def cost_text(used: Cost, planned: Cost | None = None) -> str:
    """``21,480 UNet passes of 21,480 planned, 6,082 text passes, 2 min 50 s``."""
    plan = f" of {planned.unet_passes:,} planned" if planned is not None and planned.unet_passes else ""
    texts = count(used.text_passes, "text pass").replace("passs", "passes")
    unet = count(used.unet_passes, "UNet pass").replace("passs", "passes")
    return f"{unet}{plan}, {texts}, {duration(used.seconds)}"


def size(byte_count: int) -> str:
    """``912 B``, ``12.4 MB``; powers of ten, as disks are sold."""
    value = float(byte_count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} B" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def command(text: str) -> str:
    """A command, quoted already, that can be pasted from where it is shown."""
    return safe(ascii_command(text))


def model_words(model: ModelInfo) -> tuple[str, ...]:
    """What was scanned, what it is used with, and of which family that is."""
    if model.base is None:
        form = () if model.form == "diffusers folder" else (model.form,)
        return (_where(model), *form, model.family)
    return (_where(model), f"{model.form} for {_where(model.base)}", model.family)


def _where(model: ModelInfo) -> str:
    """A branch moves; the commit says which files were scanned."""
    path = shown(model.path)
    return f"{path} at commit {model.commit[:12]}" if model.commit else path
