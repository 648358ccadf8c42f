"""Anybody's merge, of which nothing is known but mergekit's configuration in its folder or card: what its bytes prove.

It is compared with what the models that the configuration names hold now. What cannot be proven is said, sentence by
sentence, and never passes for proven: a mixture's routers alone keep a verification from ending as "passed".
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import GoneError, HerdbookError
from herdbook.verify.finding import Check, Level, Outcome
from herdbook.verify.foreign import files, gguf, routers
from herdbook.verify.foreign.claim import MIXTURE, find
from herdbook.verify.foreign.expected import expected, misfits, router_names
from herdbook.verify.foreign.model import open_model, open_reference
from herdbook.verify.foreign.weights import LEVEL, Weights
from herdbook.verify.levels import Ran, guarded
from herdbook.verify.report import WORDS, plain, read_size
from herdbook.verify.subject import FolderSubject, open_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from herdbook.verify.finding import Finding, Options
    from herdbook.verify.foreign.claim import Claim
    from herdbook.verify.foreign.model import Model
    from herdbook.verify.subject import Subject

ABOUT = Level(
    LEVEL,
    "as far as bytes can show it, the merge is of the models that its configuration names",
    "the same ranges of the merge and of those models, headers, routers",
    "twice the sample",
)
SUBJECT = Check(LEVEL, "merge")
CONFIGURATION = Check(LEVEL, "claim")
SOURCE = Check(LEVEL, "source")
LAYOUT = Check(LEVEL, "layout")
UNPROVEN = Check(LEVEL, "unproven")


class Foreign:
    """A verification of somebody's merge.

    Args:
        name: A folder, or ``owner/name[@revision]`` on the Hub.
        config: The configuration, if it is not in the merge.
        ggufs: Where else GGUF files of it are: folders or repositories.
        options: What was asked.
    """

    def __init__(self, name: str, config: Path | None, ggufs: Sequence[str], options: Options) -> None:
        self.name, self.config, self.ggufs, self.options = name, config, ggufs, options
        self.opened: list[Subject] = []
        self.sources: dict[str, Model] = {}

    def run(self, tell: Callable[[Finding], None]) -> Ran:
        """Verify it.

        Args:
            tell: Gets each finding as soon as there is one; what is unproven comes last.
        """
        started, before = time.monotonic(), hub.TRAFFIC.received_bytes
        findings, unproven = [], []
        for finding in guarded(ABOUT, self.name, self._check):
            if finding.check == UNPROVEN.name:
                unproven.append(finding)
            else:
                findings.append(finding)
                tell(finding)
        for finding in unproven:
            tell(finding)
        read = sum(one.read_bytes for one in self.opened if isinstance(one, FolderSubject))
        read += hub.TRAFFIC.received_bytes - before
        return Ran(ABOUT, (*findings, *unproven), read, time.monotonic() - started)

    def _open(self, subject: Subject) -> Subject:
        self.opened.append(subject)
        return subject

    def _check(self) -> Iterator[Finding]:
        try:
            subject = self._open(open_subject(self.name))
            merge = open_model(subject)
        except (HerdbookError, OSError) as error:
            yield SUBJECT.error(self.name, error)
            return
        self.name = subject.name
        size = sum(piece.size_bytes for piece in merge.pieces.values())
        yield SUBJECT.passed(subject.name, f"{len(merge.pieces)} tensors, {read_size(size)}")
        yield from _others(merge)
        try:
            claim = find(subject, self.config)
        except (HerdbookError, OSError) as error:
            yield CONFIGURATION.error(subject.name, error)
            detail = "Nothing says what the weights were made of, so nothing of them is proven."
            yield UNPROVEN.impossible("weights", detail)
        else:
            yield from self._claimed(claim, merge)
        yield from gguf.check(subject, merge, self.options)
        for place in self.ggufs:
            try:
                holder = self._open(open_subject(place))
            except (HerdbookError, OSError) as error:
                yield gguf.GGUF.error(place, error)
            else:
                yield from gguf.check(holder, merge, self.options)

    def _claimed(self, claim: Claim, merge: Model) -> Iterator[Finding]:
        what = f"{claim.method} of {', '.join(claim.models)}"
        if claim.method == MIXTURE:
            what = f"a mixture of {len(claim.experts)} experts on {claim.base}, gate_mode {claim.gate}"
        yield CONFIGURATION.passed(claim.where, what)
        copies = claim.method == MIXTURE or bool(claim.runs)
        for reference in claim.models:
            yield from self._source(reference, merge.subject, copies=copies)
        if copies:
            try:
                yield from self._copies(claim, merge)
            except (HerdbookError, OSError) as error:
                yield LAYOUT.error(merge.subject.name, error)
                yield UNPROVEN.impossible(
                    "weights", "The weights are not proven: they could not be compared."
                )
        else:
            detail = (
                f"All {len(merge.pieces)} tensors are results of `merge_method: {claim.method}`, not copies, so their bytes cannot "
                "be compared with a source's. They would have to be computed again with the same version of mergekit, whose "
                "numbers changed between versions."
            )
            yield UNPROVEN.impossible("weights", detail)

    def _source(self, reference: str, subject: Subject, *, copies: bool) -> Iterator[Finding]:
        """Open a source, and yield what it is, or why it cannot be read."""
        beside = self.config.parent if self.config else None
        try:
            place = self._open(open_reference(reference, subject, beside))
            if copies:
                self.sources[reference] = open_model(place)
        except (HerdbookError, OSError) as error:
            # what is gone was perhaps renamed or withdrawn: that proves nothing against who merged it
            gone = isinstance(error, GoneError)
            yield SOURCE.impossible(reference, str(error)) if gone else SOURCE.error(reference, error)
            detail = f"What is said to be of {reference} is not proven: that cannot be read."
            yield UNPROVEN.impossible(reference, detail)
            return
        if isinstance(place, FolderSubject):
            yield SOURCE.passed(reference, "a folder here, as it is now", source=place.name)
        elif "@" in reference:
            yield SOURCE.passed(reference, f"is {place.name}", source=place.uri)
        else:
            detail = f"is {place.name} now; the configuration names no commit, so it may have been another when it was merged"
            yield SOURCE.passed(reference, detail, source=place.uri)

    def _copies(self, claim: Claim, merge: Model) -> Iterator[Finding]:
        wanted, routed = expected(claim, merge, self.sources), router_names(claim, merge)
        yield from self._layout(claim, merge, misfits(wanted, routed, merge, claim))
        weights = Weights(claim, merge, self.sources, wanted)
        yield from weights.check(self.options)
        if weights.noisy:
            detail = f"The weights of {', '.join(weights.noisy)} had noise added (`noise_scale`), which is drawn: they are not proven."
            yield UNPROVEN.impossible("noise", detail)
        if claim.tokens_changed:
            detail = "Embeddings and head were made for another vocabulary (`tokenizer_source`), and are not proven."
            yield UNPROVEN.impossible("embeddings", detail)
        first = claim.base or claim.models[0]
        if first in self.sources:
            yield from files.check(claim, merge, self.sources[first])
        if claim.method == MIXTURE:
            yield from routers.check(claim, merge)

    def _layout(self, claim: Claim, merge: Model, found: tuple[list[str], list[str]]) -> Iterator[Finding]:
        """Yield whether the merge has the tensors that it must have, and no others."""
        missing, extra = found
        if missing:
            detail = f"{len(missing)} tensors are missing, such as {missing[0]}"
            yield LAYOUT.failed(merge.subject.name, detail, tensor=missing[0])
        if extra and len(self.sources) == len(claim.models):
            detail = f"{len(extra)} tensors are of no model that is named, such as {extra[0]}"
            yield LAYOUT.failed(merge.subject.name, detail, tensor=extra[0])
        if not missing and not extra:
            yield LAYOUT.passed(
                merge.subject.name, "has all tensors that the configuration makes, and no others"
            )


def _others(merge: Model) -> Iterator[Finding]:
    """Yield the files of the merge that may hold other weights: what is loaded depends on who loads it."""
    shards = {piece.file for piece in merge.pieces.values()}
    kinds = (*hub.PICKLE_SUFFIXES, ".safetensors")
    found = sorted(name for name in merge.subject.files if name.endswith(kinds) and name not in shards)
    if merge.subject.uri and found:
        told = ", ".join(found[:5]) + (" and others" if len(found) > 5 else "")
        detail = f"{len(found)} more files may hold weights ({told}); they are no part of the model that was compared."
        yield UNPROVEN.impossible("other files", detail)


def line(finding: Finding) -> str:
    """Return a finding for a terminal; what is unproven is told as the sentence that it is."""
    if finding.check == UNPROVEN.name:
        return plain(f"  - {finding.detail}")
    text = f"{WORDS[finding.outcome]:6} {finding.check:9} {finding.subject}: {finding.detail}"
    if finding.outcome is Outcome.FAILED:
        about = [(key, getattr(finding, key)) for key in ("file", "tensor", "expected", "found")]
        text += "".join(f"; {key} {value}" for key, value in about if value is not None)
    return plain(text)
