"""Which classes are the libraries' own, by the tables of names from which they import lazily."""

from __future__ import annotations

import re
from functools import cache

import diffusers
import transformers

_CLASS = re.compile(r"[A-Z]\w*", re.ASCII)
# Earlier versions had their classes for other frameworks, too.
_FRAMEWORKS = re.compile(r"(Flax|TF)(?=[A-Z])")


def is_exported(named: object) -> bool:
    """Whether what an index names, ``[library, class]``, is a class of diffusers or transformers, or was one.

    Nothing is imported for the answer. A pipeline within a pipeline does not count: it brings an index of its own,
    which may name anything.
    """
    if not (isinstance(named, list) and len(named) == 2 and all(isinstance(part, str) for part in named)):
        return False
    library, name = named
    if not _CLASS.fullmatch(name) or name.endswith("Pipeline"):
        return False
    return not {name, _FRAMEWORKS.sub("", name, count=1)}.isdisjoint(_names().get(library, frozenset()))


@cache
def _names() -> dict[str, frozenset[str]]:
    return {module.__name__: frozenset(dir(module)) for module in (diffusers, transformers)}
