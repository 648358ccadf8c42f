"""The level `recomputed`: tensors that are not copies are recomputed from upstream, and the card from its own records.

Computed matrices (of LASER, adapters, merges) are sampled at random; all routers and the card are checked.
"""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from herdbook.comparison.compare import check_measured
from herdbook.comparison.samples import SamplesError
from herdbook.errors import HerdbookError, VerificationError
from herdbook.layout import CARD, EVALUATIONS, LINEAGE, LOSSES, RECORDS, ROUTING, SAMPLES_SUFFIX, SEARCHES
from herdbook.plan import Origin
from herdbook.plan.card import CARD_CODE, described
from herdbook.plan.edition import Edition
from herdbook.release.finding import Check
from herdbook.release.reader import caught, damaged
from herdbook.verify.equality import chance_of_catching, elsewhere
from herdbook.verify.rebuild.bounds import EPSILON, allowed, distance
from herdbook.verify.rebuild.budget import budgets
from herdbook.verify.rebuild.evidence import differing
from herdbook.verify.rebuild.gguf import quantized
from herdbook.verify.rebuild.imatrix import imatrix
from herdbook.verify.rebuild.reports import reports
from herdbook.verify.rebuild.routers import routers
from herdbook.verify.rebuild.tensors import ancestors, recompute, slices_of
from herdbook.verify.rebuild.tuned import searches
from herdbook.verify.rebuild.workspace import open_workspace
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from herdbook.plan import Plan
    from herdbook.plan.code import DescribedCode
    from herdbook.provenance.lineage import LineageSlice
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.verify.rebuild.workspace import Workspace

LEVEL = "recomputed"
CARDS = Check(LEVEL, "card")
COMPARED = Check(LEVEL, "compared")
SAMPLES = Check(LEVEL, "samples")
SEARCHED = Check(LEVEL, "search")
RANKS = Check(LEVEL, "rank")
MATRICES = Check(LEVEL, "made")
BUDGETS = Check(LEVEL, "budget")
EVIDENCE = Check(LEVEL, "evidence")
ROUTERS = Check(LEVEL, "routers")
GGUF = Check(LEVEL, "gguf")
IMATRIX = Check(LEVEL, "importance matrix")
REPORTS = Check(LEVEL, "results")


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Recompute what a step computed, and compare it with the release."""
    with open_workspace(release, options, LEVEL) as workspace:
        workspace.take_over(RECORDS, SEARCHES, EVALUATIONS, LOSSES, ROUTING)
        yield from caught(_card(workspace, release), CARDS, release)
        yield from caught(_samples(workspace), SAMPLES, release)
        yield from caught(searches(workspace.plan, SEARCHED), SEARCHED, release)
        if release.edition is Edition.GGUF:
            yield MATRICES.unverified(release.name, elsewhere(release))
            yield from caught(quantized(workspace, release, options, GGUF), GGUF, release)
            return
        yield from caught(_matrices(workspace, release, options), MATRICES, release)
        yield from caught(routers(workspace, release, options, ROUTERS), ROUTERS, release)
        yield from caught(imatrix(workspace, release, IMATRIX), IMATRIX, release)
        yield from caught(quantized(workspace, release, options, GGUF), GGUF, release)
        yield from caught(reports(workspace, release, REPORTS), REPORTS, release)


def _card(workspace: Workspace, release: Release) -> Iterator[Finding]:
    """Check that the card, its figures and its leaderboard ranks follow from records, measurements and snapshots."""
    from herdbook.steps.card.gathering import gather
    from herdbook.steps.card.step import card_texts

    workspace.code.require_installed(CARD_CODE.describe())
    with damaged("what the card is made from"):
        taken = workspace.recorded_comparisons()
        texts = card_texts(workspace.plan, taken)
    differing = 0
    for name, text in texts.items():
        released = release.subject.read(name).decode(errors="replace")
        if released == text:
            continue
        differing += 1
        line, expected, actual = _first_difference(text, released)
        detail = f"line {line} does not follow from the release's own records; check a card with custom templates where the templates are"
        about = {"file": name, "expected": expected, "found": actual}
        if workspace.code.is_of_another_version:  # its templates may differ
            yield CARDS.unverified(name, f"{detail}. {workspace.code.advice}", **about)
        else:
            yield CARDS.failed(name, detail, **about)
    if differing:
        return
    yield CARDS.passed(CARD, f"and {len(texts) - 1} figures follow from the release's own records")
    facts = gather(workspace.plan, taken)
    if facts.comparisons and taken is None:
        detail = "and their verdicts follow from the released samples, and so do the measured values"
        yield COMPARED.passed(f"{len(facts.comparisons)} comparisons", detail)
    for ranked in facts.ranks:
        standing = ranked.place
        detail = f"rank {standing.rank} of {standing.of} follows from the snapshot with SHA-256 {ranked.sha256} and the recorded score"
        yield RANKS.passed(ranked.key, detail)


def _samples(workspace: Workspace) -> Iterator[Finding]:
    """Check that measured values follow from the released samples."""
    from herdbook.steps.card.compared import read_measured

    plan = workspace.plan
    items = [item for item in plan.evaluations if plan.layout.samples(item).exists()]
    wrong = False
    for item in items:
        try:
            check_measured(item.label, read_measured(plan, item))
        except (SamplesError, HerdbookError, LookupError, TypeError, ArithmeticError) as error:
            wrong = True
            yield SAMPLES.failed(item.label, str(error), file=f"{EVALUATIONS}/{item.id}{SAMPLES_SUFFIX}")
    if items and not wrong:
        yield SAMPLES.passed(
            f"{len(items)} measurements", "follow from the released results of each document"
        )


def _first_difference(ours: str, theirs: str) -> tuple[int, str, str]:
    """Return the number of the first line that differs, and that line of both texts, shortened."""
    texts = ours.split("\n"), theirs.split("\n")
    for number in range(max(map(len, texts))):
        first, second = (text[number][:300] if number < len(text) else "no such line" for text in texts)
        if first != second:
            return number + 1, first, second
    return 0, "", ""


def _matrices(workspace: Workspace, release: Release, options: Options) -> Iterator[Finding]:
    """Recompute tensors of steps from upstream and compare them: bit by bit, else within the tolerance computed here."""
    with damaged(LINEAGE):
        targets = _targets(workspace.plan, release.lineage())
    _add_told(workspace.plan, targets)
    blocked = _blocked(workspace.plan)
    out_of_reach = Counter(blocked[origin.part] for origin in targets if origin.part in blocked)
    for (
        code,
        count,
    ) in out_of_reach.items():  # whatever the sample: a level that needs other code never passes
        try:
            workspace.code.require_installed(code)
        except VerificationError as error:
            yield MATRICES.error(f"{count} tensors", error)
    origins = [origin for origin in targets if origin.part not in blocked]
    sizes = [
        sum(slice_.end - slice_.begin for slice_ in targets[origin])
        or workspace.plan.nodes[workspace.plan.parts[origin.part].model].tensors[origin.tensor][1].size_bytes
        for origin in origins
    ]
    chosen = [origins[index] for index in draw_whole(sizes, options.sample_bytes, options.seed)]
    problems = recompute(workspace, release.records(), chosen)
    skipped = Counter(origin.part for origin in chosen if origin.part in problems)
    for part, count in skipped.items():
        yield MATRICES.error(f"{count} tensors of {workspace.plan.parts[part].id}", problems[part])
    for origin in chosen:
        if origin.part not in problems:
            for slice_ in targets[origin]:
                yield _compared(workspace, release, origin, slice_)
    made = [origin for origin in chosen if origin.part not in problems]
    yield from _evidence(workspace, release, made)
    yield from caught(budgets(workspace.plan, release, made, BUDGETS), BUDGETS, release)
    done = len(chosen) - skipped.total()
    if not targets:
        yield MATRICES.passed(
            "no tensor", "was computed by a step; see level equality, and the check of routers"
        )
    elif done:
        detail = f"{done} of {len(targets)} tensors computed by steps were recomputed"
        if done < len(origins):
            hundredth = max(1, len(origins) // 100)
            detail += (
                f" (seed {options.seed}). Detection probability: "
                f"{chance_of_catching(1, done, len(origins)):.4f} for one altered tensor"
                + (
                    f", {chance_of_catching(hundredth, done, len(origins)):.4f} for {hundredth}"
                    if hundredth > 1
                    else ""
                )
            )
        yield MATRICES.passed("sample" if done < len(origins) else "all", detail)


def _evidence(workspace: Workspace, release: Release, origins: Sequence[Origin]) -> Iterator[Finding]:
    """Compare the records' entries on the recomputed tensors, and on all that they are made from, with the results here."""
    plan, records = workspace.plan, release.records()
    wrong = count = 0
    for key, tensors in ancestors(plan, origins).items():
        ours = read_record(plan.layout.record(plan.parts[key]))["tensors"]
        for name in tensors:
            count += 1
            for place, expected, found in differing(ours[name], records[key]["tensors"][name]):
                wrong += 1
                yield EVIDENCE.failed(
                    plan.parts[key].id,
                    f"its record differs from the result here: {place}",
                    expected=expected,
                    found=found,
                    tensor=name,
                )
    if count and not wrong:
        yield EVIDENCE.passed(
            f"{count} tensors", "came out with the ranks, energies and spectra in the records"
        )


def _blocked(plan: Plan) -> dict[str, DescribedCode]:
    """Return the parts that cannot be recomputed, by key, each with the code that is not installed: its own or a parent's."""
    blocked: dict[str, DescribedCode] = {}
    for part in plan.parts.values():  # parents first
        if part.code.changed_modules:
            blocked[part.key] = part.code
        elif parent := next((key for key in part.parents if key in blocked), None):
            blocked[part.key] = blocked[parent]
    return blocked


def _targets(plan: Plan, lineage: list[LineageSlice]) -> dict[Origin, list[LineageSlice]]:
    """Return the computed tensors except routers, each with the slices of the release that it is claimed to be."""
    targets: dict[Origin, list[LineageSlice]] = {}
    for slice_ in lineage:
        if slice_.made is None or slice_.made.action in {"router", "zeros"}:
            continue
        node = plan.nodes[slice_.made.model]
        name = slice_.made.tensor if slice_.made.tensor in node.tensors else slice_.tensor
        part, _ = node.tensors[name]
        targets.setdefault(Origin(part.key, name), []).append(slice_)
    return targets


def _add_told(plan: Plan, targets: dict[Origin, list[LineageSlice]]) -> None:
    """Add the matrices that are on a card and not in the release: reduced ones of which it takes other parts."""
    known = ancestors(plan, targets)
    for node in described(plan):
        for part in node.parts:
            for tensor in part.tensors:
                if tensor.action == "laser" and tensor.name not in known.get(part.key, {}):
                    targets.setdefault(Origin(part.key, tensor.name), [])


def draw_whole(sizes: Sequence[int], sample_bytes: int | None, seed: int) -> list[int]:
    """Draw whole tensors at random up to a total size, at least one. Return their indices, sorted.

    Args:
        sizes: Size of each tensor in bytes.
        sample_bytes: The maximum total size; None for all tensors.
        seed: Seed of the draw.
    """
    order = list(range(len(sizes)))
    if sample_bytes is None:
        return order
    Random(seed).shuffle(order)  # noqa: S311 - anyone must be able to repeat the draw
    drawn: list[int] = []
    remaining = sample_bytes
    for index in order:
        remaining -= sizes[index]
        if drawn and remaining < 0:
            break
        drawn.append(index)
    return sorted(drawn)


def _compared(workspace: Workspace, release: Release, origin: Origin, slice_: LineageSlice) -> Finding:
    """Compare a slice of the release with the recomputed tensor."""
    plan = workspace.plan
    part = plan.parts[origin.part]
    record = read_record(plan.layout.record(part))["tensors"][origin.tensor]
    entry = dict(slices_of(record)).get(slice_.slice) or record
    about = {"file": slice_.file, "tensor": slice_.tensor, "source": f"{part.model}: {origin.tensor}"}
    called = slice_.slice or slice_.tensor
    if entry["sha256"] == slice_.sha256:
        return MATRICES.passed(called, f"{part.rule}: reproduced bit by bit", **about)
    assert slice_.made  # noqa: S101 - only such slices are compared
    about |= {"expected": entry["sha256"], "found": slice_.sha256}
    rank = slice_.made.parameters.get("rank"), record.get("rank")
    if part.rule == "laser" and rank[0] != rank[1]:
        return MATRICES.failed(called, f"laser keeps rank {rank[1]}, the release records {rank[0]}", **about)
    bound = allowed(plan, origin, slice_.slice, slice_.dtype)
    if slice_.dtype not in EPSILON:  # codes of numbers, which have no distance from each other
        if not bound:
            return MATRICES.failed(called, f"{part.rule}: other bits come out here", **about)
        detail = (
            f"{part.rule}: other bits come out here; its matrix was reduced, which comes out within a tolerance on other "
            "hardware: verify the release of full width"
        )
        return MATRICES.unverified(called, detail, **about)
    difference = distance(plan, release, origin, slice_)
    change = f"{part.rule}: differs by {difference:.1e} of its norm"
    if 0 < bound < math.inf and difference <= bound:
        return MATRICES.passed(called, f"{change}, within the tolerance ({bound:.1e})", **about)
    if bound == math.inf or (bound == 0 and workspace.changed):
        why = (
            "its rank cuts between equal singular values, so it is not unique"
            if bound
            else f"other versions made it: {', '.join(workspace.changed)}"
        )
        return MATRICES.unverified(called, f"{change}; {why}", **about)
    return MATRICES.failed(called, f"{change}; {bound:.1e} is allowed", **about)
