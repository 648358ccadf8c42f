"""Derive a sample of a release's GGUF files from its safetensors, both read by ranges.

Rows are drawn with a seed, so that anyone can repeat the draw. The types of the tensors are those of the plan; that the file
lists these is proven by the level `claims`.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from herdbook.architectures.gguf_tensors import derived, made_from
from herdbook.layout import IMATRIX
from herdbook.progress import track
from herdbook.release.reader import damaged
from herdbook.steps.quantize.derive import FLOAT32_NEAR
from herdbook.steps.quantize.encode import encode
from herdbook.steps.quantize.source import Weights
from herdbook.verify.ahead import in_order
from herdbook.verify.equality import chance_of_catching, draw
from herdbook.verify.gguf.compare import HeaderReader
from herdbook.verify.gguf_rows import WeightRows
from herdbook.weights.gguf_file import parse_gguf
from herdbook.weights.gguf_parts import join
from herdbook.weights.imatrix import read_imatrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Plan, Quantized
    from herdbook.release.finding import Check, Finding, Options
    from herdbook.release.reader import Release
    from herdbook.release.subject import Subject
    from herdbook.weights.gguf_file import GgufFile, TensorInfo
    from herdbook.weights.imatrix import ImportanceMatrix

PIECE_BYTES = 1 << 26


def sampled(
    plan: Plan, release: Release, model: Subject, item: Quantized, options: Options, check: Check
) -> Iterator[Finding]:
    """Compare rows of a GGUF with those that follow from released weights, which may be in another release.

    Args:
        plan: The plan of the release.
        release: The release, with the GGUF.
        model: Where the weights are.
        item: The GGUF.
        options: The options of the verification, with the size of the sample.
        check: The check that it belongs to.
    """
    assert options.sample_bytes is not None  # noqa: S101 - the caller has checked it
    subject, name = release.subject, item.file
    spans = {
        tensor: (shard, span)
        for shard in plan.released.shard_names
        for tensor, span in model.header(shard).items()
    }

    def read(tensor: str, start: int, stop: int) -> bytes:
        shard, span = spans[tensor]
        return model.read_range(shard, span.start + start, span.start + stop)

    with damaged(name):
        parts = made_from(plan.released.config, spans, plan.released.name)
        file = join([parse_gguf(HeaderReader(subject, part), Path(part)) for part in item.parts])
        tensors = [file.tensors[each] for each in item.types]
    weights = Weights(_matrix(release, item))
    rows = WeightRows(parts, {tensor: span for tensor, (_, span) in spans.items()}, read)
    blocks = draw([tensor.size_bytes for tensor in tensors], options.sample_bytes, options.seed)
    wrong: set[str] = set()
    size_bytes = 0
    compare = functools.partial(_equal, release, file, rows, weights, plan)
    with track(name, len(blocks)) as advance:
        for block, take in in_order(lambda one: compare(tensors[one.slice], one.start, one.stop), blocks):
            if not take():
                wrong.add(tensors[block.slice].name)
            size_bytes += block.stop - block.start
            advance()
    for tensor in sorted(wrong):
        detail = "has other bytes than follow from the released weights"
        yield check.failed(name, f"tensor {tensor} {detail}", file=name, tensor=tensor)
    touched = len({block.slice for block in blocks})
    chance = chance_of_catching(1, touched, len(tensors))
    if item.budget:
        yield check.unverified(
            name, "whether its types follow from errors is not checked in a sample (--sample all)", file=name
        )
    if not wrong:
        yield check.passed(
            name,
            f"a sample equals what follows from the released weights: {size_bytes:,} bytes of {touched} of {len(tensors)} "
            f"tensors, detection probability {chance:.4f} for one replaced tensor",
            file=name,
        )


def _matrix(release: Release, item: Quantized) -> ImportanceMatrix | None:
    """Return the released importance matrix that a file was quantized with, read as a whole."""
    if not item.imatrix:
        return None
    name = item.imatrix.file
    size = release.subject.files[name].size_bytes
    with tempfile.NamedTemporaryFile(suffix=IMATRIX) as file:
        for start in range(0, size, PIECE_BYTES):
            file.write(release.subject.read_range(name, start, min(size, start + PIECE_BYTES)))
        file.flush()
        return read_imatrix(Path(file.name))


def _equal(
    release: Release,
    file: GgufFile,
    rows: WeightRows,
    weights: Weights,
    plan: Plan,
    tensor: TensorInfo,
    start: int,
    stop: int,
) -> bool:
    """Return whether the rows that a range of a tensor's bytes lies in are those that follow."""
    first = start // tensor.row_bytes
    count = -(-stop // tensor.row_bytes) - first
    path, start = file.place(tensor)
    where = start + first * tensor.row_bytes
    data = release.subject.read_range(str(path), where, where + count * tensor.row_bytes)
    theirs = np.frombuffer(data, np.uint8).reshape(count, tensor.row_bytes)
    if not rows.parts[tensor.name].sources:
        ours = derived(plan.released.config, tensor.name)
        return bool(np.allclose(theirs.view("<f4"), ours, rtol=FLOAT32_NEAR, atol=0))
    part = rows.parts[tensor.name]
    per_source = tensor.rows // len(part.sources)
    values = rows.of(tensor, first, count)
    begin = first
    while begin < first + count:  # the rows of each expert have weights of their own
        number = begin // per_source
        end = min(first + count, (number + 1) * per_source)
        piece = slice(begin - first, end - first)
        of_columns = weights.of(part, part.sources[number])
        if not np.array_equal(
            encode(values[piece], tensor.type, None, tensor.name, of_columns), theirs[piece]
        ):
            return False
        begin = end
    return True
