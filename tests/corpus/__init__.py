"""A corpus of hostile and benign files and folders, made in code and never stored.

The hostile ones are the ways into a machine, and past a scanner, that have been published, or follow from the formats;
each does one harmless thing when it is loaded as people load it: it creates an empty file, the *canary*. The benign
ones are what people have in and beside their checkpoints.
"""

from __future__ import annotations

from tests.corpus.archives import ARCHIVES
from tests.corpus.disguises import DISGUISES
from tests.corpus.folders import FOLDERS
from tests.corpus.formats import FORMATS
from tests.corpus.gadgets import GADGETS
from tests.corpus.headers import LIES
from tests.corpus.hidden import HIDDEN
from tests.corpus.routes import ROUTES
from tests.corpus.sample import Sample, make, place
from tests.corpus.things import THINGS
from tests.corpus.weights import WEIGHTS

__all__ = ["BENIGN", "HOSTILE", "SAMPLES", "Sample", "by_id", "make", "place"]

HOSTILE: tuple[Sample, ...] = (*ROUTES, *DISGUISES, *HIDDEN, *GADGETS, *ARCHIVES, *LIES, *FORMATS, *FOLDERS)
BENIGN: tuple[Sample, ...] = (*WEIGHTS, *THINGS)
SAMPLES = HOSTILE + BENIGN


def by_id(name: str) -> Sample:
    """The sample of this id."""
    return next(sample for sample in SAMPLES if sample.id == name)
