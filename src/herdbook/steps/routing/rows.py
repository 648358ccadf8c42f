"""Problems of the rows of routers that can be seen in the weights."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from herdbook.architectures.mergekit import EQUAL_ROWS
from herdbook.humanize import ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUTER = re.compile(r"^(?:model\.)?layers\.(\d+)\.(?:block_sparse_moe|mlp)\.(?:gate|router)\.weight$")
NEARLY = 0.999  # cosine from which a router in bfloat16 cannot distinguish the directions of two rows
ZERO = 1e-6


@dataclass(frozen=True)
class Rows:
    """The rows of one layer's router.

    Args:
        layer: The layer.
        experts: Number of rows.
        zero: Experts whose row is zero.
        equal: Pairs of experts whose rows are equal (zero rows left out).
        parallel: Pairs of experts whose rows are not equal but have the same direction.
        cosine: The largest cosine between two rows; None if no two rows have a direction.
        shortest: Length of the shortest row.
        longest: Length of the longest row.
    """

    layer: int
    experts: int
    zero: tuple[int, ...]
    equal: tuple[tuple[int, int], ...]
    parallel: tuple[tuple[int, int], ...]
    cosine: float | None
    shortest: float
    longest: float

    @property
    def collapsed(self) -> bool:
        """Whether the router cannot choose whatever its input: all rows are zero, or all are equal."""
        return len(self.zero) == self.experts or len(self.equal) == self.experts * (self.experts - 1) // 2

    def describe(self) -> dict[str, Any]:
        """Return it as plain data; experts are counted from 1, as in all texts for people."""
        pairs = {key: [[a + 1, b + 1] for a, b in getattr(self, key)] for key in ("equal", "parallel")}
        return {
            **asdict(self),
            **pairs,
            "zero": [expert + 1 for expert in self.zero],
            "collapsed": self.collapsed,
        }


def look(layer: int, router: torch.Tensor) -> Rows:
    """Describe the rows of one router.

    Args:
        layer: Its layer.
        router: Shape ``(experts, hidden)``, any floating-point dtype.
    """
    rows = router.double()
    lengths = rows.norm(dim=1)
    count = rows.shape[0]
    zero = tuple(expert for expert in range(count) if lengths[expert] <= ZERO)
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count) if a not in zero and b not in zero]
    equal = tuple((a, b) for a, b in pairs if torch.equal(router[a], router[b]))
    cosines = {(a, b): float(rows[a] @ rows[b] / (lengths[a] * lengths[b])) for a, b in pairs}
    parallel = tuple(pair for pair, cosine in cosines.items() if cosine >= NEARLY and pair not in equal)
    return Rows(
        layer,
        count,
        zero,
        equal,
        parallel,
        max(cosines.values()) if cosines else None,
        float(lengths.min()),
        float(lengths.max()),
    )


def verdict(layers: Mapping[int, torch.Tensor]) -> list[str]:
    """Return the problems of a model's routers as sentences; none if they are sound.

    The sentences are part of reports on routers, and of cards.
    """
    routers = [look(layer, router) for layer, router in sorted(layers.items())]
    collapsed = [rows.layer for rows in routers if rows.collapsed]
    problems = []
    if collapsed:
        where = "every layer" if len(collapsed) == len(routers) else f"layers {ranges(collapsed)}"
        zero = all(len(rows.zero) == rows.experts for rows in routers if rows.collapsed)
        what = "zero" if zero else "equal"
        problems.append(
            f"In {where} all rows are {what}: the router cannot choose, and every token takes the experts that come first."
        )
        if len(collapsed) == len(routers):
            problems.append(
                f"mergekit made such routers from {EQUAL_ROWS[0]} to {EQUAL_ROWS[1]}, when it read every prompt "
                "as the beginning-of-sequence token alone. Rebuild the merge with another version."
            )
    others = [rows for rows in routers if not rows.collapsed]
    for what, key in (
        ("have a row of nothing", "zero"),
        ("have equal rows", "equal"),
        ("nearly have", "parallel"),
    ):
        affected: dict[tuple[Any, ...], list[int]] = {}
        for rows in others:
            for item in getattr(rows, key):
                affected.setdefault(item if isinstance(item, tuple) else (item,), []).append(rows.layer)
        for experts, layers_of in affected.items():
            names = " and ".join(str(expert + 1) for expert in experts)
            noun = "Expert" if len(experts) == 1 else "Experts"
            verb = (
                "has a row of nothing"
                if len(experts) == 1
                else what
                if key != "parallel"
                else "have nearly parallel rows"
            )
            problems.append(f"{noun} {names} {verb} in layers {ranges(layers_of)}.")
    first = next(iter(layers.values()), None)
    if (
        first is not None
        and len(layers) > 1
        and all(torch.equal(first, router) for router in layers.values())
    ):
        problems.append("All layers have the same router, as the gate cheap_embed makes it.")
    return problems
