"""Which tensors have a row for each token: embeddings and heads, by the names that language models of transformers give them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# embed_tokens of Llama, Phi, OPT and most others; embed_in of GPT-NeoX; wte of GPT-2, GPT-J and MPT; word_embeddings of Falcon and
# BLOOM; tok_embeddings of InternLM; embeddings of Mamba.
_EMBEDDINGS = re.compile(
    r"^(?:[a-z_]+\.)*(?:embed_tokens|embed_in|wte|word_embeddings|tok_embeddings|embeddings)\.weight$"
)
_HEAD = re.compile(r"^(?:lm_head|embed_out|output|head)\.(?:weight|bias)$")
# Tables that are looked up by something else than a token's id, or may be: all but those of positions.
_TABLE = re.compile(r"embed(?!.*pos)", re.IGNORECASE)
MATRIX = 2  # dimensions


def is_embeddings(name: str) -> bool:
    """Return whether a tensor is the embeddings."""
    return bool(_EMBEDDINGS.match(name))


def is_per_token(name: str) -> bool:
    """Return whether a tensor has a row, or a number, for each token."""
    return bool(_EMBEDDINGS.match(name) or _HEAD.match(name))


def is_other_table(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor that is not one of those may have a row for each token as well."""
    return len(shape) == MATRIX and bool(_TABLE.search(name)) and not is_per_token(name)


def rows_of(form: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return how many rows a model's embeddings have, by the shape of each tensor; None if it has none of a known name, or several."""
    found = [shape[0] for name, shape in form.items() if is_embeddings(name)]
    return found[0] if len(found) == 1 else None
