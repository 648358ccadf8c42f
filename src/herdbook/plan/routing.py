"""Planning the report on a mixture's routers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from herdbook.key import SHORT, digest
from herdbook.plan.code import Code
from herdbook.plan.layerwise import FLOAT32, LOGITS
from herdbook.plan.model import TORCH_BYTES
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from herdbook.lock import Lock
    from herdbook.plan.model import Node
    from herdbook.recipe import Recipe

ROUTING_CODE = Code(
    ("herdbook.steps.routing.step",), packages=("tokenizers",)
)  # transformers tokenizes with it
ROWS = 512  # as ``herdbook.inference.mixture`` passes through an expert together
PROMPT_TOKENS = 512  # a guess for what all prompts together have


@dataclass(frozen=True)
class Report:
    """The report on the routers of the released mixture.

    Args:
        node: The mixture.
        key: Digest that says what it is.
        texts: Kinds of text that it reads.
        data_bytes: What its weights and texts take in memory, estimated.
        thread_bytes: What each further thread adds: a window's logits, or some rows of what an expert sees.
        code: What the result depends on beyond its inputs.
    """

    node: Node
    key: str
    texts: tuple[str, ...]
    data_bytes: int
    thread_bytes: int
    code: dict[str, str] = field(hash=False)

    @property
    def memory_bytes(self) -> int:
        """Memory that the job needs with one thread."""
        return TORCH_BYTES + self.data_bytes

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
    drawn: list[dict[str, Any]] = [
        {
            "name": name,
            "data": [file.sha256 for file in lock.calibration[name].data],
            **recipe.calibration[name].model_dump(mode="json", exclude={"data"}),
        }
        for name in texts
    ]
    moe = node.recipe.moe
    prompts = [[expert.prompts, expert.negative_prompts] for expert in moe.experts]
    asked = {"texts": drawn, "prompts": prompts, "chat_template": moe.chat_template}
    key = digest({"operation": "routing", "model": node.key, **asked, "code": code})
    config = node.config
    tokens = PROMPT_TOKENS + sum(text["windows"] * text["tokens"] for text in drawn)
    layer = 8 * config["hidden_size"] ** 2 + 3 * config["hidden_size"] * config["intermediate_size"]
    # streams before and after, what the MLPs see and give; an expert's activations; logits of a window
    held = tokens * (5 * config["hidden_size"] + 2 * config["intermediate_size"])
    longest = max((text["tokens"] for text in drawn), default=0)
    head = config["vocab_size"] * (config["hidden_size"] + longest)
    data = FLOAT32 * (2 * layer + held + 2 * head)
    thread = FLOAT32 * max(LOGITS * longest * config["vocab_size"], 3 * ROWS * config["intermediate_size"])
    return Report(node, key, texts, data, thread, code)
