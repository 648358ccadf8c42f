"""What a result must contain: what the other modules derive, and ``check`` compares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from herdbook.plan.code import Code

DEVICE = "device"  # named by the results of a GPU


@dataclass(frozen=True)
class Expected:
    """What a result must contain.

    Args:
        name: Its file.
        code: The code that wrote it.
        stated: The fields that follow from the plan, and their values.
        free: The fields that the step wrote besides, which this level does not derive.
        within: What else follows: pairs of what the result contains and what it should.
    """

    name: str
    code: Code
    stated: dict[str, Any]
    free: frozenset[str]
    within: list[tuple[Any, Any]] = field(default_factory=list)
