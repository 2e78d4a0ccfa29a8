"""Errors, each with a hint that says what to do next.

SauScanError
├── UsageError              exit 2: contradictory options, unusable --out, unknown format
│   └── ConfigError         exit 2: a rule pack or a report file that cannot be read
├── CheckpointError         exit 3: the checkpoint cannot be opened
│   ├── NotACheckpoint      missing, empty, or not a diffusers folder
│   ├── UnsafeFile          a file that will not be opened (pickle, link out of the folder, foreign class)
│   ├── DamagedFile         truncated, wrong shapes, wrong tokenizer
│   └── HubError            the hub does not give what was named
│       ├── NotOnHub        no such repository, revision or file
│       ├── NoAccess        gated or private, or a token that is not accepted
│       └── HubUnreachable  no network; or offline, and not in the cache
├── TooLittleTime           exit 3: no plan fits into --max-time on this machine
├── WriteError              exit 3: disk full, unwritable output
│   └── BeyondRepair        exit 1: an adapter that cannot hold its repair
└── TriggerHasNoEffect      exit 2: the trigger given to ``fix`` does nothing measurable

Anything else that escapes is a bug (exit 4).
"""

from __future__ import annotations


class SauScanError(Exception):
    """Base of all expected failures. ``hint`` says what the user can do about it; ``partial``, if there is one, is the
    result of the scan that it ended: what the files gave by then."""

    exit_code = 4
    partial: object = None

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(SauScanError):
    exit_code = 2


class ConfigError(UsageError):
    """A rule pack, a report or another configuration file cannot be used."""


class CheckpointError(SauScanError):
    exit_code = 3


class NotACheckpoint(CheckpointError):
    """There is no diffusers checkpoint at this place."""


class UnsafeFile(CheckpointError):
    """A file or class that this tool refuses to open."""


class DamagedFile(CheckpointError):
    """A file that is cut short, or does not fit the rest of the checkpoint."""


class HubError(CheckpointError):
    """The hub's answer cannot be used."""


class NotOnHub(HubError):
    """The hub has no such repository, revision or file."""


class NoAccess(HubError):
    """The hub does not show this to whoever asks: gated, private, or a token that is not accepted."""


class HubUnreachable(HubError):
    """There is no network, or none is allowed, and the cache does not have it."""


class TooLittleTime(SauScanError):
    """Even the smallest plan of the budget takes longer than was allowed."""

    exit_code = 3


class WriteError(SauScanError):
    exit_code = 3


class BeyondRepair(WriteError):
    """An adapter whose file cannot hold the repair that was found."""

    exit_code = 1


class TriggerHasNoEffect(SauScanError):
    exit_code = 2


def about_base(error: SauScanError) -> SauScanError:
    """``error``, saying that it is of the base and not of the input."""
    error.args = (f"--base: {error}",)
    return error
