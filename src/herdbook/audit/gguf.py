"""Compare GGUF files of a published model with its full-width weights, by ranges of both.

Rows are drawn at random, encoded from the full-width weights by ggml's reference quantizers, and compared with the file's
bytes. These may differ because of an importance matrix or another machine's rounding. The file's rows are then decoded, and
their distance from the weights must be at most ``FACTOR`` times that of the reference.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libgguf
import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize

from herdbook.architectures.gguf_tensors import layout
from herdbook.audit.configuration import MAX_EXPERTS
from herdbook.audit.level import LEVEL, UNPROVEN
from herdbook.errors import HerdbookError, StepError, VerificationError
from herdbook.progress import track
from herdbook.release.finding import Check
from herdbook.steps.quantize.encode import FULL_WIDTH, encode
from herdbook.verify.ahead import in_order
from herdbook.verify.equality import BLOCK_BYTES, chance_of_catching, draw
from herdbook.verify.gguf.compare import ABSENT, HeaderReader, compare, lines_of
from herdbook.verify.gguf.model import Model as HeaderModel
from herdbook.verify.gguf.table import FROM_CONFIG, tokenizer_entries
from herdbook.verify.gguf_rows import WeightRows
from herdbook.weights.gguf_file import parse_gguf
from herdbook.weights.gguf_header import Listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from herdbook.architectures.gguf_tensors import TensorLayout
    from herdbook.audit.model import Model
    from herdbook.release.finding import Finding, Options
    from herdbook.release.subject import Subject
    from herdbook.weights.gguf_file import GgufFile, TensorInfo
    from herdbook.weights.gguf_header import Value

GGUF = Check(LEVEL, "gguf")
SUFFIX = ".gguf"
SPLIT = re.compile(r"(.+)-\d{5}-of-\d{5}\.gguf")
MAX_ROW_BYTES = 1 << 26
MAX_FILES = 100
# What damaged headers and files of models lead to.
DAMAGE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, struct.error)
MAX_KEYS = 20  # of a header that are named
# Largest accepted distance of rows from the weights (root mean square), relative to the distance of the reference's rows.
# An importance matrix trades errors between columns: with weights from 1 to 1000 it costs up to 1.4 (docs/audit.md).
FACTOR = 2.0


@dataclass
class Rows:
    """The comparison of a file's tensors so far.

    Args:
        equal: Names of tensors whose compared rows are all equal to the reference's bytes.
        near: Largest distance from the weights, relative to the reference's, of tensors that are near but not equal.
        wrong: The problem of each other tensor.
        unread: Why tensors could not be compared.
        size_bytes: The number of bytes compared.
    """

    equal: set[str] = field(default_factory=set)
    near: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0


def check(subject: Subject, merge: Model, options: Options) -> Iterator[Finding]:
    """Compare all GGUF files of a repository or folder with a model; the sample's size applies to each file."""
    names = sorted(name for name in subject.files if name.endswith(SUFFIX))
    for name in names[MAX_FILES:]:
        yield GGUF.unverified(
            name, f"was not read: the repository has more than {MAX_FILES} GGUF files", file=name
        )
    parts: dict[str, TensorLayout] | None = None
    tensors_of: dict[str, set[str]] = {}
    tokenizer = cache(partial(tokenizer_entries, merge.config, merge.subject.files, merge.subject.read))
    for name in names[:MAX_FILES]:
        try:
            parts = parts or _parts(merge)
            file = parse_gguf(HeaderReader(subject, name), Path(name))
            split = SPLIT.fullmatch(name)
            tensors_of.setdefault(split[1] if split else name, set()).update(file.tensors)
            yield from _File(subject, name, file, merge, parts, None if split else tokenizer).check(options)
        except (HerdbookError, OSError) as error:
            yield GGUF.error(name, error, file=name)
        except DAMAGE as error:
            yield GGUF.failed(name, f"its header or the model's configuration is damaged: {error}", file=name)
    for name, tensors in tensors_of.items():
        needed = {part.name for part in (parts or {}).values() if part.required}
        if missing := sorted(needed - tensors):
            yield GGUF.failed(name, f"lacks {len(missing)} tensors of the model, such as {missing[0]}")


def _parts(merge: Model) -> dict[str, TensorLayout]:
    """Return the tensors that a GGUF of a model has. Raises as ``layout``; VerificationError for an absurd number of experts."""
    experts = merge.config.get("num_local_experts") or 0
    if merge.layers and (type(experts) is not int or not 0 <= experts <= MAX_EXPERTS):
        raise VerificationError(f"{merge.subject.name}: config.json declares {str(experts)[:40]} experts")
    return layout(merge.config, merge.subject.name)


class _File:
    def __init__(
        self,
        subject: Subject,
        name: str,
        file: GgufFile,
        merge: Model,
        parts: Mapping[str, TensorLayout],
        tokenizer: Callable[[], Mapping[str, Value] | None] | None,
    ) -> None:
        self.subject, self.name, self.file, self.merge, self.parts = subject, name, file, merge, parts
        self.rows = WeightRows(parts, merge.pieces, merge.read)
        self.tokenizer = (
            tokenizer  # None for a part of a split file, whose header does not belong to the model
        )

    def check(self, options: Options) -> Iterator[Finding]:
        if self.tokenizer:
            try:
                yield from self._header(HeaderModel(self.merge.config, self.tokenizer()))
            except (HerdbookError, *DAMAGE) as error:
                detail = f"{self.name}: its header is not proven: {error or type(error).__name__}"
                yield UNPROVEN.unverified("header", detail, file=self.name)
        comparison = Rows()
        tensors = [tensor for tensor in self.file.tensors.values() if self._fits(tensor, comparison)]
        sizes = [tensor.size_bytes for tensor in tensors]
        # even the whole file is read in blocks as small as a sample's, since decoded rows are many times larger
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
        yield from self._findings(comparison, sum(sizes), len(tensors), options)

    def _header(self, model: HeaderModel) -> Iterator[Finding]:
        """Yield the settings that differ from config.json, and which other entries are not proven."""
        tensors = tuple(
            Listed(one.name, one.shape, one.type, one.start) for one in self.file.tensors.values()
        )
        compared = compare(replace(model, tensors=tensors), self.file.metadata)
        other = []
        for one in compared.different:
            if one.origin == FROM_CONFIG:
                about = {"file": self.name, "expected": one.expected, "found": one.found}
                yield GGUF.failed(self.name, lines_of(one), **about)
            elif one.found != ABSENT:
                other.append(one.key)
        for keys, why in (
            (other, "differ from what llama.cpp's converter makes of the model's own files"),
            (compared.unknown, "do not follow from the model's own files"),
        ):
            if keys:
                listed = ", ".join(sorted(keys)[:MAX_KEYS]) + (" and others" if len(keys) > MAX_KEYS else "")
                detail = f"{self.name}: {len(keys)} entries of its header {why}: {listed}."
                yield UNPROVEN.unverified("header", detail, file=self.name)

    def _note(self, comparison: Rows, tensor: str, distance: float) -> None:
        if distance > FACTOR:
            comparison.wrong[tensor] = (
                f"is {distance:.3g} times as far from the weights as its type explains: it was made from other weights"
            )
        elif distance:
            comparison.near[tensor] = max(distance, comparison.near.get(tensor, 0.0))
        else:
            comparison.equal.add(tensor)

    def _fits(self, tensor: TensorInfo, comparison: Rows) -> bool:
        """Return whether a tensor can be compared: it belongs to the model and has the right shape."""
        part = self.parts.get(tensor.name)
        if part is None:
            comparison.wrong[tensor.name] = "the model has no such tensor"
            return False
        if not part.sources:
            comparison.unread[tensor.name] = "it follows from config.json"
            return False
        if tensor.row_bytes > MAX_ROW_BYTES:
            comparison.unread[tensor.name] = f"its rows have {tensor.row_bytes} bytes"
            return False
        pieces = [self.merge.pieces.get(source) for source in part.sources]
        shapes = {piece.shape for piece in pieces if piece}
        if None in pieces or len(shapes) != 1:
            comparison.wrong[tensor.name] = "the full-width model lacks the tensors that it is made from"
            return False
        shape = shapes.pop()
        expected = (len(pieces), *shape) if part.stacked else shape[1:] if part.is_row else shape
        if tensor.shape != expected or (part.heads and shape[0] % (2 * part.heads)):
            comparison.wrong[tensor.name] = f"its shape is {list(tensor.shape)}, expected {list(expected)}"
            return False
        return True

    def _compare(self, tensor: TensorInfo, start: int, stop: int) -> float:
        """Compare the rows that a range of bytes lies in.

        Returns:
            The distance of the file's rows from the weights, relative to the reference's distance: 0 for equal bytes,
            infinite if only equal bytes are possible.
        """
        first = start // tensor.row_bytes
        rows = -(-stop // tensor.row_bytes) - first
        where = tensor.start + first * tensor.row_bytes
        data = self.subject.read_range(self.name, where, where + rows * tensor.row_bytes)
        theirs = np.frombuffer(data, np.uint8).reshape(rows, tensor.row_bytes)
        weights = self.rows.of(tensor, first, rows)
        ours = _encoded(weights, tensor.type, tensor.name)
        if np.array_equal(ours, theirs):
            return 0.0
        if tensor.type in FULL_WIDTH:
            return np.inf
        decoded, reference = _decoded(theirs, tensor), _decoded(ours, tensor)
        apart, least = (float(np.sqrt(np.mean((values - weights) ** 2))) for values in (decoded, reference))
        if not np.isfinite(apart):
            return np.inf
        return max(apart / least, 1e-9) if least else np.inf

    def _findings(self, comparison: Rows, size_bytes: int, count: int, options: Options) -> Iterator[Finding]:
        for tensor, problem in list(comparison.wrong.items())[:20]:
            yield GGUF.failed(self.name, problem, file=self.name, tensor=tensor)
        if len(comparison.wrong) > 20:
            yield GGUF.failed(
                self.name, f"{len(comparison.wrong) - 20} more tensors are wrong", file=self.name
            )
        if comparison.unread:
            tensor, problem = next(iter(comparison.unread.items()))
            detail = f"{len(comparison.unread)} tensors could not be compared; the first: {problem}"
            yield GGUF.unverified(self.name, detail, file=self.name, tensor=tensor)
        known = {*comparison.wrong, *comparison.unread}
        near = {name: distance for name, distance in comparison.near.items() if name not in known}
        equal = comparison.equal - set(near) - known
        kinds = sorted({tensor.type.name for tensor in self.file.tensors.values()})
        extent = f"{comparison.size_bytes:,} of {size_bytes:,} bytes compared"
        if options.sample_bytes is not None and count:
            touched = len({*comparison.equal, *comparison.near})
            extent += (
                f", detection probability {chance_of_catching(1, touched, count):.4f} for one replaced tensor"
            )
        if equal:
            detail = f"{len(equal)} tensors equal those made from the full-width weights, byte by byte ({', '.join(kinds)}; {extent})"
            yield GGUF.passed(self.name, detail, file=self.name)
        if near:
            farthest = max(near.values())
            yield GGUF.passed(
                self.name,
                f"{len(near)} tensors are at most {farthest:.2f} times as far from the weights as the reference's ({extent})",
                file=self.name,
            )
            detail = (
                f"{self.name}: {len(near)} tensors, such as {min(near)}, are near the full-width weights but differ from the "
                "reference's bytes: made with an importance matrix, by another version or machine, or from weights that differ by "
                "less than the rounding. The bytes do not show which."
            )
            yield UNPROVEN.unverified("quantized weights", detail, file=self.name)


def _encoded(weights: NDArray[np.float32], kind: Any, what: str) -> NDArray[np.uint8]:
    """Return rows as the reference encodes them; types that need an importance matrix get the rows' own squares."""
    if kind not in FULL_WIDTH and libgguf.quantize_requires_imatrix(kind):
        return np.asarray(libgguf.quantize_rows(weights, int(kind))).view(np.uint8)
    try:
        return encode(weights, kind, None, what)
    except (ValueError, RuntimeError) as error:
        raise StepError(f"{what}: rows of type {_name(kind)} cannot be encoded: {error}") from error


def _decoded(rows: NDArray[np.uint8], tensor: TensorInfo) -> NDArray[np.float32]:
    try:
        with np.errstate(all="ignore"):
            return np.asarray(dequantize(rows, tensor.type), np.float32).reshape(len(rows), tensor.width)
    except NotImplementedError as error:
        raise StepError(f"{tensor.name}: rows of type {_name(tensor.type)} cannot be decoded") from error


def _name(kind: Any) -> str:
    return str(GGMLQuantizationType(kind).name)
