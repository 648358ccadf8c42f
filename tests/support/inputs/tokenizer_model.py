"""Sources whose tokenizer transformers 5 would read as other tokens than its files define."""

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


def released(
    kind: str,
    *,
    mixture: bool = False,
    named: str | None = "LlamaTokenizer",
    about: bool = True,
    form: str = "tokenizer.model",
) -> Callable[[Path], Path]:
    """Return a maker of a released model of a type, or of a mixture of such models."""

    def make(folder: Path) -> Path:
        source = tiny.write_model(folder / "base", model_type=kind, vocab=512)
        buttercup.write_tokenizer(source, [f"{number} sires and dams" for number in range(2000)])
        (source / ({"tokenizer.json", "tokenizer.model"} - {form}).pop()).unlink()
        config = source / "tokenizer_config.json"
        config.write_text(json.dumps({"tokenizer_class": named} if named else {}), encoding="utf-8")
        if not about:
            config.unlink()
        models: dict[str, Any] = {"base": {"folder": "base"}}
        if mixture:
            experts = [{"model": "base"}, {"model": "base"}]
            models["mix"] = {"moe": {"base": "base", "gate": "random", "experts": experts}}
        return tiny.write_recipe(folder / "recipe.yaml", models)

    return make


def broken(folder: Path) -> Path:
    """Write a model whose tokenizer has a part of a kind that does not exist."""
    path = tiny.write_model(folder / "base") / "tokenizer.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"pre_tokenizer": {"type": "OfNextYear"}}))
    return tiny.write_recipe(folder / "recipe.yaml", {"base": {"folder": "base"}})


CASES = [
    Case("a Mistral with a `tokenizer.model` alone", released("mistral"), MESSAGE),
    Case("a mixture of Llamas with a `tokenizer.model` alone", released("llama", mixture=True), MESSAGE),
    Case(
        "a Llama with a `tokenizer.model` and no `tokenizer_config.json`",
        released("llama", about=False),
        MESSAGE,
    ),
    Case(
        "a Llama with a `tokenizer.model` alone, whose `tokenizer_config.json` names no class",
        released("llama", named=None),
        "models.base: transformers loads its tokenizer as TokenizersBackend, of model_type 'llama', and cuts 'The herd book",
    ),
    Case(
        "a Qwen2 with a `tokenizer.json` that is not of bytes",
        released("qwen2", form="tokenizer.json"),
        "models.base: transformers loads its tokenizer as Qwen2Tokenizer, of model_type 'qwen2', and cuts 'The herd book",
    ),
    Case(
        "a Llama whose `tokenizer_config.json` names the class of another tokenizer",
        released("llama", named="Qwen2Tokenizer", form="tokenizer.json"),
        "models.base: transformers loads its tokenizer as Qwen2Tokenizer, of model_type 'llama', and cuts 'The herd book",
    ),
    Case(
        "a `tokenizer.json` that the library does not read",
        broken,
        "models.base: transformers does not load its tokenizer or its config.json, of model_type 'llama': ",
    ),
]
