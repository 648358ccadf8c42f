"""Read a release: the content of its own files, each read once and within limits."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from herdbook import limits, plain
from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.errors import HerdbookError, UnverifiedError, VerificationError
from herdbook.faults import first_in_words
from herdbook.layout import CLAIMS, CONFIG, LINEAGE, LOCK, RECIPE, RECORDS, SUMS
from herdbook.plan import make
from herdbook.plan.edition import Edition, editions_of, repo_of, title_of
from herdbook.provenance import lineage
from herdbook.quantization.schemes import scheme_of
from herdbook.release.no_release import overfull, without_sums
from herdbook.release.subject import FolderSubject, MissingError, open_source, open_subject
from herdbook.release.sums import parse_sums, with_sums
from herdbook.traffic import TRAFFIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import Lock
    from herdbook.plan import Plan
    from herdbook.provenance.lineage import LineageSlice
    from herdbook.recipe import Recipe
    from herdbook.release.finding import Check, Finding
    from herdbook.release.subject import Subject
    from herdbook.weights.record import Record


@contextmanager
def damaged(what: str) -> Iterator[None]:
    """Report malformed data as damaged.

    Raises:
        VerificationError: Instead of the errors that malformed data cause, or data over a limit.
    """
    try:
        yield
    except limits.OverLimitError as error:
        raise VerificationError(f"{what}: refused: it {error}") from error
    except (
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        ArithmeticError,
        RecursionError,
        StopIteration,
    ) as error:
        raise VerificationError(f"{what}: is damaged: {error!r}") from error


def derived(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Pass on the findings of a check that follows files of the release wherever they lead, so that it meets all their faults.

    Raises:
        VerificationError: If they are damaged.
    """
    with damaged("the release's own files"):
        yield from findings


def caught(findings: Iterator[Finding], check: Check, release: Release) -> Iterator[Finding]:
    """Pass on findings; an error that ends a check becomes a finding and does not stop later checks.

    Only errors for users do: any other is a fault of the verifier, and proves nothing against the release.
    """
    try:
        yield from findings
    except MissingError as error:
        yield unread(check, error, release)
    except (HerdbookError, OSError) as error:
        yield check.error(release.name, error)


def unread(check: Check, error: MissingError, release: Release) -> Finding:
    """Return the finding for a file that could not be read, since it is missing.

    That a listed file is missing is a failure of the check ``sums``; nothing is known of what is said about it elsewhere. A
    file of a source, or one that is not listed, is missing for that check alone.
    """
    if error.name in release.sums and error.name not in release.subject.files:
        detail = "could not be checked: the file is missing (see sums)"
        return check.unverified(error.name, detail, file=error.name)
    return check.error(release.name, error)


class Release:
    """A release.

    Attributes:
        sources: The models that were opened on the Hub, by URI.
        copied: Those that were opened in folders of the verifier's copy of the author's folder, by path.

    Args:
        subject: The files.

    Raises:
        NoReleaseError: If it has no file that only releases have.
        VerificationError: If its checksums cannot be read, or contain a name that leads outside the release.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        if SUMS not in subject.files:
            raise without_sums(subject)
        self.sources: dict[str, Subject] = {}
        self.copied: dict[Path, FolderSubject] = {}
        self._before = TRAFFIC.received_bytes
        with damaged(SUMS):
            self.sums = parse_sums(subject.read(SUMS, limits.SUMS_BYTES).decode(), SUMS)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.subject.name

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of all files that its claims cover: those that SHA256SUMS lists, and SHA256SUMS itself."""
        return with_sums(self.sums, self.subject.read(SUMS))

    @property
    def digest(self) -> str:
        """What identifies it: the SHA-256 of its SHA256SUMS, which has the digests of all other files."""
        return self.digests[SUMS]

    def source(self, uri: str) -> Subject:
        """Return a model that it was made from, opened once. Raises as ``open_source``."""
        if uri not in self.sources:
            self.sources[uri] = open_source(uri)
        return self.sources[uri]

    @property
    def read_bytes(self) -> int:
        """Bytes read so far from the release and its sources, from disk and from the Hub."""
        subjects = (self.subject, *self.sources.values(), *self.copied.values())
        read = sum(subject.read_bytes for subject in subjects if isinstance(subject, FolderSubject))
        return read + TRAFFIC.received_bytes - self._before

    @cached_property
    def recipe(self) -> Recipe:
        """Its own recipe. Raises RecipeError if it is damaged."""
        with damaged(RECIPE):
            return recipes.parse(self.subject.read(RECIPE, 4 * limits.YAML_CHARACTERS).decode(), RECIPE)

    @cached_property
    def edition(self) -> Edition:
        """Which files of its build it has. Raises RecipeError if its recipe is damaged."""
        editions = editions_of(self.recipe)
        if len(editions) == 1:
            return editions[0]
        if not self.weights() and Edition.GGUF in editions:
            return Edition.GGUF
        with damaged(CONFIG):
            described = dict(self.subject.json(CONFIG)) if CONFIG in self.subject.files else {}
            scheme = scheme_of(described)
        # whichever it seems to be, everything in it is compared with the plan of that edition
        own = Edition(scheme.name) if scheme else editions[0]
        return own if own in editions else editions[0]

    @property
    def title(self) -> str:
        """Its own name, as its recipe has it. Raises RecipeError if its recipe is damaged."""
        return title_of(self.recipe, self.edition)

    @property
    def repo(self) -> str | None:
        """The repository that its recipe has for it. Raises RecipeError if its recipe is damaged."""
        return repo_of(self.recipe, self.edition)

    @cached_property
    def lock(self) -> Lock:
        """Its own lock. Raises VerificationError if it is damaged, UnverifiedError if it is of another version."""
        content = self.subject.read(LOCK, limits.LOCK.size_bytes)
        with damaged(LOCK):
            try:
                return locks.parse(content)
            except locks.OtherVersionError as error:
                raise UnverifiedError(f"{LOCK}: {error}.") from error
            except ValidationError as error:
                raise VerificationError(f"{LOCK}: is damaged at {first_in_words(error)}") from error

    @cached_property
    def _plan(self) -> Plan:
        return self.make_plan()

    def plan(self) -> Plan:
        """Return the plan that follows from its recipe and lock, with the keys of the installed code.

        Raises:
            RecipeError: If its recipe cannot be built.
            VerificationError: If its recipe or lock is damaged.
        """
        return self._plan

    def make_plan(self, recipe: Path = Path(RECIPE), results: Path = Path("results")) -> Plan:
        """Return a new plan, so that keys of other code can be computed. Raises as ``plan``.

        Args:
            recipe: The path of the recipe, which need not exist yet.
            results: The folder for results.
        """
        with damaged(f"{RECIPE} or {LOCK}"):
            return make(self.recipe, self.lock, recipe, results, self.edition)

    @cached_property
    def claims(self) -> tuple[str, ...]:
        """The lines of its claims. Raises VerificationError if the file is missing or not a text."""
        content = self.subject.read(CLAIMS, limits.CLAIMS.size_bytes)
        with damaged(CLAIMS):
            limits.CLAIMS.check(content)
            text = content.decode()
        return tuple(line for line in text.split("\n") if line.strip())

    @cached_property
    def _records(self) -> dict[str, Record]:
        names = [n for n in sorted(self.sums) if n.startswith(RECORDS) and not n.endswith(".gguf.json")]
        with damaged(f"the records in {RECORDS}"):
            sizes = [self.subject.files[name].size_bytes for name in names if name in self.subject.files]
            limits.RECORDS.check_size(sum(sizes))
        by_key, left = {}, limits.RECORDS.values
        for name in names:
            limit = replace(limits.DOCUMENT, values=min(left, limits.DOCUMENT.values))
            record, values = self.subject.counted_json(name, limit)
            left -= values
            with damaged(name):
                _check_record(record)
                by_key[record["key"]] = record
        return by_key

    def records(self) -> dict[str, Record]:
        """Return the records of all shards of its build, by key.

        Raises:
            VerificationError: If one is missing or damaged.
        """
        return self._records

    @cached_property
    def _lineage(self) -> list[LineageSlice]:
        if LINEAGE not in self.subject.files and self.edition is Edition.GGUF:
            return []
        with damaged(LINEAGE):
            text = self.subject.read(LINEAGE, limits.LINEAGE.size_bytes).decode()
        return lineage.parse(text)

    def lineage(self) -> list[LineageSlice]:
        """Return its lineage, none if it has quantized files only. Raises VerificationError if it is missing or damaged."""
        return self._lineage

    def weights(self) -> list[str]:
        """Return the names of its safetensors files, sorted."""
        return sorted(name for name in self.sums if name.endswith(".safetensors"))


def open_release(place: str | Path) -> Release:
    """Open a release in a folder or on the Hub.

    Args:
        place: The folder, or what the user named; see ``open_subject``.

    Raises:
        NoReleaseError: If it is a folder or a repository that is not a release.
        VerificationError: If its checksums cannot be read, or it has more files than any release.
        UnverifiedError: If it is neither a folder nor the name of a repository, or cannot be read.
        GoneError: If the repository has no such revision.
        SourceError: If it cannot be reached.
    """
    try:
        subject = FolderSubject(place) if isinstance(place, Path) else open_subject(place)
    except plain.OverfullError as error:
        raise overfull(error.folder) from error
    return Release(subject)


def _check_record(record: Any) -> None:
    """Raise KeyError or TypeError if a shard's record lacks what every record has."""
    for text in (record["key"], record["operation"], record["file"]["sha256"]):
        _text(text)
    record["parameters"].items()
    for name, entry in record["tensors"].items():
        for text in (name, entry["action"], entry["dtype"], entry["sha256"]):
            _text(text)
        [int(extent) for extent in entry["shape"]]
        for cited in entry.get("from", []):
            for text in (cited["key"], cited["tensor"], cited["sha256"]):
                _text(text)


def _text(value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
