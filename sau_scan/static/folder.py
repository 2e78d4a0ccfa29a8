"""What is kept of a checkpoint's files to be compared with each other: texts as they were hashed, and headers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sau_scan.static.header import Header
from sau_scan.static.texts import TooLarge, load_json
from sau_scan.static.tree import Place

INDEX = "model_index.json"


@dataclass
class Folder:
    """``texts``: configurations and tables by path; ``headers``: of safetensors; ``places``: all entries."""

    root: Path
    texts: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, Header] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    _parsed: dict[str, Any] = field(default_factory=dict)

    def json(self, path: str) -> dict[str, Any]:
        """A JSON object; empty where there is none."""
        if path not in self._parsed:
            try:
                value = load_json(self.texts.get(path, b"{}"))[0]
            except (ValueError, RecursionError, TooLarge):
                value = None
            self._parsed[path] = value if isinstance(value, dict) else {}
        found: dict[str, Any] = self._parsed[path]
        return found

    @cached_property
    def paths(self) -> tuple[str, ...]:
        return tuple(place.relpath for place in self.places)

    @property
    def index(self) -> dict[str, Any]:
        return self.json(INDEX)

    def shapes(self, component: str) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors in the component's files, by name."""
        return {
            tensor.name: tensor.shape
            for path, header in self.headers.items()
            if path.startswith(component + "/")
            for tensor in header.tensors
        }
