"""Sources whose only tokenizer is a `tokenizer.model` that transformers 5 would read as other tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support import buttercup, tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MESSAGE = (
    "models.base: has a tokenizer.model without tokenizer.json, which transformers 5 reads as other tokens"
)


def released(kind: str, *, mixture: bool = False, about: bool = True) -> Callable[[Path], Path]:
    """Return a maker of a released model of a type, or of a mixture of such models."""

    def make(folder: Path) -> Path:
        source = tiny.write_model(folder / "base", model_type=kind, vocab=512)
        buttercup.write_tokenizer(source, [f"{number} sires and dams" for number in range(2000)])
        (source / "tokenizer.json").unlink()
        config = source / "tokenizer_config.json"
        config.write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}), encoding="utf-8")
        if not about:
            config.unlink()
        models: dict[str, Any] = {"base": {"folder": "base"}}
        if mixture:
            experts = [{"model": "base"}, {"model": "base"}]
            models["mix"] = {"moe": {"base": "base", "gate": "random", "experts": experts}}
        return tiny.write_recipe(folder / "recipe.yaml", models)

    return make


CASES = [
    Case("a Mistral with a `tokenizer.model` alone", released("mistral"), MESSAGE),
    Case("a mixture of Llamas with a `tokenizer.model` alone", released("llama", mixture=True), MESSAGE),
    Case(
        "a Llama with a `tokenizer.model` and no `tokenizer_config.json`",
        released("llama", about=False),
        MESSAGE,
    ),
]
