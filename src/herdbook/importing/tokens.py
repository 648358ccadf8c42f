"""The tokenizer and the chat template of a merge, as the recipe writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.importing.references import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.importing.configuration import Tokenizer


def tokenizer_in_recipe(
    tokenizer: Tokenizer | None, template: str | None, name_of: Callable[[Reference], str]
) -> dict[str, Any]:
    """Return ``tokenizer`` of a merge.

    Args:
        tokenizer: mergekit's setting, or None.
        template: The chat template, or None.
        name_of: Returns a model's name in the recipe.
    """

    def named(source: Any) -> Any:
        if isinstance(source, Reference):
            return name_of(source)
        return {**source, "model": name_of(source["model"])} if "model" in source else source

    chosen = {"chat_template": template} if template else {}
    if tokenizer is None:
        return chosen
    source = tokenizer.source if isinstance(tokenizer.source, str) else name_of(tokenizer.source)
    tokens = {
        name: {
            **({"source": named(token.source)} if token.source is not None else {}),
            **({"force": True} if token.force else {}),
        }
        for name, token in tokenizer.tokens.items()
    }
    return {
        "source": source,
        **({"tokens": tokens} if tokens else {}),
        **({"pad_to_multiple_of": tokenizer.pad} if tokenizer.pad else {}),
        **chosen,
    }
