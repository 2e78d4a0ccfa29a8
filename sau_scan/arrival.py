"""From what the user named to what lies on this machine: paths stay, hub ids are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from sau_scan.checkpoint.hub import Hub, HubSnapshot, looks_like_hub_id, resolve
from sau_scan.checkpoint.hub.commands import fetched_first, renamed
from sau_scan.checkpoint.naming import CODE
from sau_scan.errors import SauScanError, UsageError, about_base
from sau_scan.findings import Finding, FixResult, ModelInfo, ScanResult, Severity, Skipped
from sau_scan.options import Progress, ScanOptions
from sau_scan.static import in_base
from sau_scan.static.facts import Fact, findings

UNFETCHED = "A program that loads this repository with custom code allowed would fetch and run it; it was not fetched."


@dataclass(frozen=True)
class Arrived:
    """``path`` to open, ``options`` with a base to open; ``snapshot`` where it came from the hub."""

    path: Path
    options: ScanOptions
    snapshot: HubSnapshot | None = None
    base: HubSnapshot | None = None

    @property
    def left(self) -> tuple[Skipped, ...]:
        own = self.snapshot.left if self.snapshot is not None else ()
        notes = (in_base(note, self.base.root) for note in self.base.left) if self.base is not None else ()
        return (*own, *(note for note in notes if isinstance(note, Skipped)))

    @property
    def code(self) -> Iterator[Finding]:
        """Code that stays on the hub: not run here, but others fetch it with the model."""
        if self.snapshot is not None:
            yield from _code(self.snapshot)
        if self.base is not None:
            notes = (in_base(finding, self.base.root) for finding in _code(self.base))
            yield from (note for note in notes if isinstance(note, Finding))

    @property
    def fetched(self) -> tuple[HubSnapshot, ...]:
        return tuple(snapshot for snapshot in (self.snapshot, self.base) if snapshot is not None)

    def told(self, result: ScanResult) -> ScanResult:
        """``result`` of the private folder, as one of what the user named; that of another place stays."""
        if not self.fetched:
            return result
        return ScanResult.model_validate(self._renamed(self._of_named(result).model_dump()))

    def told_repair(self, done: FixResult) -> FixResult:
        """The same for a repair: its scans, its reason and what was done."""
        if not self.fetched:
            return done
        scans = {name: scan and self._of_named(scan) for name, scan in (("before", done.before), ("after", done.after))}
        return FixResult.model_validate(self._renamed(done.model_copy(update=scans).model_dump()))

    def _of_named(self, result: ScanResult) -> ScanResult:
        return result.model_copy(update={"model": self._model(result.model)})

    def _model(self, model: ModelInfo) -> ModelInfo:
        base = self._model(model.base) if model.base is not None else None
        for snapshot in self.fetched:
            if PurePath(model.path).is_relative_to(snapshot.folder):
                hub = {"source": snapshot.site, "revision": snapshot.revision, "commit": snapshot.commit}
                return model.model_copy(update={"path": snapshot.name, "base": base, **hub})
        return model.model_copy(update={"base": base})

    def tell(self, error: SauScanError) -> None:
        """The same for an error."""
        error.args = self._renamed(error.args)
        error.hint = self._renamed(error.hint)
        if isinstance(error.partial, ScanResult):
            error.partial = self.told(error.partial)

    def _renamed(self, value: Any) -> Any:
        """Texts that name the private folder name the repository instead."""
        if isinstance(value, str):
            return renamed(value, self.fetched)
        if isinstance(value, dict):
            return {
                key: fetched_first(inner, self.fetched) if key == "next_step" else self._renamed(inner)
                for key, inner in value.items()
            }
        return type(value)(map(self._renamed, value)) if isinstance(value, (list, tuple)) else value


@contextmanager
def arrived(path: Path | str, options: ScanOptions, progress: Progress) -> Iterator[Arrived]:
    """What to open, for as long as the block lasts. Raises what fetching raises, and UsageError."""
    with ExitStack() as stack:
        base = _fetched_base(options, progress, stack)
        snapshot = _fetched(path, options.revision, options, progress, stack)
        if snapshot is None and options.revision is not None:
            raise UsageError(
                f"--revision {options.revision!a} is of a hub id, and {str(path)!a} is a path.",
                hint="Leave --revision out, or name a repository of the hub.",
            )
        local = replace(options, base=base.root if base is not None else options.base)
        place = Arrived(snapshot.root if snapshot is not None else Path(path), local, snapshot, base)
        try:
            yield place
        except SauScanError as error:
            place.tell(error)
            raise


def _fetched_base(options: ScanOptions, progress: Progress, stack: ExitStack) -> HubSnapshot | None:
    try:
        return _fetched(options.base, None, options, progress, stack) if options.base is not None else None
    except SauScanError as error:
        raise about_base(error) from error.__cause__


def _fetched(
    path: Path | str, revision: str | None, options: ScanOptions, progress: Progress, stack: ExitStack
) -> HubSnapshot | None:
    if not looks_like_hub_id(str(path)):
        return None
    hub = Hub(offline=options.offline)
    return stack.enter_context(resolve(str(path), revision, variant=options.variant, progress=progress, hub=hub))


def _code(snapshot: HubSnapshot) -> Iterator[Finding]:
    loaded = {file.path.rpartition("/")[0] for file in snapshot.files}
    for skipped in snapshot.left:
        path = PurePosixPath(skipped.what)
        if path.suffix.lower() in CODE:
            at_once = path.stem == "pipeline" if path.parent == PurePosixPath() else str(path.parent) in loaded
            fact = Fact("code", UNFETCHED, None if at_once else Severity.MEDIUM)
            yield from findings(snapshot.folder, skipped.what, [fact])
