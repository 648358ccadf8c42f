"""Compare a dense merge with what its configuration makes of its sources: tensors are recomputed, in blocks where that is enough."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from herdbook.architectures.form import HEAD
from herdbook.architectures.meaning import is_tied
from herdbook.audit.difference import Difference
from herdbook.audit.level import LEVEL, UNPROVEN
from herdbook.audit.outcomes import MOST_SHOWN, Outcomes
from herdbook.audit.recomputation import Recomputation
from herdbook.errors import HerdbookError
from herdbook.plan.operation import MergeTensors
from herdbook.progress import say, track
from herdbook.recipe import Merge
from herdbook.release.finding import Check
from herdbook.verify.ahead import in_order
from herdbook.verify.equality import Block, detection_probability, draw, whole
from herdbook.verify.rebuild.recompute import draw_whole
from herdbook.weights.dtypes import DTYPE_CODES, ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from herdbook.audit.model import Model, TensorSlice
    from herdbook.audit.planned import PlannedMerge
    from herdbook.audit.recomputation import Computed
    from herdbook.release.finding import Finding, Options

LAYOUT = Check(LEVEL, "layout")
DTYPE = Check(LEVEL, "dtype")
SAMPLED = Check(LEVEL, "sample")
NAMES = {code: name for name, code in DTYPE_CODES.items()}
# Elements of a tensor and of all that it is made from, beyond which it is recomputed only if all are.
MOST_ELEMENTS = 400_000_000
# Methods whose results mergekit leaves in float32, whatever the configuration states.
LEFT_WIDE = ("arcee_fusion", "ramplus_tl")


class DenseComparison:
    """The comparison of a dense merge with its plan.

    Args:
        merge: The merge.
        planned: Its plan, and its sources.
    """

    def __init__(self, merge: Model, planned: PlannedMerge) -> None:
        self.merge, self.planned = merge, planned
        self.released = planned.plan.released
        self.recomputation = Recomputation(planned)
        self.outcomes = Outcomes()
        self.skipped: list[str] = []

    def check(self, options: Options) -> Iterator[Finding]:
        """Compare, and yield the findings."""
        import torch

        yield from self._layout()
        yield from self._dtypes()
        names = [name for name in self.released.tensors if self._has(name)]
        blocks = [name for name in names if self.recomputation.is_elementwise(name)]
        random = [name for name in names if self.recomputation.from_drawn(name)]
        wholes = [name for name in names if name not in {*blocks, *random}]
        if options.sample_bytes is not None:
            self.skipped = [name for name in wholes if self.recomputation.elements(name) > MOST_ELEMENTS]
            wholes = [name for name in wholes if name not in self.skipped]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums over a tensor depend on the number of threads that share them
        try:
            self._compare(blocks, wholes, options)
        finally:
            torch.set_num_threads(threads)
        self.outcomes.judge()
        yield from self.outcomes.findings(self.merge, self._methods())
        yield self._summary(names, options)
        yield from self._unproven(random)

    # -- what there is to compare

    def _has(self, name: str) -> bool:
        piece, (_, tensor) = self.merge.pieces.get(name), self.released.tensors[name]
        return piece is not None and piece.shape == tensor.shape

    def _layout(self) -> Iterator[Finding]:
        expected = {name: tensor.shape for name, (_, tensor) in self.released.tensors.items()}
        spare = {HEAD} if is_tied(self.merge.config) else set()
        found = {
            name: piece.shape for name, piece in self.merge.pieces.items() if not name.endswith("inv_freq")
        }
        missing = [name for name in expected if name not in found]
        extra = sorted(found.keys() - expected.keys() - spare)
        other = [name for name, shape in expected.items() if name in found and found[name] != shape]
        for names, what in (
            (missing, "are missing"),
            (extra, "do not follow from the configuration"),
            (other, "have another shape than the configuration gives"),
        ):
            if names:
                detail = f"{len(names)} tensors {what}, such as {names[0]}"
                yield LAYOUT.failed(self.merge.subject.name, detail, tensor=names[0])
        if not (missing or extra or other):
            yield LAYOUT.passed(
                self.merge.subject.name, "has all tensors that the configuration implies, and no others"
            )

    def _dtypes(self) -> Iterator[Finding]:
        """Yield a finding for each dtype that the configuration does not give."""
        pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, (_, tensor) in self.released.tensors.items():
            if (
                self._has(name)
                and not self._is_left_wide(name)
                and self.merge.pieces[name].dtype != tensor.dtype
            ):
                pairs[tensor.dtype, self.merge.pieces[name].dtype].append(name)
        for (expected, found), names in sorted(pairs.items()):
            detail = (
                f"are {NAMES.get(found, found)}, and the configuration gives {NAMES.get(expected, expected)}; they are compared "
                "after the same rounding"
            )
            yield DTYPE.failed(
                f"{len(names)} tensors", detail, tensor=names[0], expected=expected, found=found
            )

    def _is_left_wide(self, name: str) -> bool:
        operation = self.released.tensors[name][0].operation
        method = operation.method if isinstance(operation, MergeTensors) else ""
        return method in LEFT_WIDE and self.merge.pieces[name].dtype == "F32"

    # -- comparing

    def _compare(self, blocks: list[str], wholes: list[str], options: Options) -> None:
        sizes = [self.merge.pieces[name].size_bytes for name in blocks]
        whole_sizes = [self.merge.pieces[name].size_bytes for name in wholes]
        chosen, drawn_blocks = range(len(wholes)), list(whole(sizes))
        if options.sample_bytes is not None:
            share = sum(sizes) / max(1, sum(sizes) + sum(whole_sizes))
            of_blocks = int(options.sample_bytes * share)
            drawn_blocks = draw(sizes, of_blocks, options.seed) if blocks else []
            remaining = options.sample_bytes - of_blocks
            chosen = draw_whole(whole_sizes, remaining, options.seed) if wholes else ()  # type: ignore[assignment]
        with track("recompute", len(drawn_blocks) + len(chosen)) as advance:
            read = in_order(lambda block: self._block(blocks[block.slice], block), drawn_blocks)
            for block, take in read:
                name = blocks[block.slice]
                try:
                    self._add(name, *take(), block.stop - block.start)
                except (HerdbookError, OSError) as error:
                    self.outcomes.errors[name] = error
                advance()
            for index in chosen:
                name = wholes[index]
                try:
                    self._add(name, *self._whole(name), whole_sizes[index])
                except (HerdbookError, OSError) as error:
                    self.outcomes.errors[name] = error
                advance()

    def _block(self, name: str, block: Block) -> tuple[torch.Tensor, Computed]:
        piece = self.merge.pieces[name]
        start, stop = block.start // piece.item_bytes, block.stop // piece.item_bytes
        computed = self.recomputation.of(name, start, stop)
        return self._found(piece, name, start, stop), computed

    def _whole(self, name: str) -> tuple[torch.Tensor, Computed]:
        piece = self.merge.pieces[name]
        computed = self.recomputation.of(name)  # first, since it takes much memory meanwhile
        return self._found(piece, name, 0, piece.size_bytes // piece.item_bytes).reshape(
            piece.shape
        ), computed

    def _found(self, piece: TensorSlice, name: str, start: int, stop: int) -> torch.Tensor:
        from herdbook.weights.tensors import from_bytes

        item = ITEM_BYTES[piece.dtype]
        data = self.merge.read(name, start * item, stop * item)
        return from_bytes(data, piece.dtype, (stop - start,), f"{self.merge.subject.name}: {name}")

    def _add(self, name: str, found: torch.Tensor, computed: Computed, size: int) -> None:
        """Add the comparison of a block, or of a whole tensor."""
        from herdbook.weights.tensors import to_bytes

        outcomes = self.outcomes
        outcomes.compared[name] += size
        if self._is_left_wide(name):
            found = found.to(computed.result.dtype)
        result = computed.result.to(found.dtype)
        if to_bytes(found) == to_bytes(result):
            outcomes.equal.add(name)
            return
        if name in outcomes.wrong:
            return
        if self.recomputation.is_lined_up(name):
            outcomes.reordered.add(name)
            return
        difference = Difference(self.planned, found, computed)
        if computed.operation is None:
            outcomes.wrong[name] = difference.of_copy()
            return
        if self.recomputation.is_drawn(name):
            if problem := difference.of_drawn():
                outcomes.wrong[name] = problem
            else:
                outcomes.drawn.add(name)
            return
        closeness = difference.closeness
        # What all are instead is shown by the first ones; to find it out takes longer than the comparison.
        if problem := difference.beyond_roundings(explain=len(outcomes.wrong) < MOST_SHOWN):
            if not outcomes.wrong:
                say(f"{name}: {problem}; the comparison goes on")
            outcomes.wrong[name] = problem
        elif name in outcomes.near:
            outcomes.near[name].merge(closeness)
        else:
            outcomes.near[name] = closeness

    # -- what follows

    def _methods(self) -> str:
        nodes = self.planned.plan.nodes.values()
        return " and ".join(
            dict.fromkeys(node.recipe.merge.method for node in nodes if isinstance(node.recipe, Merge))
        )

    def _summary(self, names: list[str], options: Options) -> Finding:
        compared = self.outcomes.compared
        size, total = sum(compared.values()), sum(self.merge.pieces[name].size_bytes for name in names)
        if not compared:
            return SAMPLED.unverified("no tensor", "nothing could be recomputed")
        label = f"{len(compared)} of {len(names)} tensors"
        extent = f"{size:,} of {total:,} bytes"
        if options.sample_bytes is None:
            done = size == total
            return (
                SAMPLED.passed(label, f"{extent} recomputed")
                if done
                else SAMPLED.unverified(label, f"only {extent} could be recomputed")
            )
        chances = detection_probability(len(compared), len(names), size / max(1, total))
        return SAMPLED.passed(label, f"seed {options.seed}: {extent} recomputed. {chances}")

    def _unproven(self, random: list[str]) -> Iterator[Finding]:
        yield from self.outcomes.unproven()
        if random:
            yield UNPROVEN.unverified(
                "from drawn",
                f"{len(random)} tensors are not proven: they are made of a step whose random numbers are not known.",
            )
        if self.skipped:
            yield UNPROVEN.unverified(
                "large tensors",
                f"{len(self.skipped)} tensors, such as {self.skipped[0]}, are not proven: the method needs them as a whole, and they "
                "are large; `--sample all` recomputes them.",
            )
