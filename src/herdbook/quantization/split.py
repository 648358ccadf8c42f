"""Splitting a file into parts, as llama.cpp's ``gguf-split --split-max-size`` does: which tensors are in which part, and names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.quantization.tensor import Typed

ALIGNMENT = 32


def runs(tensors: Iterable[Typed], most_bytes: int) -> tuple[tuple[str, ...], ...]:
    """Return the names of the tensors of each part: as many as fit, and at least one. Headers do not count.

    Args:
        tensors: All tensors, in the order of the file.
        most_bytes: The largest size of a part's tensors.
    """
    parts: list[list[str]] = [[]]
    size = 0
    for tensor in tensors:
        own = -(-tensor.size_bytes // ALIGNMENT) * ALIGNMENT
        size += own
        if size > most_bytes and parts[-1]:
            parts.append([])
            size = own
        parts[-1].append(tensor.name)
    return tuple(map(tuple, parts))


def part_names(file: str, count: int) -> tuple[str, ...]:
    """Return the names of a file's parts, by which llama.cpp finds the others when it loads the first."""
    stem = file.removesuffix(".gguf")
    return tuple(f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1))
