"""Which quantized files of a build take encoded tensors from which: what one file has encoded, no other one encodes again.

A tensor that two files of a model have in the same type, with the same importance matrix, has the same bytes in both. A file waits
for another one if it thereby saves a good part of the work; what decides is the work, not the order in a recipe, so that there
is no cycle, and whoever waits, waits for few. Neither keys nor records depend on this, since the bytes do not.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.quantization.effort import is_costly, speed
from herdbook.quantization.mixture import ENDS
from herdbook.quantization.types import encoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from herdbook.plan.quantize import Quantized
    from herdbook.quantization.mixture import Typed

# The least that waiting saves, of the work of the file that waits and of the one that it waits for: on a cluster, both would
# otherwise be made at the same time.
SHARE = 0.1
LONGEST = 2  # the most files that are made one after the other before a file


def effort(item: Quantized, tensor: Typed) -> float:
    """Return the work of encoding a tensor, in weights of Q4_K."""
    return tensor.parameters / speed(tensor.type, matrix=_weighed(item, tensor))


def siblings(files: Iterable[Quantized]) -> dict[str, tuple[Quantized, ...]]:
    """Return the files that each file takes encoded tensors from, by its id: the one that saves it most comes first.

    Args:
        files: The quantized files of one model. Of those with a budget the types are not known, so that they are waited for by
            none, and wait as if they had those that are planned for them.
    """
    order = sorted(files, key=_rank)
    groups = _groups(order)
    work = [sum(group.costly[place] for group in groups) for place in range(len(order))]
    depth: list[int] = []
    found = {}
    for place, item in enumerate(order):
        able = [other for other in range(place) if depth[other] < LONGEST and not order[other].budget]
        chosen: list[int] = []
        while left := [other for other in able if other not in chosen]:
            saved = {other: _saved(groups, place, other, chosen) for other in left}
            best = min(left, key=lambda other: (-saved[other], other))
            if not saved[best] or saved[best] < SHARE * max(work[place], work[best]):
                break
            chosen.append(best)
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


def _saved(groups: Iterable[_Group], place: int, other: int, chosen: Sequence[int]) -> float:
    """Return the work that one file saves another one, beyond what those that are chosen already save it."""
    return sum(
        group.costly[place]
        for group in groups
        if group.encodings[place] == group.encodings[other]
        and all(group.encodings[place] != group.encodings[one] for one in chosen)
    )


def _rank(item: Quantized) -> tuple[bool, float, float, str]:
    """Return a file's place in the order in which files may wait for each other: those nearly of one type come first."""
    by_type: dict[str, float] = defaultdict(float)
    for tensor in item.tensors:
        by_type[tensor.type] += effort(item, tensor)
    whole = sum(by_type.values())
    return bool(item.budget), -max(by_type.values()) / whole, -whole, item.id


def _encoding(item: Quantized, tensor: Typed) -> tuple[str, str | None]:
    return encoding(tensor.type, item.imatrix.key if item.imatrix else None)


def _weighed(item: Quantized, tensor: Typed) -> bool:
    """Return whether an encoder is given weights of columns, which embeddings and output matrix do not have."""
    return item.imatrix is not None and tensor.name not in ENDS
