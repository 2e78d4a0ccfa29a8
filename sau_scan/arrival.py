"""From what the user named to what lies on this machine: paths stay, hub ids are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sau_scan.checkpoint.hub import Hub, HubSnapshot, looks_like_hub_id, resolve
from sau_scan.errors import UsageError
from sau_scan.findings import Finding, ModelInfo, ScanResult, Skipped
from sau_scan.options import Progress, ScanOptions


@dataclass(frozen=True)
class Arrived:
    """``path`` to open, ``options`` with a base to open; ``snapshot`` where it came from the hub."""

    path: Path
    options: ScanOptions
    snapshot: HubSnapshot | None = None
    base: HubSnapshot | None = None

    @property
    def left(self) -> tuple[Skipped, ...]:
        return self.snapshot.left if self.snapshot is not None else ()

    def told(self, result: ScanResult) -> ScanResult:
        """``result`` of the private folder, as one of what the user named."""
        model, findings = result.model, result.findings
        for snapshot in (self.snapshot, self.base):
            if snapshot is not None:
                findings = tuple(_finding(finding, snapshot) for finding in findings)
        if self.snapshot is not None:
            model = _model(model, self.snapshot)
        if self.base is not None and model.base is not None:
            model = model.model_copy(update={"base": _model(model.base, self.base)})
        return result.model_copy(update={"model": model, "findings": findings})


@contextmanager
def arrived(path: Path | str, options: ScanOptions, progress: Progress) -> Iterator[Arrived]:
    """What to open, for as long as the block lasts. Raises what fetching raises, and UsageError."""
    with ExitStack() as stack:
        base = _fetched(options.base, None, options, progress, stack) if options.base is not None else None
        snapshot = _fetched(path, options.revision, options, progress, stack)
        if snapshot is None and options.revision is not None:
            raise UsageError(
                f"--revision {options.revision!a} is of a hub id, and {str(path)!a} is a path.",
                hint="Leave --revision out, or name a repository of the hub.",
            )
        local = replace(options, base=base.root if base is not None else options.base)
        yield Arrived(snapshot.root if snapshot is not None else Path(path), local, snapshot, base)


def _fetched(
    path: Path | str, revision: str | None, options: ScanOptions, progress: Progress, stack: ExitStack
) -> HubSnapshot | None:
    if not looks_like_hub_id(str(path)):
        return None
    hub = Hub(offline=options.offline)
    return stack.enter_context(resolve(str(path), revision, variant=options.variant, progress=progress, hub=hub))


def _model(model: ModelInfo, snapshot: HubSnapshot) -> ModelInfo:
    return model.model_copy(
        update={
            "path": snapshot.name,
            "source": snapshot.site,
            "revision": snapshot.revision,
            "commit": snapshot.commit,
        }
    )


def _finding(finding: Finding, snapshot: HubSnapshot) -> Finding:
    """Commands that name the private folder name the repository instead."""
    told = finding.next_step.replace(str(snapshot.root), snapshot.name).replace(str(snapshot.folder), snapshot.id)
    return finding.model_copy(update={"next_step": told})
