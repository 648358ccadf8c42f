"""Compare the weights of a merge with those of the models that it names, byte by byte, by range requests.

A block that differs is also compared with the same block of every other named model: this distinguishes experts in another
order from experts that were changed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from herdbook.architectures.dense import layer_of, matrix_of
from herdbook.audit.level import LEVEL
from herdbook.errors import CheckpointError, HerdbookError, UnverifiedError
from herdbook.humanize import ranges
from herdbook.progress import track
from herdbook.release.finding import Check, Outcome, outcome_of
from herdbook.steps.moe.cast import cast
from herdbook.steps.moe.perturb import perturb
from herdbook.verify.ahead import in_order
from herdbook.verify.equality import Block, detection_probability, draw, whole
from herdbook.weights.dtypes import DTYPE_CODES
from herdbook.weights.tensors import from_bytes, to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.audit.configuration import Configuration
    from herdbook.audit.expected_tensors import ExpectedTensor
    from herdbook.audit.model import Model, TensorSlice
    from herdbook.release.finding import Finding, Options

EQUAL = Check(LEVEL, "equal")
DTYPE = Check(LEVEL, "dtype")
SAMPLED = Check(LEVEL, "sample")
NAMES = {code: name for name, code in DTYPE_CODES.items()}


@dataclass
class PartComparison:
    """The comparison so far of an expert, or of another part that comes from one model.

    Args:
        source: The model that the configuration names.
        others: Other named models that every differing block is equal to.
        equal: The number of blocks that are equal to the source's.
        differing: The number of differing blocks by tensor.
        tensors: Names of tensors with at least one compared block.
        size_bytes: The number of bytes compared.
        errors: Why blocks could not be compared.
    """

    source: str
    others: set[str]
    equal: int = 0
    differing: Counter[str] = field(default_factory=Counter)
    tensors: set[str] = field(default_factory=set)
    size_bytes: int = 0
    errors: list[Exception] = field(default_factory=list)


class WeightsComparison:
    """The comparison of a merge with its sources.

    Args:
        configuration: The merge's configuration.
        merge: The merge.
        sources: The sources that can be read, by reference.
        expected: The origin of each tensor, by canonical name.
    """

    def __init__(
        self,
        configuration: Configuration,
        merge: Model,
        sources: Mapping[str, Model],
        expected: Mapping[str, ExpectedTensor],
    ) -> None:
        self.configuration, self.merge, self.sources = configuration, merge, sources
        self.expected = {
            name: tensor
            for name, tensor in expected.items()
            if name in merge.pieces and tensor.source in sources and not tensor.noisy
        }
        self.noisy = sorted({tensor.part for tensor in expected.values() if tensor.noisy})
        self.parts: dict[str, PartComparison] = {}
        for tensor in self.expected.values():
            others = {
                other
                for other, model in sources.items()
                if model.subject.name != sources[tensor.source].subject.name
            }
            self.parts.setdefault(tensor.part, PartComparison(tensor.source, others))

    def check(self, options: Options) -> Iterator[Finding]:
        """Compare the weights, and yield a finding for each part."""
        yield from self._dtypes()
        names = list(self.expected)
        sizes = [self.merge.pieces[name].size_bytes for name in names]
        sample = options.sample_bytes
        blocks = list(whole(sizes) if sample is None else draw(sizes, sample, options.seed)) if names else []
        with track("compare", len(blocks)) as advance:
            for block, take in in_order(lambda block: self._compare(names[block.slice], block), blocks):
                name = names[block.slice]
                part = self.parts[self.expected[name].part]
                try:
                    equal, others = take()
                except (HerdbookError, OSError) as error:
                    part.errors.append(error)
                else:
                    part.tensors.add(name)
                    part.size_bytes += block.stop - block.start
                    if equal:
                        part.equal += 1
                    else:
                        part.differing[name] += 1
                        part.others = part.others & others  # not in place: threads may be reading the old set
                advance()
        for label, part in self.parts.items():
            yield from self._findings(label, part)
        yield self._summary(names, sizes, options)

    def _compare(self, name: str, block: Block) -> tuple[bool, set[str]]:
        """Return whether a block equals its source's; if not, also the other named models that it equals."""
        tensor, piece = self.expected[name], self.merge.pieces[name]
        ours = self.merge.read(name, block.start, block.stop)
        if not tensor.tensor:
            return not any(ours), set()
        if ours == self._expected_block(tensor, tensor.source, piece, block):
            return True, set()
        return False, {
            other
            for other in sorted(self.parts[tensor.part].others)
            if ours == self._expected_block(tensor, other, piece, block)
        }

    def _expected_block(
        self, tensor: ExpectedTensor, source: str, piece: TensorSlice, block: Block
    ) -> bytes | None:
        """Return the block that the merge must have if it is from a source; None if that has no such tensor or shape."""
        model = self.sources[source]
        theirs = model.pieces.get(tensor.tensor)
        if theirs is None or theirs.shape != piece.shape:
            return None
        start, stop = (edge // piece.item_bytes * theirs.item_bytes for edge in (block.start, block.stop))
        data = model.read(tensor.tensor, start, stop)
        shape = ((stop - start) // theirs.item_bytes,)
        label = f"{source}: {tensor.tensor}"
        try:
            if tensor.scale is not None:
                data = to_bytes(
                    perturb(from_bytes(data, theirs.dtype, shape, label), label, 0, None, tensor.scale)
                )
            return (
                data if theirs.dtype == piece.dtype else cast(data, theirs.dtype, shape, piece.dtype, label)
            )
        except CheckpointError as error:
            raise UnverifiedError(str(error)) from error

    def _dtypes(self) -> Iterator[Finding]:
        """Yield a finding for each pair of different dtypes: whether the configuration explains it."""
        base = self.sources.get(self.configuration.base or "")
        base_dtype = base.config.get("dtype") or base.config.get("torch_dtype") if base else None
        requested = self.configuration.dtype or DTYPE_CODES.get(str(base_dtype))
        pairs: dict[tuple[str, str], set[str]] = defaultdict(set)
        for name, tensor in self.expected.items():
            theirs = self.sources[tensor.source].pieces.get(tensor.tensor)
            if theirs and theirs.dtype != self.merge.pieces[name].dtype:
                pairs[theirs.dtype, self.merge.pieces[name].dtype].add(tensor.source)
        for (theirs_dtype, ours_dtype), sources in sorted(pairs.items()):
            change = f"{NAMES.get(theirs_dtype, theirs_dtype)} of {', '.join(sorted(sources))} is {NAMES.get(ours_dtype, ours_dtype)} here"
            if ours_dtype == requested:
                why = (
                    f"`dtype: {NAMES[requested]}` requests it"
                    if self.configuration.dtype
                    else f"the base is {NAMES[requested]}"
                )
                yield DTYPE.passed(change, f"because {why}; compared after the same rounding")
            else:
                request = f"it requests {NAMES[requested]}" if requested else "it requests no dtype"
                yield DTYPE.failed(change, f"is not explained by the configuration: {request}")

    def _findings(self, label: str, part: PartComparison) -> Iterator[Finding]:
        source = self.sources[part.source].subject.name
        if part.errors:
            count = len(part.errors)
            wrong = [error for error in part.errors if outcome_of(error) is Outcome.FAILED]
            detail = f"{count} blocks could not be compared: {(wrong or part.errors)[0]}"
            finding = EQUAL.failed if wrong else EQUAL.unverified
            yield finding(label, detail, source=source)
        blocks = part.equal + part.differing.total()
        if not blocks:
            if not part.errors:
                yield EQUAL.unverified(label, "none of its blocks is in the sample", source=source)
            return
        if not part.differing:
            extent = f"{blocks} blocks of {len(part.tensors)} tensors, {part.size_bytes:,} bytes"
            yield EQUAL.passed(label, f"is {part.source}: equal in {extent}", source=source)
            return
        first = next(iter(sorted(part.differing)))
        where = (
            f"{part.differing.total()} of {blocks} blocks differ, in {self._format_tensors(part.differing)}"
        )
        if part.others:
            other = min(part.others)
            named_for = [key for key, each in self.parts.items() if each.source == other]
            also = f", which the configuration names for {' and '.join(named_for)}" if named_for else ""
            swapped = "another model" if part.equal else "swapped"
            detail = (
                f"is not {part.source}: {where}; they are equal to {other}{also} ({swapped}"
                f"{' in part' if part.equal else ''})"
            )
        elif part.equal:
            detail = (
                f"is not all of {part.source}: {where}; {part.equal} blocks are equal. These tensors were altered before "
                "the merge (lasered or trained, for example) or after it; the bytes do not show which"
            )
        else:
            detail = (
                f"is neither {part.source} nor another named model: {where}. It was altered before the merge (lasered or "
                "trained, for example, which cannot be checked without its inputs) or after it, or another version of the "
                "source was merged"
            )
        piece = self.merge.pieces[first]
        yield EQUAL.failed(label, detail, file=piece.file, tensor=piece.tensor, source=source)

    def _format_tensors(self, names: Mapping[str, int]) -> str:
        """Return a short list of tensors: each matrix with its layers."""
        layers: dict[str, list[int]] = defaultdict(list)
        single = []
        for name in sorted(names):
            tensor, layer = self.expected[name].tensor, layer_of(name)
            if layer is None:
                single.append(tensor)
            else:
                layers[matrix_of(tensor) or tensor].append(layer)
        by_matrix = [
            f"{matrix} of {'layer' if len(where) == 1 else 'layers'} {ranges(where)}"
            for matrix, where in sorted(layers.items())
        ]
        return ", ".join([*by_matrix[:12], *single[:4]])

    def _summary(self, names: list[str], sizes: list[int], options: Options) -> Finding:
        count = len(names)
        touched = sum(len(part.tensors) for part in self.parts.values())
        compared = sum(part.size_bytes for part in self.parts.values())
        if not touched:
            return SAMPLED.unverified("no tensor", "nothing could be compared with a source")
        if options.sample_bytes is None:
            return (
                SAMPLED.passed(
                    f"{touched} of {count} tensors",
                    f"{compared:,} of {sum(sizes):,} bytes compared",
                )
                if compared == sum(sizes)
                else SAMPLED.unverified(
                    f"{touched} of {count} tensors",
                    f"only {compared:,} of {sum(sizes):,} bytes could be compared",
                )
            )
        chances = detection_probability(touched, count, compared / max(1, sum(sizes)))
        detail = f"seed {options.seed}: {compared:,} of {sum(sizes):,} bytes. {chances}"
        return SAMPLED.passed(f"{touched} of {count} tensors", detail)
