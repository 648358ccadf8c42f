"""Sources that lead programs to code in a repository, which the release would carry on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def source(name: str, **settings: Any) -> Callable[[Path], Path]:
    """Return a maker of a source with further settings in one of its files."""

    def make(folder: Path) -> Path:
        path = tiny.write_model(folder / "base", seed=1) / name
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps(content | settings), encoding="utf-8")
        return tiny.write_recipe(folder / "recipe.yaml", {"base": {"folder": "base"}})

    return make


REFUSED = "folder: base: refused: its {} requires running its own code ({})"
CASES = [
    Case(
        "code named in the configuration",
        source("config.json", auto_map={"AutoModelForCausalLM": "model.Model"}),
        REFUSED.format("config.json", "auto_map"),
    ),
    Case(
        "code of another repository named in the tokenizer's configuration",
        source("tokenizer_config.json", auto_map={"AutoTokenizer": ["other/code--tokenizer.T", None]}),
        REFUSED.format("tokenizer_config.json", "auto_map"),
    ),
    Case(
        "code named in the generation config",
        source("generation_config.json", auto_map={"GenerationConfig": "generation.Config"}),
        REFUSED.format("generation_config.json", "auto_map"),
    ),
    *(
        Case(
            f"a kernel of a repository as `{key}`",
            source("config.json", **{key: value}),
            REFUSED.format("config.json", key),
        )
        for key, value in (
            ("attn_implementation", "other/kernel"),
            ("_attn_implementation", "other/kernel@main:attention"),
            ("experts_implementation", {"": "other/kernel"}),
        )
    ),
    Case(
        "a pipeline of its own",
        source("config.json", custom_pipelines={"text-generation": {"impl": "pipeline.P"}}),
        REFUSED.format("config.json", "custom_pipelines"),
    ),
]
