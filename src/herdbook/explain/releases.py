"""Two releases compared: which of recipe, lock, code and results differ, and whether one model is measurably better."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from herdbook import limits
from herdbook.changes import changed_parameters
from herdbook.comparison.compare import Measured, Wanted, compare
from herdbook.comparison.samples import unpack
from herdbook.comparison.verdict import BETTER, WORSE
from herdbook.explain.difference import code
from herdbook.layout import CARD, EVALUATIONS, FIGURES, LOCK, RECIPE, SAMPLES_SUFFIX
from herdbook.plan.parsed import PACKAGE
from herdbook.release.reader import damaged
from herdbook.release.subject import FolderSubject
from herdbook.steps.card.results import main_metrics
from herdbook.verify.claims import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.comparison.samples import Sample
    from herdbook.comparison.verdict import Comparison
    from herdbook.release.reader import Release

LISTED = 20  # differences of one kind; others are counted
FIRST, SECOND = "A", "B"


@dataclass(frozen=True)
class Differences:
    """What differs between two releases, A and B.

    Args:
        parts: For recipe, lock, code and results, a sentence for each difference, from B to A; none if they are equal.
        comparisons: The released models on the same documents, A compared with B.
        notes: What could not be compared, and why.
    """

    parts: dict[str, tuple[str, ...]]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    @property
    def json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "differences": {part: list(lines) for part, lines in self.parts.items()},
            "comparisons": [asdict(item) for item in self.comparisons],
            "notes": list(self.notes),
        }

    def lines(self) -> Iterator[str]:
        """Yield the same as text."""
        for part, sentences in self.parts.items():
            yield f"{part:8} {'differs' if sentences else 'equal'}"
            yield from (f"         {sentence}" for sentence in sentences[:LISTED])
            if len(sentences) > LISTED:
                yield f"         and {len(sentences) - LISTED} more"
        for item in self.comparisons:
            where = f"measured {item.task} ({item.metric}), {item.documents} documents: "
            if item.p is None:
                yield f"{where}{item.verdict}"
                continue
            verdict = f"{FIRST} is {item.verdict}" if item.verdict in {BETTER, WORSE} else item.verdict
            yield (
                f"{where}{FIRST} - {SECOND} is {item.difference:+.4g} ({item.low:+.4g} to {item.high:+.4g}), "
                f"p {item.corrected:.4f}: {verdict}"
            )
        yield from (f"note     {note}" for note in self.notes)


def differences(first: Release, second: Release) -> Differences:
    """Compare two releases; nothing in them is verified.

    Args:
        first: Release A.
        second: Release B, which A is compared with.

    Raises:
        VerificationError: If one is damaged.
    """
    before, now = (release.recipe.model_dump(mode="json") for release in (second, first))
    locks = (release.lock.model_dump(mode="json") for release in (second, first))
    parts = {
        "recipe": _documents(RECIPE, (second, first), before, now),
        "lock": _documents(LOCK, (second, first), *locks),
        "code": tuple(code(*(_code(release) for release in (second, first)))),
        "results": tuple(_results(second, first)),
    }
    with damaged(f"the measurements of {first.name} or {second.name}"):
        comparisons, notes = _measured(first, second)
    return Differences(parts, comparisons, notes)


def _documents(name: str, releases: tuple[Release, Release], before: Any, now: Any) -> tuple[str, ...]:
    found = tuple(changed_parameters(before, now))
    if not found and releases[0].sums.get(name) != releases[1].sums.get(name):
        return ("only in layout or comments",)
    return found


def _code(release: Release) -> dict[str, str]:
    """Return the digest of each module and the version of each package that made a release."""
    found = recorded(release).code
    parts: dict[str, str] = {PACKAGE: found.version}
    for operation in found.operations.values():
        parts |= {**operation["modules"], **operation["packages"]}
    return parts


def _kind(name: str) -> str:
    if name.endswith(".safetensors"):
        return "weights"
    if name.endswith(".gguf"):
        return "quantized files"
    if name.startswith(f"{EVALUATIONS}/"):
        return "measurements"
    return "card" if name == CARD or name.startswith(f"{FIGURES}/") else "other files"


def _results(before: Release, now: Release) -> Iterator[str]:
    """Yield a sentence for each kind of file of which some differ, other than recipe and lock."""
    counts: dict[str, Counter[str]] = {}
    for name in sorted((before.sums.keys() | now.sums.keys()) - {RECIPE, LOCK}):
        old, new = before.sums.get(name), now.sums.get(name)
        word = (
            "equal"
            if old == new
            else f"only in {FIRST}"
            if old is None
            else f"only in {SECOND}"
            if new is None
            else "different"
        )
        counts.setdefault(_kind(name), Counter())[word] += 1
    for kind, found in counts.items():
        if set(found) != {"equal"}:
            yield f"{kind}: {', '.join(f'{count} {word}' for word, count in sorted(found.items()))}"


def _measured(first: Release, second: Release) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    notes, sides = [], []
    for label, release in ((FIRST, first), (SECOND, second)):
        found = _measurement(release)
        if isinstance(found, str):
            notes.append(f"{label}: {found}")
        else:
            sides.append(found)
    if len(sides) < 2:
        return (), tuple(notes)
    ours, theirs = sides
    wanted = []
    for task, result in ours.tasks.items():
        if task not in theirs.tasks:
            notes.append(f"{task}: {SECOND} was not measured in it")
            continue
        places = [[(item.document, item.sha256) for item in side.samples.get(task, ())] for side in sides]
        metrics = main_metrics(result["metrics"].keys() & theirs.tasks[task]["metrics"].keys())
        if places[0] != places[1] or not metrics:
            notes.append(f"{task}: was not measured on the same documents and in the same metric")
        else:
            wanted += [Wanted(FIRST, SECOND, task, metric) for metric in metrics]
    return compare(wanted, {FIRST: ours, SECOND: theirs}), tuple(notes)


def _measurement(release: Release) -> Measured | str:
    """Return the measurement of the released model; or a sentence with the reason why none can be compared."""
    weights = {release.sums[name] for name in release.weights()}
    tasks: dict[str, Any] = {}
    samples: dict[str, list[Sample]] = {}
    for name in sorted(release.sums):
        if not name.startswith(f"{EVALUATIONS}/") or not name.endswith(".json"):
            continue
        with damaged(name):
            data = release.subject.json(name)
            if set(data["weights"].values()) != weights:
                continue
            if "samples" not in data:
                return "its measurement was made by a version that did not keep the results of documents"
            content = _samples(release, name.removesuffix(".json") + SAMPLES_SUFFIX)
            if content is None:
                return "its samples are not in the release (`release_samples`), and not in a build around it"
            tasks |= data["tasks"]
            samples |= unpack(content, data["samples"]["sha256"])
    return Measured(tasks, samples) if tasks else "its model was not measured"


def _samples(release: Release, name: str) -> bytes | None:
    """Return the samples of a measurement: of the release, or of the build in whose results folder it is."""
    if name in release.subject.files:
        return release.subject.read(name, limits.SAMPLES.size_bytes)
    if not isinstance(release.subject, FolderSubject):
        return None
    results = release.subject.folder.resolve().parent.parent
    beside = results / "evaluations" / name.rpartition("/")[2]
    return beside.read_bytes() if beside.is_file() else None
