"""A repository as it was named, and what goes wrong with it: what the library raises, as errors with a hint."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
from huggingface_hub.file_download import repo_folder_name

from sau_scan.errors import (
    CheckpointError,
    DamagedFile,
    HubError,
    HubUnreachable,
    NoAccess,
    NotOnHub,
    SauScanError,
    WriteError,
)
from sau_scan.findings import escape


@dataclass(frozen=True)
class Repository:
    """A repository as it was named. ``endpoint`` and ``cache`` are the library's own unless given."""

    id: str
    revision: str
    endpoint: str | None = None
    cache: Path | None = None

    @property
    def storage(self) -> Path:
        """Where the cache keeps it."""
        return Path(self.cache or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.id, repo_type="model")

    @property
    def site(self) -> str:
        return self.endpoint or constants.ENDPOINT

    def show(self, path: str = "") -> str:
        return escape(f"{self.id}/{path}" if path else self.id)


class TooMuch(Exception):
    """More bytes than the file has."""


def changed(repository: Repository, path: str) -> DamagedFile:
    """The error for a file that is not the one of the commit's list."""
    return DamagedFile(
        f"{repository.show(path)} as fetched is not the file that its commit lists: size or hash differ.",
        hint=f"Start again; if that does not help, do not trust {escape(repository.site)} or what lies between.",
    )


@contextmanager
def translated(there: Repository, path: str = "") -> Iterator[None]:
    """Turns what the library raises into our errors; none of its words, which hold addresses, are kept."""
    try:
        yield
    except SauScanError:
        raise
    except TooMuch as error:
        raise changed(there, path) from error
    except (hub_errors.HfHubHTTPError, hub_errors.EntryNotFoundError, httpx2.HTTPError, OSError, ValueError) as error:
        raise _as_ours(there, path, error) from error
    except (AttributeError, KeyError, TypeError, AssertionError) as error:  # an answer in another shape
        raise no_hub(there) from error


def _as_ours(there: Repository, path: str, error: Exception) -> CheckpointError | WriteError:
    cause = error.__cause__ if isinstance(error, hub_errors.LocalEntryNotFoundError) else error
    if isinstance(cause, hub_errors.HfHubHTTPError):
        return _refused(there, path, cause)
    if isinstance(cause, (httpx2.HTTPError, ConnectionError, TimeoutError)):
        return HubUnreachable(
            f"{there.show(path)} is no path on this machine, and {escape(there.site)} cannot be reached to fetch it.",
            hint="Check the path, or the network and HF_ENDPOINT; HF_HUB_OFFLINE=1 scans what was fetched before.",
        )
    if isinstance(cause, OSError) and cause.errno is not None:
        return unwritable(there, cause)
    if isinstance(cause, OSError) and "Consistency check" in str(cause):
        return changed(there, path)
    return no_hub(there)


def _refused(there: Repository, path: str, error: hub_errors.HfHubHTTPError) -> HubError:
    """What the hub's answers mean; without a token, it says of private repositories that they do not exist."""
    code = error.response.status_code
    if isinstance(error, hub_errors.GatedRepoError):
        return NoAccess(
            f"{there.show()} is gated: it is given to those who accept its conditions.",
            hint=f"Accept them at {escape(there.site)}/{there.show()}, and set HF_TOKEN.",
        )
    if isinstance(error, hub_errors.RepositoryNotFoundError):
        return NotOnHub(
            f"{there.show()} is neither a path on this machine nor a repository that {escape(there.site)} shows.",
            hint="Check the spelling. If it is private, set HF_TOKEN to a token that may read it.",
        )
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return NotOnHub(
            f"{there.show()} has no revision {escape(there.revision)}.",
            hint="Name a branch, a tag or a commit with --revision, or leave it out.",
        )
    if isinstance(error, hub_errors.EntryNotFoundError):
        return NotOnHub(f"{there.show(path)} is gone from the hub.", hint="Start again; the repository has changed.")
    if code in (401, 403):
        return NoAccess(
            f"{there.show()} is not shown to this token (status {code}).",
            hint="Set HF_TOKEN to a valid token that may read it, or unset it for what is public.",
        )
    return HubError(
        f"{escape(there.site)} answered with status {code} when asked for {there.show(path)}.",
        hint="Try again later; HF_HUB_OFFLINE=1 scans what was fetched before.",
    )


def unwritable(there: Repository, error: OSError) -> WriteError:
    """The error for a cache, or a folder beside it, that cannot be written to."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WriteError(
            f"The disk is full; {there.show()} was not fetched.",
            hint="Free some space, or set HF_HOME to a folder on another disk.",
        )
    where = escape(str(error.filename or there.storage))
    return WriteError(
        f"{where} cannot be written: {error.strerror}.", hint="Check permissions, or set HF_HOME to another folder."
    )


def no_hub(there: Repository) -> HubError:
    """The error for an answer that makes no sense."""
    return HubError(
        f"{escape(there.site)} does not answer as the hub does when asked for {there.show()}.",
        hint="Check HF_ENDPOINT and the proxy.",
    )
