"""Which quantized files of a build take encoded tensors from which: what one file has encoded, no other one encodes again.

A tensor that two files of a model have in the same type, with the same importance matrix, has the same bytes in both. A file waits
for another one if it thereby saves a good part of the work, and if waiting does not make the ladder much slower where all files could
be made at the same time. What decides is the work, not the order in a recipe, so that there is no cycle. Neither keys nor records
depend on this, since the bytes do not; and a file copies from whatever else is finished when it is made.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.quantization.effort import is_costly, speed
from herdbook.quantization.tensor import ENDS
from herdbook.quantization.types import encoding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from herdbook.plan.quantize import Quantized
    from herdbook.quantization.tensor import Typed

# The least that waiting saves, of the work of the file that waits and of the one that it waits for.
SHARE = 0.1
# The latest that a file may be finished on as many machines as there are files, in times of the most work that one has.
STRETCH = 1.25
LONGEST = 2  # the most files that are made one after the other before a file


def effort(item: Quantized, tensor: Typed) -> float:
    """Return the work of encoding a tensor, in weights of Q4_K."""
    return tensor.parameters / speed(tensor.type, matrix=_weighed(item, tensor))


def siblings(files: Iterable[Quantized]) -> dict[str, tuple[Quantized, ...]]:
    """Return the files that each file waits for to copy encoded tensors, by its id: the one that saves it most comes first.

    Args:
        files: The quantized files of one model. Of those with a budget the types are not known, so that they wait for none, and none
            waits for them.
    """
    files = list(files)
    order = sorted((item for item in files if not item.budget), key=_rank)
    groups = _groups(order)
    work = [sum(effort(item, tensor) for tensor in item.tensors) for item in order]
    found: dict[str, tuple[Quantized, ...]] = {item.id: () for item in files}
    depth: list[int] = []
    finished: list[float] = []
    for place, item in enumerate(order):
        able = [other for other in range(place) if depth[other] < LONGEST]
        chosen = _chosen(groups, work, place, able)
        while chosen:
            ends = max(finished[other] for other in chosen) + work[place] - _held(groups, place, chosen)
            if ends <= STRETCH * max(work):
                break
            chosen.remove(max(chosen, key=lambda other: (finished[other], other)))
        begins = max((finished[other] for other in chosen), default=0.0)
        finished.append(begins + work[place] - _held(groups, place, chosen))
        depth.append(1 + max((depth[other] for other in chosen), default=-1))
        found[item.id] = tuple(order[other] for other in chosen)
    return found


def left_to_encode(item: Quantized, others: Iterable[Quantized]) -> list[Typed]:
    """Return the tensors of a file that none of the other ones has, so that it encodes them; all if its types are not known."""
    if item.budget:
        return list(item.tensors)
    held = {(one.name, _encoding(other, one)) for other in others for one in other.tensors}
    return [one for one in item.tensors if (one.name, _encoding(item, one)) not in held]


@dataclass(frozen=True)
class _Group:
    """Tensors that have the same encodings in all files.

    Args:
        encodings: What decides their bytes in each file.
        costly: The work of encoding them in each file; 0 if that takes hardly longer than copying.
    """

    encodings: tuple[tuple[str, str | None], ...]
    costly: tuple[float, ...]


def _groups(files: Sequence[Quantized]) -> list[_Group]:
    """Return the tensors of some files in groups, of which a model has few, however many layers it has."""
    members: Mapping[tuple[tuple[tuple[str, str | None], bool], ...], list[int]] = defaultdict(list)
    for place, tensors in enumerate(zip(*(item.tensors for item in files), strict=True)):
        pairs = list(zip(files, tensors, strict=True))
        members[tuple((_encoding(*pair), _weighed(*pair)) for pair in pairs)].append(place)
    groups = []
    for encodings, places in members.items():
        weights = sum(files[0].tensors[place].parameters for place in places)
        costs = (
            weights / speed(kind, matrix=weighed) if is_costly(kind, matrix=weighed) else 0.0
            for (kind, _), weighed in encodings
        )
        groups.append(_Group(tuple(encoding for encoding, _ in encodings), tuple(costs)))
    return groups


def _chosen(groups: Sequence[_Group], work: Sequence[float], place: int, able: Sequence[int]) -> list[int]:
    """Return those of some files that save one a good part of the work, beyond what those before them in the result do."""
    chosen: list[int] = []
    while left := [other for other in able if other not in chosen]:
        known = _held(groups, place, chosen)
        saved = {other: _held(groups, place, [*chosen, other]) - known for other in left}
        best = min(left, key=lambda other: (-saved[other], other))
        if saved[best] <= 0 or saved[best] < SHARE * max(work[place], work[best]):
            break
        chosen.append(best)
    return chosen


def _held(groups: Iterable[_Group], place: int, others: Collection[int]) -> float:
    """Return the work of a file that others spare it together."""
    return sum(
        group.costly[place]
        for group in groups
        if any(group.encodings[place] == group.encodings[other] for other in others)
    )


def _rank(item: Quantized) -> tuple[float, float, str]:
    """Return a file's place in the order in which files may wait for each other: those nearly of one type come first."""
    by_type: dict[str, float] = defaultdict(float)
    for tensor in item.tensors:
        by_type[tensor.type] += effort(item, tensor)
    whole = sum(by_type.values())
    return -max(by_type.values()) / whole, -whole, item.id


def _encoding(item: Quantized, tensor: Typed) -> tuple[str, str | None]:
    return encoding(tensor.type, item.imatrix.key if item.imatrix else None)


def _weighed(item: Quantized, tensor: Typed) -> bool:
    """Return whether an encoder is given weights of columns, which embeddings and output matrix do not have."""
    return item.imatrix is not None and tensor.name not in ENDS
