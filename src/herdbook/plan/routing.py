"""Planning the report on a mixture's routers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.key import SHORT, digest
from herdbook.plan.code import TOKENIZERS, Code
from herdbook.plan.laser import calibration_text
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from herdbook.lock import Lock
    from herdbook.plan.code import DescribedCode
    from herdbook.plan.model import Node
    from herdbook.recipe import Recipe

ROUTING_CODE = Code("routing", ("herdbook.steps.routing.step",), packages=TOKENIZERS)


@dataclass(frozen=True)
class RoutingReport:
    """The report on the routers of the released mixture.

    Args:
        node: The mixture.
        key: Digest that identifies it.
        texts: Names of the calibration texts that it reads.
        code: The code that the result depends on, as ``Code.describe`` returns it.
    """

    node: Node
    key: str
    texts: tuple[str, ...]
    code: DescribedCode

    @property
    def id(self) -> str:
        """Name of its file, without suffix."""
        return f"{self.node.name}-{self.key[:SHORT]}"

    @property
    def about(self) -> dict[str, Any]:
        """What the report states about the mixture and how it was made, as JSON."""
        assert isinstance(self.node.recipe, Moe)  # noqa: S101 - no other model has a report
        moe = self.node.recipe.moe
        return {
            "operation": "routing",
            "key": self.key,
            "model": self.node.key,
            "code": self.code.json,
            "experts": [expert.model for expert in moe.experts],
            "experts_per_token": moe.experts_per_token,
        }


def plan_report(recipe: Recipe, lock: Lock, node: Node) -> RoutingReport | None:
    """Return the report on the released model's routers; None if it is not a mixture."""
    if not isinstance(node.recipe, Moe):
        return None
    texts = tuple(recipe.routing.texts) if recipe.routing else ()
    code = ROUTING_CODE.describe()
    moe = node.recipe.moe
    parameters = {
        "texts": [calibration_text(name, recipe, lock).parameters for name in texts],
        "prompts": [[expert.prompts, expert.negative_prompts] for expert in moe.experts],
        "chat_template": moe.chat_template,
        "experts": [expert.model for expert in moe.experts],  # the report names them
    }
    key = digest({"operation": "routing", "model": node.key, **parameters, "code": code.json})
    return RoutingReport(node, key, texts, code)
