"""The level `recomputed`: what was made, not copied, is made again from upstream, and the card from its own records.

Matrices that were made (by LASER, adapters, merges) are a random sample; routers and the card are all looked at.
"""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

from herdbook.layout import CARD, EVALUATIONS, RECORDS, ROUTING, SEARCHES
from herdbook.plan import Origin
from herdbook.release.finding import Check
from herdbook.release.reader import caught
from herdbook.verify.equality import chance_of_catching
from herdbook.verify.rebuild.gguf import quantized
from herdbook.verify.rebuild.routers import routers
from herdbook.verify.rebuild.tensors import remake, slices_of
from herdbook.verify.rebuild.workspace import open_workspace
from herdbook.weights.checkpoint import read_header, read_record, read_span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from herdbook.plan import Plan
    from herdbook.provenance.lineage import Derived, LineageSlice
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.rebuild.workspace import Workspace

LEVEL = "recomputed"
CARDS = Check(LEVEL, "card")
RANKS = Check(LEVEL, "rank")
MATRICES = Check(LEVEL, "made")
ROUTERS = Check(LEVEL, "routers")
GGUF = Check(LEVEL, "gguf")
EPSILON = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24}  # unit roundoff


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Make again what was made."""
    with open_workspace(release, options, LEVEL) as workspace:
        workspace.take_over(RECORDS, SEARCHES, EVALUATIONS, ROUTING)
        yield from caught(_card(workspace, release), CARDS, release)
        yield from caught(_matrices(workspace, release, options), MATRICES, release)
        yield from caught(routers(workspace, release, options, ROUTERS), ROUTERS, release)
        yield from caught(quantized(workspace, release, options, GGUF), GGUF, release)


def _card(workspace: Workspace, release: Release) -> Iterator[Finding]:
    """The card and its figures, and the places in leaderboards on it, follow from records, measurements and snapshots."""
    from herdbook.steps.card.context import gather
    from herdbook.steps.card.step import card_texts

    ours = card_texts(workspace.plan)
    differing = 0
    for name, text in ours.items():
        found = release.subject.read(name).decode(errors="replace")
        if found == text:
            continue
        differing += 1
        line, expected, said = _first_difference(text, found)
        detail = f"line {line} is not what the release's own records give; a card by templates of one's own is checked where they are"
        about = {"file": name, "expected": expected, "found": said}
        cards = [one for one in workspace.changed if one.startswith("herdbook")]
        if cards:
            yield CARDS.unverified(name, f"{detail}; other code made it", **about)
        else:
            yield CARDS.failed(name, detail, **about)
    if differing:
        return
    yield CARDS.passed(CARD, f"and {len(ours) - 1} figures are what the release's own records give")
    for ranked in gather(workspace.plan).ranks:
        place = ranked.place
        detail = f"place {place.rank} of {place.of} follows from the snapshot with SHA-256 {ranked.sha256} and the recorded score"
        yield RANKS.passed(ranked.key, detail)


def _first_difference(one: str, other: str) -> tuple[int, str, str]:
    ours, theirs = one.split("\n"), other.split("\n")
    for number in range(max(len(ours), len(theirs))):
        first, second = (
            side[number][:300] if number < len(side) else "no such line" for side in (ours, theirs)
        )
        if first != second:
            return number + 1, first, second
    return 0, "", ""


def _matrices(workspace: Workspace, release: Release, options: Options) -> Iterator[Finding]:
    """Tensors that a step made are made again from upstream and compared: bit by bit, else within what is recorded."""
    made = _targets(workspace.plan, release.lineage())
    origins = list(made)
    sizes = [sum(one.end - one.begin for one in made[origin]) for origin in origins]
    chosen = [origins[place] for place in draw_whole(sizes, options.sample_bytes, options.seed)]
    problems = remake(workspace, release.records(), chosen)
    untouched = Counter(origin.part for origin in chosen if origin.part in problems)
    for part, count in untouched.items():
        yield MATRICES.error(f"{count} tensors of {workspace.plan.parts[part].id}", problems[part])
    for origin in chosen:
        if origin.part not in problems:
            for one in made[origin]:
                yield _compared(workspace, release, origin, one)
    done = len(chosen) - untouched.total()
    if not origins:
        yield MATRICES.passed(
            "no tensor", "was made by a step that computes; see levels equality and routers"
        )
    elif done:
        detail = f"{done} of {len(origins)} tensors that were made were made again"
        if done < len(origins):
            hundredth = max(1, len(origins) // 100)
            detail += (
                f" (seed {options.seed}). One that was altered is caught with probability "
                f"{chance_of_catching(1, done, len(origins)):.4f}, one of {hundredth} with "
                f"{chance_of_catching(hundredth, done, len(origins)):.4f}"
            )
        yield MATRICES.passed("sample" if done < len(origins) else "all", detail)


def _targets(plan: Plan, lineage: list[LineageSlice]) -> dict[Origin, list[LineageSlice]]:
    """Return the tensors that were computed, with the slices of the release that are said to be them; not routers."""
    found: dict[Origin, list[LineageSlice]] = {}
    for one in lineage:
        if one.made is None or one.made.action in {"router", "zeros"}:
            continue
        node = plan.nodes[one.made.model]
        name = one.made.tensor if one.made.tensor in node.tensors else one.tensor
        part, _ = node.tensors[name]
        found.setdefault(Origin(part.key, name), []).append(one)
    return found


def draw_whole(sizes: Sequence[int], sample_bytes: int | None, seed: int) -> list[int]:
    """Draw tensors at random, each as a whole, until they have a size; one at least. Return their places, sorted.

    Args:
        sizes: Size of each in bytes.
        sample_bytes: How many bytes at most; None for all.
        seed: Decides which.
    """
    order = list(range(len(sizes)))
    if sample_bytes is None:
        return order
    Random(seed).shuffle(order)  # noqa: S311 - to be drawn again by anybody
    drawn: list[int] = []
    left = sample_bytes
    for place in order:
        left -= sizes[place]
        if drawn and left < 0:
            break
        drawn.append(place)
    return sorted(drawn)


def _compared(workspace: Workspace, release: Release, origin: Origin, one: LineageSlice) -> Finding:
    """Compare a slice of the release with the tensor that was made again."""
    plan = workspace.plan
    part = plan.parts[origin.part]
    record = read_record(plan.layout.record(part))["tensors"][origin.tensor]
    entry = dict(slices_of(record)).get(one.slice) or record
    about = {"file": one.file, "tensor": one.tensor, "source": f"{part.model}: {origin.tensor}"}
    called = one.slice or one.tensor
    if entry["sha256"] == one.sha256:
        return MATRICES.passed(called, f"{part.rule}: the same bits again", **about)
    assert one.made  # noqa: S101 - only such are compared
    about |= {"expected": entry["sha256"], "found": one.sha256}
    rank = one.made.parameters.get("rank"), record.get("rank")
    if part.rule == "laser" and rank[0] != rank[1]:
        return MATRICES.failed(called, f"laser keeps rank {rank[1]}, the release says {rank[0]}", **about)
    bound = allowed(one.made, one.dtype)
    difference = _difference(workspace, release, origin, one)
    told = f"{part.rule}: differs by {difference:.1e} of its norm"
    if 0 < bound < math.inf and difference <= bound:
        return MATRICES.passed(called, f"{told}, within the recorded tolerance ({bound:.1e})", **about)
    if bound == math.inf or (bound == 0 and workspace.changed):
        why = (
            "no tolerance is recorded" if bound else f"other versions made it: {', '.join(workspace.changed)}"
        )
        return MATRICES.unverified(called, f"{told}; {why}", **about)
    return MATRICES.failed(called, f"{told}; at most {bound:.1e} is recorded as tolerance", **about)


def allowed(made: Derived, dtype: str) -> float:
    """Return how far a tensor may be from the same made elsewhere: a Frobenius norm over that of the tensor.

    Zero where only the same bits will do; infinite where a LASER among its ancestors has no tolerance on record.

    LASER's tolerance t is that of float64 before rounding to the dtype with unit roundoff u. An entry then comes out on
    the other side of a rounding boundary with a probability of about t / u, and moves by about u: in the root of
    the mean square sqrt(t u). Four times that, and t itself, are allowed.
    """
    total = 0.0
    pending = [made]
    while pending:
        one = pending.pop()
        if one.action == "laser":
            said = one.parameters.get("tolerance")
            total += float(said) if isinstance(said, int | float) else math.inf
        pending += [parent.made for parent in one.of if parent.made]
    return total + 4 * math.sqrt(total * EPSILON[dtype]) if total else 0.0


def _difference(workspace: Workspace, release: Release, origin: Origin, one: LineageSlice) -> float:
    """Return the Frobenius norm of the difference between ours and the release's, over that of ours."""
    from herdbook.steps.laser.reduce import relative_change
    from herdbook.weights.tensors import from_bytes

    path = workspace.plan.layout.shard(workspace.plan.parts[origin.part])
    span = read_header(path)[origin.tensor]
    data: Any = read_span(path, span)
    record = read_record(workspace.plan.layout.record(workspace.plan.parts[origin.part]))["tensors"][
        origin.tensor
    ]
    place = 0
    for name, entry in slices_of(record):
        size = math.prod(entry["shape"]) * (span.end - span.start) // max(1, math.prod(span.shape))
        if name == one.slice:
            data = data[place : place + size]
            break
        place += size
    shape = one.shape if len(one.shape) > 1 else (1, *one.shape)
    ours = from_bytes(data, one.dtype, shape, origin.tensor)
    theirs = from_bytes(
        bytearray(release.subject.read_range(one.file, one.begin, one.end)), one.dtype, shape, one.tensor
    )
    return relative_change(ours, theirs)
