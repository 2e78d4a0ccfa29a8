"""JSON: the result itself, ASCII only; what was written can be read back. Its schema is shipped as ``schema.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sau_scan.errors import ConfigError
from sau_scan.findings import SCHEMA_VERSION, FixResult, Result, ScanResult, escape
from sau_scan.invalid import first_problem

SCHEMA_PATH = Path(__file__).with_name("schema.json")
MAX_REPORT_BYTES = 64 * 2**20
_AGAIN = "Make it anew with: sau-scan detect MODEL --output report.json"
_ADAPTER: TypeAdapter[ScanResult | FixResult] = TypeAdapter(Result)


def render_json(result: ScanResult | FixResult) -> str:
    """``result`` as JSON. Non-ASCII text is escaped, so a report can be shown in any terminal."""
    return ascii_json(result.model_dump_json(indent=2, ensure_ascii=True))


def ascii_json(text: str) -> str:
    """The last control character that JSON leaves as it is, escaped too; and a line feed at the end."""
    return text.replace("\x7f", "\\u007f") + "\n"


def read_result(path: Path) -> ScanResult | FixResult:
    """What :func:`render_json` wrote. Raises ConfigError for anything else."""
    name = escape(str(path))
    try:
        if path.exists() and not path.is_file():  # reading a pipe could wait for ever
            raise ConfigError(f"{name} is not a regular file.", hint=_AGAIN)
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise ConfigError(f"{name} is larger than {MAX_REPORT_BYTES:,} bytes; no report is.", hint=_AGAIN)
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}.", hint="Check the path.") from error
    _check_version(data, name)
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError as error:
        problem = first_problem(error)
        told = f"{escape(problem.field) or 'the report'}: {escape(problem.what)}"
        raise ConfigError(f"{name} is not a sau-scan report: {told}.", hint=_AGAIN) from error


def schema() -> dict[str, Any]:
    """The JSON Schema of reports, made from the models; ``schema.json`` is its copy in the package."""
    made = _ADAPTER.json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:sau-scan:report:{SCHEMA_VERSION}",
        "title": "Report of sau-scan",
        **made,
    }


def schema_text() -> str:
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


def _check_version(data: bytes, name: str) -> None:
    """A clear word about reports of another major version, before their fields are found wanting."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON.", hint=_AGAIN) from error
    version = str(found.get("schema_version", "")) if isinstance(found, dict) else ""
    if not version:
        raise ConfigError(f"{name} is not a sau-scan report: it has no schema_version.", hint=_AGAIN)
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise ConfigError(
            f"{name} has schema version {escape(version[:20])}; this sau-scan reads {SCHEMA_VERSION}.", hint=_AGAIN
        )
