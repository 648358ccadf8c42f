"""The level `equality`: slices of the release are compared with upstream tensors, byte by byte, by range requests.

Either all bytes are compared, or a random sample of blocks: first one block of each slice in random order, which is enough
to detect a tensor that was replaced as a whole; then further blocks of any slice, up to the sample's size.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from herdbook.errors import HerdbookError, VerificationError
from herdbook.plan.edition import Edition
from herdbook.progress import track
from herdbook.release.finding import Check, Outcome
from herdbook.verify.ahead import in_order
from herdbook.verify.copied import open_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from herdbook.provenance.lineage import Equals, LineageSlice
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.release.subject import Subject

LEVEL = "equality"
EQUAL = Check(LEVEL, "equal")
SAMPLED = Check(LEVEL, "sample")
# An earlier outcome of a slice, and the one that replaces it.
OUTWEIGHED = (Outcome.UNVERIFIED, Outcome.FAILED)
BLOCK_BYTES = 1 << 18
PIECE_BYTES = 1 << 24  # size of a block where slices are compared as a whole


@dataclass(frozen=True)
class Block:
    """Some bytes of a slice.

    Args:
        slice: Index of the slice among those that are compared.
        start: The first byte, from the slice's beginning.
        stop: The byte after the last.
    """

    slice: int
    start: int
    stop: int


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Compare slices with the upstream tensors that they equal according to the lineage."""
    if release.edition is Edition.GGUF:
        yield EQUAL.unverified(release.name, elsewhere(release))
        return
    lineage = release.lineage()
    slices = [slice_ for slice_ in lineage if slice_.equals]
    slices, unreachable = _reachable(release, slices, options.inputs)
    yield from unreachable
    sizes = [slice_.end - slice_.begin for slice_ in slices]
    blocks = list(
        whole(sizes) if options.sample_bytes is None else draw(sizes, options.sample_bytes, options.seed)
    )
    wrong: dict[int, Finding] = {}
    digests = (
        {number: hashlib.sha256() for number in range(len(slices))} if options.sample_bytes is None else {}
    )
    compared: Counter[int] = Counter()
    with track("equality", len(blocks)) as advance:
        for block, take in in_order(
            lambda block: _compare(release, slices[block.slice], block, options.inputs), blocks
        ):
            slice_ = slices[block.slice]
            try:
                ours, problem = take()
            except (HerdbookError, OSError) as error:
                problem = EQUAL.error(_label(slice_), error, **_about(slice_))
            else:
                compared[block.slice] += block.stop - block.start
                if block.slice in digests:
                    digests[block.slice].update(ours)
            # Report differing bytes even if other bytes of the same slice could not be read.
            known = wrong.get(block.slice)
            if problem and (known is None or (known.outcome, problem.outcome) == OUTWEIGHED):
                wrong[block.slice] = problem
            advance()
    for number, digest in digests.items():
        slice_ = slices[number]
        if number not in wrong and digest.hexdigest() != slice_.sha256:
            detail = "its bytes are upstream's, but their digest is not the one in the lineage"
            wrong[number] = EQUAL.failed(
                _label(slice_), detail, expected=slice_.sha256, found=digest.hexdigest(), **_about(slice_)
            )
    yield from (wrong[number] for number in sorted(wrong))
    yield from _equal(slices, compared, wrong)
    derived = [slice_ for slice_ in lineage if slice_.made]
    yield _summary(slices, sizes, compared, derived, options)


def elsewhere(release: Release) -> str:
    """Return what is to be verified besides a release with quantized files alone."""
    repo = release.recipe.release.repo
    return f"the weights that its files are made from are in another release: verify it, too: herdbook verify {repo}"


def draw(sizes: Sequence[int], sample_bytes: int, seed: int) -> list[Block]:
    """Draw blocks of slices at random: one of each slice first, in random order, then others.

    Args:
        sizes: Size of each slice in bytes.
        sample_bytes: The maximum number of bytes to draw; at least one block is drawn.
        seed: Seed of the draw: the same seed and sizes give the same blocks.
    """
    chance = Random(seed)  # noqa: S311 - anyone must be able to repeat the draw
    counts = [max(1, -(-size // BLOCK_BYTES)) for size in sizes]
    order = list(range(len(sizes)))
    chance.shuffle(order)
    drawn: dict[tuple[int, int], Block] = {}
    remaining = sample_bytes

    def take(number: int, index: int) -> bool:
        nonlocal remaining
        block = Block(number, index * BLOCK_BYTES, min(sizes[number], (index + 1) * BLOCK_BYTES))
        if drawn and block.stop - block.start > remaining:
            return False
        drawn[number, index] = block
        remaining -= block.stop - block.start
        return True

    for number in order:
        if not take(number, chance.randrange(counts[number])):
            break
    else:
        rest = [
            (number, index)
            for number, count in enumerate(counts)
            for index in range(count)
            if (number, index) not in drawn
        ]
        for number, index in chance.sample(rest, min(len(rest), remaining // BLOCK_BYTES + 1)):
            if not take(number, index):
                break
    return [drawn[block] for block in sorted(drawn)]


def whole(sizes: Sequence[int]) -> Iterator[Block]:
    """Yield blocks that make up slices as a whole.

    Args:
        sizes: Size of each slice in bytes.
    """
    for number, size in enumerate(sizes):
        for start in range(0, size, PIECE_BYTES):
            yield Block(number, start, min(size, start + PIECE_BYTES))


def chance_of_catching(altered: int, touched: int, count: int) -> float:
    """Return the probability that a sample of tensors contains at least one that was altered.

    The sample is drawn without replacement, so the number of altered tensors in it has a hypergeometric distribution.

    Args:
        altered: How many tensors were altered.
        touched: How many are in the sample.
        count: How many tensors exist.
    """
    if touched > count - altered:
        return 1.0
    return 1 - math.comb(count - altered, touched) / math.comb(count, touched)


def detection_probability(touched: int, count: int, share: float) -> str:
    """Return the probability that a sample detects an alteration, as a sentence without its full stop.

    Args:
        touched: How many tensors are in the sample.
        count: How many tensors exist.
        share: The share of their bytes that was compared.
    """
    hundredth = max(1, count // 100)
    several = (
        f", {chance_of_catching(hundredth, touched, count):.4f} for {hundredth}" if hundredth > 1 else ""
    )
    return (
        f"Detection probability: {chance_of_catching(1, touched, count):.4f} for one replaced tensor{several}, "
        f"{share:.4f} for one altered byte"
    )


def _reachable(
    release: Release, slices: list[LineageSlice], inputs: Path | None
) -> tuple[list[LineageSlice], list[Finding]]:
    """Return the slices whose source can be read by ranges, and a finding for each source that cannot."""
    unreachable: dict[tuple[str, str], Finding] = {}
    reachable = []
    for slice_ in slices:
        assert slice_.equals  # noqa: S101 - only such slices are passed
        source = slice_.equals.source, slice_.equals.uri  # folders of one name have one URI
        if source not in unreachable:
            try:
                _open(release, slice_.equals, inputs)
            except (HerdbookError, OSError) as error:
                unreachable[source] = EQUAL.error(source[0], error, source=source[1])
            else:
                reachable.append(slice_)
    return reachable, list(unreachable.values())


def _open(release: Release, equals: Equals, inputs: Path | None) -> Subject:
    """Open the source of a tensor. Raises as ``open_model``."""
    return open_model(release, release.recipe.models.get(equals.source), equals.uri, inputs)


def _compare(
    release: Release, slice_: LineageSlice, block: Block, inputs: Path | None
) -> tuple[bytes, Finding | None]:
    """Return a block's bytes, and a finding if they are wrong."""
    assert slice_.equals  # noqa: S101 - only such slices are compared
    ours = release.subject.read_range(slice_.file, slice_.begin + block.start, slice_.begin + block.stop)
    source = _open(release, slice_.equals, inputs)
    span = source.header(slice_.equals.file).get(slice_.equals.tensor)
    if span is None:
        raise VerificationError(f"{source.name}: {slice_.equals.file} has no tensor {slice_.equals.tensor}")
    shape, first = tuple(span.shape), 0
    if slice_.equals.rows:
        first, stop = slice_.equals.rows
        shape = (max(0, min(stop, shape[0]) - first), *shape[1:]) if shape else ()
    if (span.dtype, shape) != (slice_.dtype, slice_.shape):
        expected, found = f"{span.dtype} {list(shape)}", f"{slice_.dtype} {list(slice_.shape)}"
        detail = f"has another dtype or shape than {slice_.equals.tensor} of {source.name}"
        return ours, EQUAL.failed(_label(slice_), detail, expected=expected, found=found, **_about(slice_))
    start = span.start + first * (
        (slice_.end - slice_.begin) // max(1, slice_.shape[0] if slice_.shape else 1)
    )
    theirs = source.read_range(slice_.equals.file, start + block.start, start + block.stop)
    if ours == theirs:
        return ours, None
    return ours, EQUAL.failed(
        _label(slice_),
        f"bytes {block.start} to {block.stop} differ from those of {slice_.equals.tensor} of {source.name}",
        expected=hashlib.sha256(theirs).hexdigest(),
        found=hashlib.sha256(ours).hexdigest(),
        **_about(slice_),
    )


def _label(slice_: LineageSlice) -> str:
    return slice_.slice or slice_.tensor


def _about(slice_: LineageSlice) -> dict[str, str]:
    assert slice_.equals  # noqa: S101 - only such slices are compared
    rows = f"[{slice_.equals.rows[0]}:{slice_.equals.rows[1]}]" if slice_.equals.rows else ""
    source = f"{slice_.equals.uri}#{slice_.equals.file}: {slice_.equals.tensor}{rows}"
    return {"file": slice_.file, "tensor": slice_.tensor, "source": source}


def _equal(
    slices: list[LineageSlice], compared: Counter[int], wrong: dict[int, Finding]
) -> Iterator[Finding]:
    """Yield a finding for each source whose compared bytes were all equal."""
    touched: Counter[tuple[str, str]] = Counter()
    size: Counter[tuple[str, str]] = Counter()
    bad = set()
    for number, slice_ in enumerate(slices):
        assert slice_.equals  # noqa: S101 - only such slices are passed
        source = slice_.equals.source, slice_.equals.uri
        if number in wrong:
            bad.add(source)
        if number in compared:
            touched[source] += 1
            size[source] += compared[number]
    for source, count in touched.items():
        if source not in bad:
            detail = f"{size[source]:,} bytes of {count} slices are equal to it"
            yield EQUAL.passed(source[0], detail, source=source[1])


def _summary(
    slices: list[LineageSlice],
    sizes: list[int],
    compared: Counter[int],
    derived: list[LineageSlice],
    options: Options,
) -> Finding:
    """Return how much was compared, and how likely the sample detects an alteration."""
    count, touched = len(slices), len(compared)
    share = sum(compared.values()) / max(1, sum(sizes))
    rest = f"{len(derived)} slices ({sum(slice_.end - slice_.begin for slice_ in derived):,} bytes) were computed, not copied: see level recomputed"
    if not count:
        return SAMPLED.unverified("no slice", f"nothing can be compared with upstream; {rest}")
    if options.sample_bytes is None:
        return SAMPLED.passed(f"all {count} slices", f"{sum(sizes):,} bytes compared; {rest}")
    detail = (
        f"seed {options.seed}: {touched} of {count} slices, {sum(compared.values()):,} of {sum(sizes):,} bytes. "
        f"{detection_probability(touched, count, share)}; {rest}"
    )
    return SAMPLED.passed(f"{touched} slices", detail)
