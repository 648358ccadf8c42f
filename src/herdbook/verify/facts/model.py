"""What proves the released model: weights, configuration and tokenizer."""

from __future__ import annotations

from herdbook.layout import CONFIG, GENERATION_CONFIG, WEIGHTS_INDEX
from herdbook.recipe import Hub, Moe
from herdbook.sources.select import PROCESSOR_FILES, TOKENIZER_FILES
from herdbook.verify.fact import RERUN, Fact
from herdbook.verify.facts.concerns import has

WEIGHTS = "*.safetensors"
FACTS = (
    Fact("configuration and index", CONFIG, (), "recipe and lock", "claims"),
    Fact("configuration and index", WEIGHTS_INDEX, (), "recipe and lock", "claims"),
    *(
        Fact("tokenizer, chat template, generation config", name, (), "the lock", "claims")
        for name in (*TOKENIZER_FILES, *PROCESSOR_FILES, GENERATION_CONFIG)
    ),
    Fact("headers of weights", WEIGHTS, ("header",), "the plan of recipe and lock", "claims"),
    Fact("copied tensors", WEIGHTS, ("copy", "fetch", "stack", "rows"), "the sources' bytes", "equality"),
    Fact("zeros", WEIGHTS, ("zeros",), "the plan of recipe and lock", "claims", has(Moe)),
    Fact(
        "computed tensors",
        WEIGHTS,
        ("laser", "adapter", "merge", "alter", "cast", "router", "compress"),
        f"{RERUN}; all routers",
        "recomputed",
        lambda recipe: not all(isinstance(model, Hub) for model in recipe.models.values()),
    ),
)  # fmt: skip
