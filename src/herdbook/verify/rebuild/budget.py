"""Budgets of rank: the ranks that a search spread add up to the budget, and each follows from its matrix's spectrum.

A budget keeps the largest shares of energy of all matrices, so a rank follows from one number, the level, and the matrix
alone. The sum of the ranks and the level thus prove the choice as far as matrices were recomputed, without the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.layout import SEARCHES
from herdbook.plan.operation import ReduceAsSearched
from herdbook.release.reader import damaged
from herdbook.steps.inputs import ParentShards
from herdbook.verify.rebuild.evidence import RELATIVE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from herdbook.plan import Origin, Plan, Search
    from herdbook.recipe import RankRule
    from herdbook.release.finding import Check, Finding
    from herdbook.release.reader import Release


def budgets(plan: Plan, release: Release, recomputed: Sequence[Origin], check: Check) -> Iterator[Finding]:
    """Check the budgets that searches spread over matrices.

    Args:
        plan: The plan, in whose results tensors were recomputed.
        release: The release.
        recomputed: These tensors.
        check: The check that the findings belong to.
    """
    for search in plan.searches.values():
        rules = [rule for rule in search.ranks if rule.spreads is not None]
        if not rules:
            continue
        name = f"{SEARCHES}/{search.id}.json"
        with damaged(name):
            result: Any = release.subject.json(name)
            wrong = list(_wrong(plan, search, rules, result, _recomputed(plan, search, recomputed)))
        for tensor, detail, expected, found in wrong:
            yield check.failed(search.id, detail, expected=expected, found=found, tensor=tensor)
        if not wrong:
            yield check.passed(
                search.id, "its ranks add up to the budget, and follow from the recomputed spectra"
            )


def _wrong(
    plan: Plan,
    search: Search,
    rules: Sequence[RankRule],
    result: Mapping[str, Any],
    spectra: Mapping[str, np.ndarray],
) -> Iterator[tuple[str | None, str, str, str]]:
    """Yield what is wrong with a search's budgets: tensor, detail, expected, found."""
    from herdbook.steps.laser.budget import energy_shares, total_rank

    form = plan.nodes[search.parent].form
    names = sorted(search.matrices)
    if search.select:
        names = sorted(entry["tensor"] for entry in result["ranking"][: search.select.count])
    recorded = result["budgets"]
    if [entry["rule"] for entry in recorded] != [rule.canonical for rule in rules]:
        yield None, "has spread other budgets", str([rule.canonical for rule in rules]), str(recorded)
        return
    for rule, entry in zip(rules, recorded, strict=True):
        ranks, level = entry["ranks"], float(entry["level"])
        total = total_rank([min(form[name]) for name in names], rule.spreads or 0.0)
        if sorted(ranks) != names or sum(ranks.values()) != total:
            yield None, "its ranks do not add up to the budget", str(total), str(sum(ranks.values()))
        if search.guard is None and result["chosen"] != {
            name: rule.at(ranks[name]).canonical for name in ranks
        }:
            yield None, "has chosen other ranks than the budget gives", str(ranks), str(result["chosen"])
        for name in () if rule.needs_text else sorted(spectra.keys() & ranks.keys()):
            shares, rank = energy_shares(spectra[name])[1:], ranks[name]
            least = 1 + int((shares > level * (1 + RELATIVE)).sum())
            most = 1 + int((shares >= level * (1 - RELATIVE)).sum())
            if not least <= rank <= most:
                expected = str(least) if least == most else f"{least} to {most}"
                yield name, f"its rank does not follow from the level {level:g}", expected, str(rank)


def _recomputed(plan: Plan, search: Search, origins: Sequence[Origin]) -> dict[str, np.ndarray]:
    """Return the singular values of the matrices of a search that were recomputed; their decompositions are stored."""
    from herdbook.steps.laser.store import DecompositionStore
    from herdbook.weights.tensors import from_bytes

    parents, store = ParentShards(plan), DecompositionStore(plan.layout.decompositions)
    spectra = {}
    for origin in origins:
        part = plan.parts[origin.part]
        if not isinstance(part.operation, ReduceAsSearched) or part.operation.search != search.key:
            continue
        tensor = next(tensor for tensor in part.tensors if tensor.name == origin.tensor)
        (source,) = tensor.origins
        matrix = from_bytes(parents.read(source), tensor.dtype, tensor.shape, source.tensor)
        spectra[origin.tensor] = store.values(matrix, parents.shard(source.part).sha256(source.tensor))
    return spectra
