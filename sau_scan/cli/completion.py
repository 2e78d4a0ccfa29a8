"""Completion scripts for the shells, as shipped under ``completions/``; they ask sau-scan itself at each Tab."""

from __future__ import annotations

from typer.completion import get_completion_script  # type: ignore[attr-defined]  # public in effect: --show-completion

# Shell -> file name by which the shell's own conventions find it.
SHELLS = {"bash": "sau-scan.bash", "zsh": "_sau-scan", "fish": "sau-scan.fish"}


def completion(shell: str) -> str:
    script: str = get_completion_script(prog_name="sau-scan", complete_var="_SAU_SCAN_COMPLETE", shell=shell)
    return script.rstrip() + "\n"
