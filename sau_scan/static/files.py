"""Files that could run code, point elsewhere, or be loaded by other programs behind this scan's back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from sau_scan.checkpoint.families import FAMILIES, foreign_classes
from sau_scan.checkpoint.naming import CODE
from sau_scan.checkpoint.source import INDEX, Checkpoint
from sau_scan.errors import CheckpointError
from sau_scan.findings import Finding, Severity, Skipped
from sau_scan.static.facts import file_finding, shell_path
from sau_scan.static.tokenizer import check_tokenizer

# Fields of a configuration through which the usual libraries import code or fetch something.
REACHING_FIELDS = ("auto_map", "custom_pipelines", "custom_code", "trust_remote_code")
KERNEL_FIELDS = ("_attn_implementation", "attn_implementation", "_attn_implementation_internal")
DISGUISES = {
    b"PK\x03\x04": "a zip archive, as PyTorch's pickles are",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x7fELF": "a program",
}


def check_files(checkpoint: Checkpoint) -> list[Finding | Skipped]:
    """Everything about the files that can be told without loading the model. Never raises on hostile content."""
    checks: tuple[Callable[[Checkpoint], Iterator[Finding]], ...] = (
        _links,
        _code,
        _foreign_classes,
        _configurations,
        _adapters,
        _disguises,
        check_tokenizer,
    )
    results: list[Finding | Skipped] = []
    for check in checks:
        try:
            results += check(checkpoint)
        except CheckpointError as error:
            # Loading will say the same in full; here it must not hide the other checks.
            results.append(Skipped(what=check.__name__.strip("_").replace("_", " "), reason=str(error), planned=True))
    return results


def _links(checkpoint: Checkpoint) -> Iterator[Finding]:
    for path in checkpoint.links_out:
        yield file_finding(
            checkpoint,
            "link-outside",
            Severity.HIGH,
            path,
            "link that leaves the folder",
            "Whoever loads this checkpoint reads a file outside of it; the link was not followed.",
            next_step=f"ls -l {shell_path(checkpoint, path)}",
        )


def _code(checkpoint: Checkpoint) -> Iterator[Finding]:
    for skipped in checkpoint.skipped:
        if PurePosixPath(skipped.what).suffix.lower() in CODE:
            yield file_finding(
                checkpoint,
                "code",
                Severity.HIGH if _loadable(checkpoint, skipped.what) else Severity.MEDIUM,
                skipped.what,
                "code in the checkpoint",
                "A program that loads this folder with custom code allowed would run it; it was not run here.",
            )


def _loadable(checkpoint: Checkpoint, path: str) -> bool:
    """Whether diffusers would look for custom code at this path: beside the index, or in a component's folder."""
    folder = path.rpartition("/")[0]
    return folder in checkpoint.index or (folder == "" and PurePosixPath(path).stem == "pipeline")


def _foreign_classes(checkpoint: Checkpoint) -> Iterator[Finding]:
    named = checkpoint.index.get("_class_name")
    if not isinstance(named, str):
        yield file_finding(
            checkpoint,
            "foreign-class",
            Severity.HIGH,
            INDEX,
            "custom pipeline",
            f"The index asks for the pipeline {named!a}, which is not a class of diffusers.",
        )
    family = next((family for family in FAMILIES if family.pipeline == named), None)
    for component, shown in foreign_classes(checkpoint, family).items() if family else ():
        yield file_finding(
            checkpoint,
            "foreign-class",
            Severity.HIGH,
            INDEX,
            f"foreign class for {component!a}",
            f"The index asks for {shown}: diffusers would import it, and with it code of the author's choice.",
        )


def _configurations(checkpoint: Checkpoint) -> Iterator[Finding]:
    for record in checkpoint.records:
        if not record.path.endswith(("config.json", INDEX)):
            continue
        reaching = list(_reaching(checkpoint.json(record.path)))
        if reaching:
            yield file_finding(
                checkpoint,
                "config-code",
                Severity.HIGH,
                record.path,
                "configuration that names code",
                f"The fields {', '.join(sorted(reaching))} make libraries import code or fetch it; ignored here.",
            )


def _reaching(config: dict[str, Any]) -> Iterator[str]:
    for key in REACHING_FIELDS:
        if config.get(key):
            yield key
    for key in KERNEL_FIELDS:
        if "/" in str(config.get(key, "")):
            yield key


def _adapters(checkpoint: Checkpoint) -> Iterator[Finding]:
    paths = [record.path for record in checkpoint.records] + [skipped.what for skipped in checkpoint.skipped]
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name == "adapter_config.json" and folder in checkpoint.index:
            yield file_finding(
                checkpoint,
                "hidden-adapter",
                Severity.HIGH,
                path,
                "adapter that is loaded unasked",
                "transformers adds this adapter to the component whenever peft is installed; it was not scanned.",
            )


def _disguises(checkpoint: Checkpoint) -> Iterator[Finding]:
    for record in checkpoint.records:
        if not record.path.lower().endswith(".safetensors"):
            continue
        start = checkpoint.head(record.path)
        kind = next((kind for magic, kind in DISGUISES.items() if start.startswith(magic)), None)
        # A header's length may begin with any two bytes; what follows it is always JSON.
        if kind and start[8:9] != b"{":
            yield file_finding(
                checkpoint,
                "disguised",
                Severity.HIGH,
                record.path,
                "not safetensors in spite of its name",
                f"It is {kind}; a program that trusts the content instead of the name may run code from it.",
            )
