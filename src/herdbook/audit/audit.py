"""What the bytes of anyone's merge prove, given only mergekit's configuration in its folder or card, or candidates.

The merge is compared with the current content of the models that the configuration names. Each unproven statement is
reported as such, one sentence each, and never counts as passed: the routers alone keep the audit of a mixture from ending
as "passed".
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from herdbook import hub, humanize, visible
from herdbook.audit import gguf, routers, side_files
from herdbook.audit.composition import Composition
from herdbook.audit.configuration import MIXTURE, find
from herdbook.audit.dense import DenseComparison
from herdbook.audit.expected_tensors import expected, misfits, router_names
from herdbook.audit.level import ABOUT, LEVEL, UNPROVEN
from herdbook.audit.model import open_model, open_reference
from herdbook.audit.planned import imported_recipe, planned, reason, references_of
from herdbook.audit.weights import WeightsComparison
from herdbook.errors import GoneError, HerdbookError, UnverifiedError
from herdbook.release.finding import Check, Outcome
from herdbook.release.rebuilding import is_release
from herdbook.release.subject import FolderSubject, open_subject
from herdbook.traffic import TRAFFIC
from herdbook.verify.levels import LevelResult, guarded
from herdbook.verify.report import LABEL_WIDTH, LABELS

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


def _ignore(_: str) -> None:
    pass


class Audit:
    """An audit of a merge.

    Args:
        name: A folder, or ``owner/name[@revision]`` on the Hub.
        config: The configuration file, if it is not in the merge.
        ggufs: Further folders or repositories with GGUF files of the merge.
        options: The options of the audit.
        candidates: Folders or repositories that the merge may be made of; they take the place of the configuration.
    """

    def __init__(
        self,
        name: str,
        config: Path | None,
        ggufs: Sequence[str],
        options: Options,
        candidates: Sequence[str] = (),
    ) -> None:
        self.name, self.config, self.ggufs, self.options = name, config, ggufs, options
        self.candidates = candidates
        self.released = False
        self.opened: list[Subject] = []
        self.sources: dict[str, Model] = {}

    @property
    def heading(self) -> str:
        """What is compared with what, in a line for a terminal; known once the model was opened, with the commit."""
        if self.released:
            return visible.line(f"{LEVEL}: nothing is compared: {self.name} is a release of Herdbook")
        if self.candidates:
            one = "is it made of it" if len(self.candidates) == 1 else "which of them is it made of"
            listed = humanize.joined(self.candidates)
            return visible.line(f"{LEVEL}: {self.name} is compared with {listed}: {one}?")
        named = str(self.config) if self.config else "its own mergekit configuration"
        return visible.line(f"{LEVEL}: {self.name} is compared with the models that {named} names")

    def run(self, report: Callable[[Finding], None], begin: Callable[[str], None] = _ignore) -> LevelResult:
        """Run the audit.

        Args:
            report: Called with each finding as soon as it is known; unproven statements come last.
            begin: Called with the heading, before the first finding.
        """
        started, before = time.monotonic(), TRAFFIC.received_bytes
        findings: list[Finding] = []
        unproven: list[Finding] = []
        for finding in guarded(ABOUT, self.name, self._check):
            if not findings and not unproven:
                begin(self.heading)
            if finding.check == UNPROVEN.name:
                unproven.append(finding)
            else:
                findings.append(finding)
                report(finding)
        for finding in unproven:
            report(finding)
        read_bytes = sum(subject.read_bytes for subject in self.opened if isinstance(subject, FolderSubject))
        read_bytes += TRAFFIC.received_bytes - before
        return LevelResult(ABOUT, (*findings, *unproven), read_bytes, time.monotonic() - started)

    def _open(self, subject: Subject) -> Subject:
        self.opened.append(subject)
        return subject

    def _check(self) -> Iterator[Finding]:
        try:
            subject = self._open(open_subject(self.name))
            if is_release(subject.files) and not (self.config or self.candidates):
                self.released = True
                detail = (
                    f"has records of all that it was made from, which are verified: herdbook verify {self.name}. To compare it with "
                    "models all the same, name them: --candidates MODEL..., or --config FILE"
                )
                yield SUBJECT.unverified(subject.name, detail)
                return
            merge = open_model(subject)
        except (HerdbookError, OSError) as error:
            yield SUBJECT.error(self.name, error)
            return
        self.name = subject.name
        size = sum(piece.size_bytes for piece in merge.pieces.values())
        yield SUBJECT.passed(subject.name, f"{len(merge.pieces)} tensors, {humanize.size(size)}")
        yield from _other_weights(merge)
        if self.candidates:
            yield from self._composed(merge)
        else:
            yield from self._configured(subject, merge)
        yield from gguf.check(subject, merge, self.options)
        for location in self.ggufs:
            try:
                holder = self._open(open_subject(location))
            except (HerdbookError, OSError) as error:
                yield gguf.GGUF.error(location, error)
            else:
                yield from gguf.check(holder, merge, self.options)

    def _configured(self, subject: Subject, merge: Model) -> Iterator[Finding]:
        try:
            configuration = find(subject, self.config)
        except (HerdbookError, OSError) as error:
            yield CONFIGURATION.error(subject.name, error)
            detail = (
                "No configuration states what the weights were made from, so none of them is proven. With `--candidates A B ...`, "
                "the models that it may be made of are compared with it."
            )
            yield UNPROVEN.unverified("weights", detail)
        else:
            yield from self._compare(configuration, merge)

    def _composed(self, merge: Model) -> Iterator[Finding]:
        """Compare the merge with the candidates."""
        models = {}
        for name in self.candidates:
            try:
                source = self._open(open_subject(name))
                models[name] = open_model(source)
            except (HerdbookError, OSError) as error:
                yield SOURCE.error(name, error)
            else:
                yield SOURCE.passed(name, f"is {source.name}", source=source.uri or source.name)
        if models:
            yield from Composition(merge, models).check(self.options)

    def _compare(self, configuration: Configuration, merge: Model) -> Iterator[Finding]:
        summary = f"{configuration.method} of {', '.join(configuration.models)}"
        if configuration.method == MIXTURE:
            summary = f"a mixture of {len(configuration.experts)} experts on {configuration.base}, gate_mode {configuration.gate}"
        yield CONFIGURATION.passed(configuration.where, summary)
        if configuration.method != MIXTURE and (configuration.is_several or not configuration.runs):
            yield from self._dense(configuration, merge)
            return
        for reference in configuration.models:
            yield from self._source(reference, merge.subject)
        try:
            yield from self._copies(configuration, merge)
        except (HerdbookError, OSError) as error:
            yield LAYOUT.error(merge.subject.name, error)
            yield UNPROVEN.unverified("weights", "The weights are not proven: they could not be compared.")

    def _dense(self, configuration: Configuration, merge: Model) -> Iterator[Finding]:
        """Recompute a dense merge from its sources."""
        try:
            recipe, references = imported_recipe(references_of(configuration.text, configuration.where))
        except (HerdbookError, OSError) as error:
            yield _not_planned(error)
            return
        for reference in dict.fromkeys(references.values()):
            yield from self._source(reference, merge.subject)
        if missing := [reference for reference in references.values() if reference not in self.sources]:
            yield _not_planned(UnverifiedError(f"{missing[0]} cannot be read"))
            return
        try:
            models = {name: self.sources[reference] for name, reference in references.items()}
            yield from DenseComparison(merge, planned(recipe, models, references)).check(self.options)
        except (HerdbookError, OSError) as error:
            yield _not_planned(error)
            return
        first = configuration.base or configuration.models[0]
        if first in self.sources:
            yield from side_files.check(configuration, merge, self.sources[first])

    def _source(self, reference: str, subject: Subject) -> Iterator[Finding]:
        """Open a source, and yield a finding that identifies it or explains why it cannot be read."""
        config_folder = self.config.parent if self.config else None
        try:
            source = self._open(open_reference(reference, subject, config_folder))
            self.sources[reference] = open_model(source)
        except (HerdbookError, OSError) as error:
            # a missing model may have been renamed or withdrawn, which proves nothing against the author of the merge
            gone = isinstance(error, GoneError)
            yield SOURCE.unverified(reference, str(error)) if gone else SOURCE.error(reference, error)
            detail = f"The tensors that should be from {reference} are not proven: it cannot be read."
            yield UNPROVEN.unverified(reference, detail)
            return
        if isinstance(source, FolderSubject):
            yield SOURCE.passed(reference, "a local folder in its current state", source=source.name)
        elif "@" in reference:
            yield SOURCE.passed(reference, f"is {source.name}", source=source.uri)
        else:
            detail = f"is {source.name} now; the configuration names no commit, so another one may have been merged"
            yield SOURCE.passed(reference, detail, source=source.uri)

    def _copies(self, configuration: Configuration, merge: Model) -> Iterator[Finding]:
        tensors, routed = expected(configuration, merge, self.sources), router_names(configuration, merge)
        yield from self._layout(configuration, merge, misfits(tensors, routed, merge, configuration))
        weights = WeightsComparison(configuration, merge, self.sources, tensors)
        yield from weights.check(self.options)
        if weights.noisy:
            detail = f"The weights of {', '.join(weights.noisy)} are not proven: random noise was added (`noise_scale`)."
            yield UNPROVEN.unverified("noise", detail)
        if configuration.tokens_changed:
            detail = "Embeddings and head are not proven: they were made for another vocabulary (`tokenizer_source`)."
            yield UNPROVEN.unverified("embeddings", detail)
        first = configuration.base or configuration.models[0]
        if first in self.sources:
            yield from side_files.check(configuration, merge, self.sources[first])
        if configuration.method == MIXTURE:
            yield from routers.check(configuration, merge)

    def _layout(
        self, configuration: Configuration, merge: Model, misfit: tuple[list[str], list[str]]
    ) -> Iterator[Finding]:
        """Yield whether the merge has exactly the tensors that the configuration implies."""
        missing, extra = misfit
        if missing:
            detail = f"{len(missing)} tensors are missing, such as {missing[0]}"
            yield LAYOUT.failed(merge.subject.name, detail, tensor=missing[0])
        if extra and len(self.sources) == len(configuration.models):
            detail = f"{len(extra)} tensors belong to none of the named models, such as {extra[0]}"
            yield LAYOUT.failed(merge.subject.name, detail, tensor=extra[0])
        if not missing and not extra:
            yield LAYOUT.passed(
                merge.subject.name, "has all tensors that the configuration implies, and no others"
            )


def _not_planned(error: Exception) -> Finding:
    detail = (
        f"The weights are not proven: the merge cannot be recomputed from its configuration: {reason(error)}"
    )
    return UNPROVEN.unverified("weights", detail)


def _other_weights(merge: Model) -> Iterator[Finding]:
    """Report files that may contain other weights: which files are loaded depends on the program that loads them."""
    shards = {piece.file for piece in merge.pieces.values()}
    kinds = (*hub.PICKLE_SUFFIXES, ".safetensors")
    names = sorted(name for name in merge.subject.files if name.endswith(kinds) and name not in shards)
    if merge.subject.uri and names:
        listed = ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
        detail = f"{len(names)} more files may contain weights ({listed}); they are not part of the model that was compared."
        yield UNPROVEN.unverified("other files", detail)


def line(finding: Finding) -> str:
    """Return a finding for a terminal; an unproven statement is printed as a sentence alone."""
    if finding.check == UNPROVEN.name:
        return visible.line(f"  - {finding.detail}")
    text = f"{LABELS[finding.outcome]:{LABEL_WIDTH}} {finding.check:9} {finding.subject}: {finding.detail}"
    if finding.outcome is Outcome.FAILED:
        about = [(key, getattr(finding, key)) for key in ("file", "tensor", "expected", "found")]
        text += "".join(f"; {key} {value}" for key, value in about if value is not None)
    return visible.line(text)
