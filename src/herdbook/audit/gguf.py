"""GGUF files of a published model against its full-width weights, by ranges of both.

Rows are drawn, encoded again from the full width by ggml's reference quantizers, and compared with the file's bytes. Where
those differ, an importance matrix may have weighed the errors, or another machine rounded: then the file's rows are
decoded, and must lie as near to the weights as the reference's do, but for a factor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libgguf
import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize

from herdbook.audit.configuration import MAX_EXPERTS
from herdbook.audit.level import LEVEL, UNPROVEN
from herdbook.errors import CheckpointError, HerdbookError, StepError, UnverifiedError, VerificationError
from herdbook.progress import track
from herdbook.release.finding import Check
from herdbook.steps.quantize.derive import DIFFERS, compare_metadata
from herdbook.steps.quantize.encode import FULL_WIDTH, decode_full_width, encode
from herdbook.steps.quantize.gguf_file import parse_gguf
from herdbook.steps.quantize.layout import layout, row_order
from herdbook.steps.quantize.model_folder import DTYPES
from herdbook.verify.ahead import in_order
from herdbook.verify.equality import BLOCK_BYTES, chance_of_catching, draw
from herdbook.weights.checkpoint import MAX_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from herdbook.audit.model import Model
    from herdbook.release.finding import Finding, Options
    from herdbook.release.subject import Subject
    from herdbook.steps.quantize.gguf_file import GgufFile, TensorInfo
    from herdbook.steps.quantize.layout import TensorLayout

GGUF = Check(LEVEL, "gguf")
SUFFIX = ".gguf"
SPLIT = re.compile(r"(.+)-\d{5}-of-\d{5}\.gguf")
WINDOW_BYTES = 1 << 20
MAX_ROW_BYTES = 1 << 26
MAX_FILES = 100
# How many times as far from the weights as the reference's rows (root mean square) rows may be that were quantized otherwise.
# An importance matrix trades errors between columns: with weights from 1 to 1000 it costs up to 1.4 (docs/audit.md).
FACTOR = 2.0


class HeaderReader:
    """The beginning of a file, read as it is looked at, up to the size that a header may have."""

    def __init__(self, subject: Subject, name: str) -> None:
        self.subject, self.name = subject, name
        self.size = subject.files[name].size_bytes
        self.head = b""

    def __len__(self) -> int:
        """Return the file's size."""
        return self.size

    def __getitem__(self, where: slice) -> bytes:
        """Return a piece of the header. Raises CheckpointError where no header reaches."""
        if where.stop > MAX_HEADER_BYTES:
            raise CheckpointError(f"{self.name}: its header claims more than {MAX_HEADER_BYTES} bytes")
        if where.stop > len(self.head):
            stop = min(self.size, max(where.stop, 2 * len(self.head), WINDOW_BYTES))
            self.head += self.subject.read_range(self.name, len(self.head), stop)
        return self.head[where]


@dataclass
class Comparison:
    """What was comparison of a file's tensors.

    Args:
        equal: Names of tensors all of whose rows that were read are the reference's bytes.
        near: Of those that are not, but near: how far they are at most, by the reference's distance.
        wrong: What is wrong with the others.
        unread: What kept tensors from being compared.
        size_bytes: How much of the file was compared.
    """

    equal: set[str] = field(default_factory=set)
    near: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0


def check(subject: Subject, merge: Model, options: Options) -> Iterator[Finding]:
    """Compare all GGUF files of a repository or folder with a model, each within the sample's size."""
    names = sorted(name for name in subject.files if name.endswith(SUFFIX))
    for name in names[MAX_FILES:]:
        yield GGUF.unverified(name, f"is one of more than {MAX_FILES} files", file=name)
    parts: dict[str, TensorLayout] | None = None
    held: dict[str, set[str]] = {}
    for name in names[:MAX_FILES]:
        try:
            parts = parts or _parts(merge)
            file = parse_gguf(HeaderReader(subject, name), Path(name))
            split = SPLIT.fullmatch(name)
            held.setdefault(split[1] if split else name, set()).update(file.tensors)
            yield from _File(subject, name, file, merge, parts, bool(split)).check(options)
        except (HerdbookError, OSError) as error:
            yield GGUF.error(name, error, file=name)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            yield GGUF.failed(name, f"its header or the model's configuration is damaged: {error}", file=name)
    for name, tensors in held.items():
        needed = {one.name for one in (parts or {}).values() if one.required}
        if missing := sorted(needed - tensors):
            yield GGUF.failed(name, f"lacks {len(missing)} tensors of the model, such as {missing[0]}")


def _parts(merge: Model) -> dict[str, TensorLayout]:
    """Return the parts that a GGUF of a model has. Raises as ``layout``, also where a number is one of no model."""
    experts = merge.config.get("num_local_experts") or 0
    if merge.layers and (type(experts) is not int or not 0 <= experts <= MAX_EXPERTS):
        raise VerificationError(f"{merge.subject.name}: config.json names {str(experts)[:40]} experts")
    return layout(merge.config, merge.subject.name)


class _File:
    def __init__(
        self,
        subject: Subject,
        name: str,
        file: GgufFile,
        merge: Model,
        parts: Mapping[str, TensorLayout],
        split: bool,
    ) -> None:
        self.subject, self.name, self.file, self.merge, self.parts = subject, name, file, merge, parts
        self.split = split

    def check(self, options: Options) -> Iterator[Finding]:
        if not self.split:
            for entry in compare_metadata(self.file, self.merge.config):
                if entry["verdict"] == DIFFERS:
                    found, expected = str(entry["found"]), str(entry["expected"])
                    detail = f"{entry['key']} is not what config.json says"
                    yield GGUF.failed(self.name, detail, file=self.name, expected=expected, found=found)
        comparison = Comparison()
        tensors = [tensor for tensor in self.file.tensors.values() if self._fits(tensor, comparison)]
        sizes = [tensor.size_bytes for tensor in tensors]
        # blocks as small as a sample's for all of it, too: decoded rows are many times as large
        every = sum(-(-size // BLOCK_BYTES) for size in sizes) * BLOCK_BYTES
        sample = every if options.sample_bytes is None else options.sample_bytes
        blocks = draw(sizes, sample, options.seed) if tensors else []
        with track(self.name, len(blocks)) as advance:
            for block, take in in_order(
                lambda block: self._compare(tensors[block.slice], block.start, block.stop), blocks
            ):
                tensor = tensors[block.slice].name
                try:
                    distance = take()
                except (HerdbookError, OSError) as error:
                    comparison.unread.setdefault(tensor, str(error))
                else:
                    comparison.size_bytes += block.stop - block.start
                    self._note(comparison, tensor, distance)
                advance()
        yield from self._told(comparison, sum(sizes), len(tensors), options)

    def _note(self, comparison: Comparison, tensor: str, distance: float) -> None:
        if distance > FACTOR:
            comparison.wrong[tensor] = (
                f"is {distance:.3g} times as far from the weights as its type makes it: it is of other weights"
            )
        elif distance:
            comparison.near[tensor] = max(distance, comparison.near.get(tensor, 0.0))
        else:
            comparison.equal.add(tensor)

    def _fits(self, tensor: TensorInfo, comparison: Comparison) -> bool:
        """Return whether a tensor can be compared: its place in the model, and its shape."""
        part = self.parts.get(tensor.name)
        if part is None:
            comparison.wrong[tensor.name] = "the model has no such tensor"
            return False
        if tensor.row_bytes > MAX_ROW_BYTES:
            comparison.unread[tensor.name] = f"its rows have {tensor.row_bytes} bytes"
            return False
        pieces = [self.merge.pieces.get(source) for source in part.sources]
        shapes = {piece.shape for piece in pieces if piece}
        if None in pieces or len(shapes) != 1:
            comparison.wrong[tensor.name] = "the full-width model lacks what it is made of"
            return False
        shape = shapes.pop()
        expected = (len(pieces), *shape) if part.stacked else shape
        if tensor.shape != expected or (part.heads and shape[0] % (2 * part.heads)):
            comparison.wrong[tensor.name] = f"its shape is {list(tensor.shape)}, {list(expected)} expected"
            return False
        return True

    def _compare(self, tensor: TensorInfo, start: int, stop: int) -> float:
        """Compare the rows that a range of bytes lies in.

        Returns:
            How far the file's rows are from the weights, by the reference's distance: 0 if they are its bytes, infinite
            if no bytes but those are possible.
        """
        first = start // tensor.row_bytes
        rows = -(-stop // tensor.row_bytes) - first
        where = tensor.start + first * tensor.row_bytes
        data = self.subject.read_range(self.name, where, where + rows * tensor.row_bytes)
        theirs = np.frombuffer(data, np.uint8).reshape(rows, tensor.row_bytes)
        weights = self._weights(tensor, first, rows)
        ours = _encoded(weights, tensor.type, tensor.name)
        if np.array_equal(ours, theirs):
            return 0.0
        if tensor.type in FULL_WIDTH:
            return np.inf
        decoded, reference = _decoded(theirs, tensor), _decoded(ours, tensor)
        apart, least = (float(np.sqrt(np.mean((one - weights) ** 2))) for one in (decoded, reference))
        if not np.isfinite(apart):
            return np.inf
        return max(apart / least, 1e-9) if least else np.inf

    def _weights(self, tensor: TensorInfo, first: int, count: int) -> NDArray[np.float32]:
        """Return rows of a GGUF's tensor at full width, ``(count, width)``, from whichever tensors they are of."""
        part = self.parts[tensor.name]
        each = tensor.rows // len(part.sources)
        found = np.empty((count, tensor.width), np.float32)
        at = first
        while at < first + count:
            source, row = part.sources[at // each], at % each
            rows = min(first + count - at, each - row)
            if len(tensor.shape) == 1:
                found[:] = self._vector(part)
            else:
                found[at - first : at - first + rows] = self._rows(source, part, row, rows)
            at += rows
        return found

    def _vector(self, part: TensorLayout) -> NDArray[np.float32]:
        name = part.sources[0]
        vector = self._read(name, 0, self.merge.pieces[name].shape[0], 1)[:, 0]
        return vector[row_order(len(vector), part.heads)]

    def _rows(self, name: str, part: TensorLayout, first: int, count: int) -> NDArray[np.float32]:
        """Return rows of a matrix in the GGUF's order; what lies together is read together."""
        height, width = self.merge.pieces[name].shape
        if not part.heads:
            return self._read(name, first, count, width)
        wanted = row_order(height, part.heads)[first : first + count]
        ordered = np.sort(wanted)
        found = np.empty((count, width), np.float32)
        for run in np.split(ordered, np.nonzero(np.diff(ordered) != 1)[0] + 1):
            rows = self._read(name, int(run[0]), len(run), width)
            for row, values in zip(run, rows, strict=True):
                found[np.nonzero(wanted == row)[0]] = values
        return found

    def _read(self, name: str, first: int, count: int, width: int) -> NDArray[np.float32]:
        piece = self.merge.pieces[name]
        if piece.dtype not in DTYPES:
            raise UnverifiedError(
                f"{piece.tensor}: a GGUF is made of floating-point numbers, not of {piece.dtype}"
            )
        row = width * piece.item_bytes
        data = self.merge.read(name, first * row, (first + count) * row)
        return decode_full_width(np.frombuffer(data, np.uint8).reshape(count, row), DTYPES[piece.dtype])

    def _told(
        self, comparison: Comparison, size_bytes: int, count: int, options: Options
    ) -> Iterator[Finding]:
        for tensor, problem in list(comparison.wrong.items())[:20]:
            yield GGUF.failed(self.name, problem, file=self.name, tensor=tensor)
        if len(comparison.wrong) > 20:
            yield GGUF.failed(
                self.name, f"{len(comparison.wrong) - 20} more tensors are wrong", file=self.name
            )
        if comparison.unread:
            tensor, problem = next(iter(comparison.unread.items()))
            detail = f"{len(comparison.unread)} tensors could not be compared, such as this: {problem}"
            yield GGUF.unverified(self.name, detail, file=self.name, tensor=tensor)
        known = {*comparison.wrong, *comparison.unread}
        near = {name: far for name, far in comparison.near.items() if name not in known}
        equal = comparison.equal - set(near) - known
        kinds = sorted({tensor.type.name for tensor in self.file.tensors.values()})
        read = f"{comparison.size_bytes:,} of {size_bytes:,} bytes compared"
        if options.sample_bytes is not None and count:
            touched = len({*comparison.equal, *comparison.near})
            read += f", so one tensor that was replaced is caught with probability {chance_of_catching(1, touched, count):.4f}"
        if equal:
            detail = f"{len(equal)} tensors are what the full-width weights give, byte by byte ({', '.join(kinds)}; {read})"
            yield GGUF.passed(self.name, detail, file=self.name)
        if near:
            farthest = max(near.values())
            yield GGUF.passed(
                self.name,
                f"{len(near)} tensors are no other than {farthest:.2f} times as far from the weights as the reference's ({read})",
                file=self.name,
            )
            detail = (
                f"{self.name}: {len(near)} tensors, such as {min(near)}, are near to the full-width weights but are not the "
                "reference's bytes: made with an importance matrix, another version or machine, or of weights that differ by less "
                "than the rounding. Which, cannot be told."
            )
            yield UNPROVEN.unverified("quantized weights", detail, file=self.name)


def _encoded(weights: NDArray[np.float32], kind: Any, what: str) -> NDArray[np.uint8]:
    """Return rows as the reference encodes them; a type that needs an importance matrix gets the rows' own squares."""
    if kind not in FULL_WIDTH and libgguf.quantize_requires_imatrix(kind):
        return np.asarray(libgguf.quantize_rows(weights, int(kind))).view(np.uint8)
    try:
        return encode(weights, kind, None, what)
    except (ValueError, RuntimeError) as error:
        raise StepError(f"{what}: rows of type {_name(kind)} cannot be made here: {error}") from error


def _decoded(rows: NDArray[np.uint8], tensor: TensorInfo) -> NDArray[np.float32]:
    try:
        with np.errstate(all="ignore"):
            return np.asarray(dequantize(rows, tensor.type), np.float32).reshape(len(rows), tensor.width)
    except NotImplementedError as error:
        raise StepError(f"{tensor.name}: rows of type {_name(tensor.type)} cannot be decoded here") from error


def _name(kind: Any) -> str:
    return str(GGMLQuantizationType(kind).name)
