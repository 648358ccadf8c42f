"""What proves GGUF files and importance matrices."""

from __future__ import annotations

from herdbook.layout import IMATRIX
from herdbook.verify.fact import ASSERTED, TEXTS, Fact
from herdbook.verify.facts.concerns import quantizes, weighs
from herdbook.verify.gguf.table import (
    FROM_CONFIG,
    FROM_CONVERTER,
    FROM_RECIPE,
    FROM_TENSORS,
    FROM_TOKENIZER,
    ROWS,
)

GGUF = "*.gguf"
FACTS = (
    *(
        Fact(name, GGUF, tuple(row.key for row in ROWS if row.origin == origin), origin, level, quantizes)
        for name, origin, level in (
            ("settings in the headers of GGUF files", FROM_CONFIG, "claims"),
            ("tokens, special tokens and chat templates in the headers of GGUF files", FROM_TOKENIZER, "claims"),
            ("names, licenses and methods in the headers of GGUF files", FROM_RECIPE, "claims"),
            ("sizes in the headers of GGUF files", FROM_TENSORS, "claims"),
            ("how GGUF files split text, unless their tokenizer is of SentencePiece's kind", FROM_CONVERTER, "rebuild"),
        )
    ),
    Fact("names, shapes, types and order of the tensors in GGUF files", GGUF, (), "the released tensors, and the recipe's methods", "claims", quantizes),
    Fact("importance matrices, and how many tokens reached each expert", f"*{IMATRIX}", (), TEXTS, ASSERTED, weighs),
    Fact("bytes of the tensors in GGUF files", GGUF, ("tensors",), "the released weights", "recomputed", quantizes),
    Fact("the order of the entries in GGUF files, and the bytes between tensors", GGUF, (), FROM_CONVERTER, "rebuild", quantizes),
)  # fmt: skip
