"""What a file of the release is for, in a sentence."""

from __future__ import annotations

FULL_WIDTH = "Full width: for transformers and vLLM, for further merging, and for making other quantizations."


def use(method: str) -> str:
    """Return one sentence on when to take a file quantized by ``method``.

    The sentences belong to ``herdbook.quantize.methods``; a method that is not known there gets a neutral one.
    """
    from herdbook.quantize.methods import METHODS

    return METHODS[method].use if method in METHODS else "For llama.cpp and the programs built on it."
