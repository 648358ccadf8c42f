"""The weights of a published merge against those of the models that it names, byte by byte, by range requests.

A block that is not what it should be is compared with the same block of every other model that is named: so experts in
another order are told from experts that were changed.
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
    """What was seen of an expert, or of what else is taken from one model.

    Args:
        source: The model that the configuration names.
        others: Other named models that all blocks which differ are equal to.
        equal: How many blocks are equal to the source's.
        differing: Names of tensors with blocks that are not, and how many.
        tensors: Names of tensors of which something was compared.
        size_bytes: How much was compared.
        errors: What kept blocks from being compared.
    """

    source: str
    others: set[str]
    equal: int = 0
    differing: Counter[str] = field(default_factory=Counter)
    tensors: set[str] = field(default_factory=set)
    size_bytes: int = 0
    errors: list[Exception] = field(default_factory=list)


class WeightsComparison:
    """A merge beside its sources.

    Args:
        configuration: What the configuration says.
        merge: The merge.
        sources: The sources that can be read, by reference.
        wanted: What each tensor must be, by canonical name.
    """

    def __init__(
        self,
        configuration: Configuration,
        merge: Model,
        sources: Mapping[str, Model],
        wanted: Mapping[str, ExpectedTensor],
    ) -> None:
        self.configuration, self.merge, self.sources = configuration, merge, sources
        self.wanted = {
            name: one
            for name, one in wanted.items()
            if name in merge.pieces and one.source in sources and not one.noisy
        }
        self.noisy = sorted({one.part for one in wanted.values() if one.noisy})
        self.parts: dict[str, PartComparison] = {}
        for one in self.wanted.values():
            others = {
                other
                for other, model in sources.items()
                if model.subject.name != sources[one.source].subject.name
            }
            self.parts.setdefault(one.part, PartComparison(one.source, others))

    def check(self, options: Options) -> Iterator[Finding]:
        """Compare them, and yield a finding for each part."""
        yield from self._dtypes()
        names = list(self.wanted)
        sizes = [self.merge.pieces[name].size_bytes for name in names]
        sample = options.sample_bytes
        blocks = list(whole(sizes) if sample is None else draw(sizes, sample, options.seed)) if names else []
        with track("compare", len(blocks)) as advance:
            for block, take in in_order(lambda block: self._compare(names[block.slice], block), blocks):
                name = names[block.slice]
                part = self.parts[self.wanted[name].part]
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
                        part.others = part.others & others  # threads read the old one meanwhile
                advance()
        for called, part in self.parts.items():
            yield from self._told(called, part)
        yield self._summary(names, sizes, options)

    def _compare(self, name: str, block: Block) -> tuple[bool, set[str]]:
        """Return whether a block is what it should be; if not, the other named models that it is of."""
        one, piece = self.wanted[name], self.merge.pieces[name]
        ours = self.merge.read(name, block.start, block.stop)
        if not one.tensor:
            return not any(ours), set()
        if ours == self._made(one, one.source, piece, block):
            return True, set()
        return False, {
            other
            for other in sorted(self.parts[one.part].others)
            if ours == self._made(one, other, piece, block)
        }

    def _made(self, one: ExpectedTensor, source: str, piece: TensorSlice, block: Block) -> bytes | None:
        """Return a block as the merge must have it if it is of a source; None if that has no tensor of that shape."""
        model = self.sources[source]
        theirs = model.pieces.get(one.tensor)
        if theirs is None or theirs.shape != piece.shape:
            return None
        start, stop = (edge // piece.item_bytes * theirs.item_bytes for edge in (block.start, block.stop))
        data = model.read(one.tensor, start, stop)
        shape = ((stop - start) // theirs.item_bytes,)
        what = f"{source}: {one.tensor}"
        try:
            if one.scale is not None:
                data = to_bytes(
                    perturb(from_bytes(data, theirs.dtype, shape, what), what, 0, None, one.scale)
                )
            return data if theirs.dtype == piece.dtype else cast(data, theirs.dtype, shape, piece.dtype, what)
        except CheckpointError as error:
            raise UnverifiedError(str(error)) from error

    def _dtypes(self) -> Iterator[Finding]:
        """Yield a finding for each pair of dtypes that differ: whether the configuration explains it."""
        base = self.sources.get(self.configuration.base or "")
        said = base.config.get("dtype") or base.config.get("torch_dtype") if base else None
        asked = self.configuration.dtype or DTYPE_CODES.get(str(said))
        pairs: dict[tuple[str, str], set[str]] = defaultdict(set)
        for name, one in self.wanted.items():
            theirs = self.sources[one.source].pieces.get(one.tensor)
            if theirs and theirs.dtype != self.merge.pieces[name].dtype:
                pairs[theirs.dtype, self.merge.pieces[name].dtype].add(one.source)
        for (theirs_dtype, ours_dtype), sources in sorted(pairs.items()):
            change = f"{NAMES.get(theirs_dtype, theirs_dtype)} of {', '.join(sorted(sources))} is {NAMES.get(ours_dtype, ours_dtype)} here"
            if ours_dtype == asked:
                why = (
                    f"`dtype: {NAMES[asked]}` says so"
                    if self.configuration.dtype
                    else f"the base is {NAMES[asked]}"
                )
                yield DTYPE.passed(change, f"as {why}; compared after the same rounding")
            else:
                wanted = f"{NAMES[asked]} is asked for" if asked else "no dtype is asked for"
                yield DTYPE.failed(change, f"which the configuration does not explain: {wanted}")

    def _told(self, called: str, part: PartComparison) -> Iterator[Finding]:
        place = self.sources[part.source].subject.name
        if part.errors:
            count = len(part.errors)
            wrong = [error for error in part.errors if outcome_of(error) is Outcome.FAILED]
            detail = f"{count} blocks could not be compared: {(wrong or part.errors)[0]}"
            finding = EQUAL.failed if wrong else EQUAL.unverified
            yield finding(called, detail, source=place)
        blocks = part.equal + part.differing.total()
        if not blocks:
            if not part.errors:
                yield EQUAL.unverified(called, "nothing of it is in the sample", source=place)
            return
        if not part.differing:
            of = f"{blocks} blocks of {len(part.tensors)} tensors, {part.size_bytes:,} bytes"
            yield EQUAL.passed(called, f"is {part.source}: equal in {of}", source=place)
            return
        first = next(iter(sorted(part.differing)))
        where = f"{part.differing.total()} of {blocks} blocks differ, in {self._spell(part.differing)}"
        if part.others:
            other = min(part.others)
            who = [key for key, one in self.parts.items() if one.source == other]
            also = f", which the configuration names for {' and '.join(who)}" if who else ""
            swapped = "another model" if part.equal else "swapped"
            detail = (
                f"is not {part.source}: {where}; they are equal to {other}{also} ({swapped}"
                f"{' in part' if part.equal else ''})"
            )
        elif part.equal:
            detail = (
                f"is not all of {part.source}: {where}; {part.equal} blocks are equal. These tensors were altered, before "
                "the merge (such as lasered or trained) or after it: which, cannot be told from here"
            )
        else:
            detail = (
                f"is not {part.source}, nor another model that is named: {where}. It was altered before the merge (such as "
                "lasered or trained, which nobody can check who has not what it was made of) or after it, or the source "
                "was another when it was merged"
            )
        piece = self.merge.pieces[first]
        yield EQUAL.failed(called, detail, file=piece.file, tensor=piece.tensor, source=place)

    def _spell(self, names: Mapping[str, int]) -> str:
        """Return tensors in short: by matrix, with the layers in which it differs."""
        layers: dict[str, list[int]] = defaultdict(list)
        single = []
        for name in sorted(names):
            tensor, layer = self.wanted[name].tensor, layer_of(name)
            if layer is None:
                single.append(tensor)
            else:
                layers[matrix_of(tensor) or tensor].append(layer)
        told = [
            f"{matrix} of {'layer' if len(where) == 1 else 'layers'} {ranges(where)}"
            for matrix, where in sorted(layers.items())
        ]
        return ", ".join([*told[:12], *single[:4]])

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
                    f"{compared:,} of {sum(sizes):,} bytes compared, all there are",
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
