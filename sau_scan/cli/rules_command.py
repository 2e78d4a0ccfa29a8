"""``sau-scan rules``: what the shipped rules try and look for, and where that is known from."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sau_scan.cli import arguments as arg
from sau_scan.cli.guard import guarded
from sau_scan.cli.outputs import print_rich
from sau_scan.errors import UsageError
from sau_scan.file_rules import FileRule, load_file_rules
from sau_scan.findings import escape
from sau_scan.reports.layout import cells, field
from sau_scan.reports.words import code_points, count, safe
from sau_scan.rules import Rule, load_rules

rules_app = typer.Typer(
    help="List and show the rules: texts to try, things to find in files, and where they are known from.",
    no_args_is_help=True,
)
_TEXTS_SHOWN = 12


@rules_app.command("list")
def list_rules(rules: arg.Rules = None, debug: arg.Debug = False) -> None:
    """List all rules."""
    with guarded(debug=debug):
        loaded = load_rules(rules)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("rule", no_wrap=True)
        table.add_column("texts", justify="right", no_wrap=True)
        table.add_column("severity", no_wrap=True)
        table.add_column("what it tries or finds", overflow="fold")
        for rule in loaded:
            table.add_row(*cells(f"{rule.family}/{rule.id}", _size(rule), rule.severity, safe(rule.title)))
        about_files = load_file_rules()
        for file_rule in about_files:
            table.add_row(*cells(f"file/{file_rule.id}", "", file_rule.severity, safe(file_rule.title)))
        total = len(loaded) + len(about_files)
        print_rich(Group(table, Text(f"\n{count(total, 'rule')}; sau-scan rules show RULE tells more")))


@rules_app.command("show")
def show_rule(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Its id, with or without the family.")],
    rules: arg.Rules = None,
    debug: arg.Debug = False,
) -> None:
    """Show one rule: its texts with code points, or what it finds in files; examples, references."""
    with guarded(debug=debug):
        about_files = next((one for one in load_file_rules() if rule in (one.id, f"file/{one.id}")), None)
        parts = _file_rule_parts(about_files) if about_files else _rule_parts(_find(rule, load_rules(rules)))
        print_rich(Group(*parts))


def _find(name: str, loaded: tuple[Rule, ...]) -> Rule:
    for rule in loaded:
        if name in (rule.id, f"{rule.family}/{rule.id}"):
            return rule
    raise UsageError(f"There is no rule '{escape(name)}'.", hint="sau-scan rules list shows all of them.")


def _size(rule: Rule) -> str:
    return f"{len(rule.templates) or sum(1 for _ in rule.candidates()):,}"


def _rule_parts(rule: Rule) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text(f"{rule.family}/{rule.id}  {safe(rule.title)}", "bold"),
        field("summary", safe(rule.summary), indent=2),
        field("severity", rule.severity, indent=2),
        field("budget", f"{rule.depth} and above", indent=2),
    ]
    if rule.slots:
        parts.append(field("slots", ", ".join(rule.slots), indent=2))
    texts = [_text(text, None) for text in rule.templates] or [
        _text(text, replaces) for text, replaces in dict.fromkeys((c.text, c.replaces) for c in rule.candidates())
    ]
    parts += [field("" if i else "texts", text, indent=2) for i, text in enumerate(texts[:_TEXTS_SHOWN])]
    if len(texts) > _TEXTS_SHOWN:
        parts.append(field("", f"and {len(texts) - _TEXTS_SHOWN:,} more", indent=2))
    for label, prompts in (("positive", rule.positive), ("benign", rule.benign)):
        parts += [field("" if i else label, f'"{escape(prompt)}"', indent=2) for i, prompt in enumerate(prompts)]
    parts += [field("" if i else "from", safe(source), indent=2) for i, source in enumerate(rule.references)]
    return parts


def _file_rule_parts(rule: FileRule) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text(f"file/{rule.id}  {safe(rule.title)}", "bold"),
        field("summary", safe(rule.summary), indent=2),
        field("severity", rule.severity, indent=2),
        field("blocks", "nothing is loaded" if rule.blocks else "no", indent=2),
        field("why", safe(rule.why), indent=2),
        field("do", safe(rule.action), indent=2),
    ]
    for label, examples in (("positive", rule.positive), ("benign", rule.benign)):
        parts += [field("" if i else label, safe(example.what), indent=2) for i, example in enumerate(examples)]
    parts += [field("" if i else "from", safe(source), indent=2) for i, source in enumerate(rule.references)]
    return parts


def _text(text: str, replaces: str | None) -> str:
    names = code_points(text)
    instead = f' in place of "{escape(replaces)}"' if replaces is not None else ""
    return f'"{escape(text)}"{instead}' + (f"   {names}" if names else "")
