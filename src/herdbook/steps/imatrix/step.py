"""The imatrix step: the importance matrix of the released model, from locked text or from a file of another program."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from herdbook import hub
from herdbook.errors import StepError
from herdbook.files import atomic_writer, write_json
from herdbook.lock import check_pinned
from herdbook.progress import say
from herdbook.steps.imatrix.fit import filled, fitted, named
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.steps.quantize.source import tensors_of
from herdbook.weights.imatrix import ImportanceMatrix, read_imatrix

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan import Imatrix, Plan

EXPERTS = "_exps."


def imatrix(plan: Plan, item: Imatrix, threads: int = 1) -> None:
    """Make the importance matrix of the released model, and its record.

    Args:
        plan: The plan; the released model's folder must exist.
        item: The matrix.
        threads: How many sequences, or blocks of an expert's input, are processed at the same time; it does not affect the
            result.

    Raises:
        LockError: If a text or a file changed since it was locked.
        SourceError: If a given matrix cannot be downloaded.
        StepError: If a text is too short, the model cannot read it, or too few tokens reached an expert.
        CheckpointError: If a tensor is missing or damaged, or a given matrix is damaged or that of another model.
    """
    matrix, experts, replaced = made(plan, item, plan.layout.folder(plan.released), threads)
    for line in described(experts):
        say(line)
    for name, numbers in replaced.items():
        say(f"imatrix: {name}: experts {', '.join(map(str, numbers))} take the mean of their layer")
    about = _write(plan.layout.matrix(item), matrix)
    write_json(
        plan.layout.matrix_record(item),
        {
            **item.about,
            "file": about,
            "chunks": matrix.chunks,
            "chunk_tokens": matrix.chunk_tokens,
            "tensors": sorted(matrix.inputs),
            "experts": experts,
            "filled": replaced,
        },
    )


def made(
    plan: Plan, item: Imatrix, folder: Path, threads: int
) -> tuple[ImportanceMatrix, dict[str, list[int]], dict[str, list[int]]]:
    """Return an importance matrix, the tokens that reached each expert of each layer, and the experts that were filled.

    Args:
        plan: The plan.
        item: The matrix.
        folder: The released model.
        threads: See ``imatrix``.
    """
    matrix = _given(plan, item) if item.given else _computed(plan, item, folder, threads)
    experts = _counts(matrix)
    if not matrix.counted:
        return matrix, experts, {}
    try:
        matrix, replaced = filled(matrix, item.floor, fill=item.fill)
    except StepError as error:
        raise StepError("\n".join([*described(experts), str(error)])) from error
    return matrix, experts, replaced


def _computed(plan: Plan, item: Imatrix, path: Path, threads: int) -> ImportanceMatrix:
    import torch

    from herdbook.inference.mixture import configuration_of
    from herdbook.inference.text import windows
    from herdbook.steps.imatrix.measure import measure

    torch.set_num_threads(1)
    config = configuration_of(path)
    sequences: list[list[int]] = []
    for name in item.texts:
        sequences += windows(plan, name, path, config, plan.recipe.calibration[name].windows)
    sums = measure(path, sequences, threads)
    layouts = tensors_of(read_folder(path))
    widths = {name: shape[-1] for name, shape in item.tensors.items()}
    return ImportanceMatrix(
        named(sums, layouts, widths), item.texts, len(sequences), max(len(each) for each in sequences)
    )


def _given(plan: Plan, item: Imatrix) -> ImportanceMatrix:
    assert item.given  # noqa: S101 - the caller has checked it
    if item.commit:
        remote = hub.RemoteFile(**item.given.model_dump())
        path = hub.download(item.commit.repo, item.commit.commit, remote)
        return fitted(read_imatrix(path), item.tensors, f"{item.commit.repo}: {item.given.name}")
    path = plan.beside_recipe(item.given.name)
    check_pinned(path, item.given, "quantize.imatrix")
    return fitted(read_imatrix(path), item.tensors, str(path))


def _counts(matrix: ImportanceMatrix) -> dict[str, list[int]]:
    """Return how many tokens reached each expert, by the tensor that stands for a layer's experts."""
    return {
        name: [int(count) for count in one.counts]
        for name, one in matrix.inputs.items()
        if f"ffn_down{EXPERTS}" in name and matrix.counted
    }


def described(experts: dict[str, list[int]]) -> list[str]:
    """Return, for each expert, the tokens that reached it, one line each; none for a model without experts."""
    if not experts:
        return []
    counts = np.asarray(list(experts.values()))
    return [
        f"imatrix: expert {place}: {column.sum():,} tokens over all layers, "
        f"{column.min():,} in layer {int(column.argmin())}, where they are fewest"
        for place, column in enumerate(counts.T, start=1)
    ]


def _write(path: Path, matrix: ImportanceMatrix) -> dict[str, Any]:
    sha256, size = hashlib.sha256(), 0
    with atomic_writer(path) as file:
        for piece in matrix.pieces():
            file.write(piece)
            sha256.update(piece)
            size += len(piece)
    return {"size_bytes": size, "sha256": sha256.hexdigest()}
