"""Anybody's merge, of which nothing is known but mergekit's configuration in its folder or card: what its bytes prove.

It is compared with what the models that the configuration names hold now. What cannot be proven is said, sentence by
sentence, and never passes for proven: a mixture's routers alone keep a verification from ending as "passed".
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from herdbook import hub, humanize
from herdbook.audit import gguf, routers, side_files
from herdbook.audit.configuration import MIXTURE, find
from herdbook.audit.expected_tensors import expected, misfits, router_names
from herdbook.audit.level import ABOUT, LEVEL, UNPROVEN
from herdbook.audit.model import open_model, open_reference
from herdbook.audit.weights import WeightsComparison
from herdbook.errors import GoneError, HerdbookError
from herdbook.release.finding import Check, Outcome
from herdbook.release.subject import FolderSubject, open_subject
from herdbook.verify.levels import LevelResult, guarded
from herdbook.verify.report import LABEL_WIDTH, LABELS, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from herdbook.audit.configuration import Configuration
    from herdbook.audit.model import Model
    from herdbook.release.finding import Finding, Options
    from herdbook.release.subject import Subject

SUBJECT = Check(LEVEL, "merge")
CONFIGURATION = Check(LEVEL, "claim")
SOURCE = Check(LEVEL, "source")
LAYOUT = Check(LEVEL, "layout")


class Audit:
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

    def run(self, report: Callable[[Finding], None]) -> LevelResult:
        """Verify it.

        Args:
            report: Called with each finding as soon as there is one; what is unproven comes last.
        """
        started, before = time.monotonic(), hub.TRAFFIC.received_bytes
        findings, unproven = [], []
        for finding in guarded(ABOUT, self.name, self._check):
            if finding.check == UNPROVEN.name:
                unproven.append(finding)
            else:
                findings.append(finding)
                report(finding)
        for finding in unproven:
            report(finding)
        read = sum(one.read_bytes for one in self.opened if isinstance(one, FolderSubject))
        read += hub.TRAFFIC.received_bytes - before
        return LevelResult(ABOUT, (*findings, *unproven), read, time.monotonic() - started)

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
        yield SUBJECT.passed(subject.name, f"{len(merge.pieces)} tensors, {humanize.size(size)}")
        yield from _others(merge)
        try:
            configuration = find(subject, self.config)
        except (HerdbookError, OSError) as error:
            yield CONFIGURATION.error(subject.name, error)
            detail = "Nothing says what the weights were made of, so nothing of them is proven."
            yield UNPROVEN.unverified("weights", detail)
        else:
            yield from self._claimed(configuration, merge)
        yield from gguf.check(subject, merge, self.options)
        for place in self.ggufs:
            try:
                holder = self._open(open_subject(place))
            except (HerdbookError, OSError) as error:
                yield gguf.GGUF.error(place, error)
            else:
                yield from gguf.check(holder, merge, self.options)

    def _claimed(self, configuration: Configuration, merge: Model) -> Iterator[Finding]:
        what = f"{configuration.method} of {', '.join(configuration.models)}"
        if configuration.method == MIXTURE:
            what = f"a mixture of {len(configuration.experts)} experts on {configuration.base}, gate_mode {configuration.gate}"
        yield CONFIGURATION.passed(configuration.where, what)
        copies = configuration.method == MIXTURE or bool(configuration.runs)
        for reference in configuration.models:
            yield from self._source(reference, merge.subject, copies=copies)
        if copies:
            try:
                yield from self._copies(configuration, merge)
            except (HerdbookError, OSError) as error:
                yield LAYOUT.error(merge.subject.name, error)
                yield UNPROVEN.unverified(
                    "weights", "The weights are not proven: they could not be compared."
                )
        else:
            detail = (
                f"All {len(merge.pieces)} tensors are results of `merge_method: {configuration.method}`, not copies, so their bytes cannot "
                "be compared with a source's. They would have to be computed again with the same version of mergekit, whose "
                "numbers changed between versions."
            )
            yield UNPROVEN.unverified("weights", detail)

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
            yield SOURCE.unverified(reference, str(error)) if gone else SOURCE.error(reference, error)
            detail = f"What is said to be of {reference} is not proven: that cannot be read."
            yield UNPROVEN.unverified(reference, detail)
            return
        if isinstance(place, FolderSubject):
            yield SOURCE.passed(reference, "a folder here, as it is now", source=place.name)
        elif "@" in reference:
            yield SOURCE.passed(reference, f"is {place.name}", source=place.uri)
        else:
            detail = f"is {place.name} now; the configuration names no commit, so it may have been another when it was merged"
            yield SOURCE.passed(reference, detail, source=place.uri)

    def _copies(self, configuration: Configuration, merge: Model) -> Iterator[Finding]:
        wanted, routed = expected(configuration, merge, self.sources), router_names(configuration, merge)
        yield from self._layout(configuration, merge, misfits(wanted, routed, merge, configuration))
        weights = WeightsComparison(configuration, merge, self.sources, wanted)
        yield from weights.check(self.options)
        if weights.noisy:
            detail = f"The weights of {', '.join(weights.noisy)} had noise added (`noise_scale`), which is drawn: they are not proven."
            yield UNPROVEN.unverified("noise", detail)
        if configuration.tokens_changed:
            detail = "Embeddings and head were made for another vocabulary (`tokenizer_source`), and are not proven."
            yield UNPROVEN.unverified("embeddings", detail)
        first = configuration.base or configuration.models[0]
        if first in self.sources:
            yield from side_files.check(configuration, merge, self.sources[first])
        if configuration.method == MIXTURE:
            yield from routers.check(configuration, merge)

    def _layout(
        self, configuration: Configuration, merge: Model, found: tuple[list[str], list[str]]
    ) -> Iterator[Finding]:
        """Yield whether the merge has the tensors that it must have, and no others."""
        missing, extra = found
        if missing:
            detail = f"{len(missing)} tensors are missing, such as {missing[0]}"
            yield LAYOUT.failed(merge.subject.name, detail, tensor=missing[0])
        if extra and len(self.sources) == len(configuration.models):
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
        yield UNPROVEN.unverified("other files", detail)


def line(finding: Finding) -> str:
    """Return a finding for a terminal; what is unproven is told as the sentence that it is."""
    if finding.check == UNPROVEN.name:
        return plain(f"  - {finding.detail}")
    text = f"{LABELS[finding.outcome]:{LABEL_WIDTH}} {finding.check:9} {finding.subject}: {finding.detail}"
    if finding.outcome is Outcome.FAILED:
        about = [(key, getattr(finding, key)) for key in ("file", "tensor", "expected", "found")]
        text += "".join(f"; {key} {value}" for key, value in about if value is not None)
    return plain(text)
