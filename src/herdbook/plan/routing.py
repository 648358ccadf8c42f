"""Planning the report on a mixture's routers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from herdbook.key import SHORT, digest
from herdbook.plan.code import Code
from herdbook.plan.laser import calibration_text
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from herdbook.lock import Lock
    from herdbook.plan.model import Node
    from herdbook.recipe import Recipe

ROUTING_CODE = Code(
    ("herdbook.steps.routing.step",), packages=("tokenizers",)
)  # transformers tokenizes with it


@dataclass(frozen=True)
class Report:
    """The report on the routers of the released mixture.

    Args:
        node: The mixture.
        key: Digest that says what it is.
        texts: Kinds of text that it reads.
        code: What the result depends on beyond its inputs.
    """

    node: Node
    key: str
    texts: tuple[str, ...]
    code: dict[str, str] = field(hash=False)

    @property
    def id(self) -> str:
        """Name of its file, without suffix."""
        return f"{self.node.name}-{self.key[:SHORT]}"


def plan_report(recipe: Recipe, lock: Lock, node: Node) -> Report | None:
    """Return the report on the released model's routers; None if it is no mixture."""
    if not isinstance(node.recipe, Moe):
        return None
    texts = tuple(recipe.routing.texts) if recipe.routing else ()
    code = ROUTING_CODE.describe()
    drawn = [calibration_text(name, recipe, lock).parameters for name in texts]
    moe = node.recipe.moe
    prompts = [[expert.prompts, expert.negative_prompts] for expert in moe.experts]
    asked = {"texts": drawn, "prompts": prompts, "chat_template": moe.chat_template}
    key = digest({"operation": "routing", "model": node.key, **asked, "code": code})
    return Report(node, key, texts, code)
