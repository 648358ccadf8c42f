"""The level `equality`: slices of the release are compared with upstream tensors, byte by byte, by range requests.

All of them, or a random sample of blocks: first one block of each slice, in random order, so that a tensor that was
replaced as a whole is seen as soon as its slice has its turn; then further blocks of any slice, until the sample's size.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from herdbook.errors import HerdbookError, VerificationError
from herdbook.progress import track
from herdbook.release.finding import Check, Outcome
from herdbook.verify.ahead import in_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from herdbook.provenance.lineage import LineageSlice
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release

LEVEL = "equality"
EQUAL = Check(LEVEL, "equal")
SAMPLED = Check(LEVEL, "sample")
HIDDEN = (Outcome.UNVERIFIED, Outcome.FAILED)  # what was found of a slice before, and what outweighs it
BLOCK_BYTES = 1 << 18
PIECE_BYTES = 1 << 24  # of slices that are compared whole


@dataclass(frozen=True)
class Block:
    """Some bytes of a slice.

    Args:
        slice: The slice, by its place among those that are compared.
        start: The first byte, from the slice's beginning.
        stop: The byte after the last.
    """

    slice: int
    start: int
    stop: int


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Compare slices with the tensors that the lineage says they equal."""
    lineage = release.lineage()
    slices = [one for one in lineage if one.equals]
    slices, unread = _reachable(release, slices)
    yield from unread
    sizes = [one.end - one.begin for one in slices]
    blocks = list(
        whole(sizes) if options.sample_bytes is None else draw(sizes, options.sample_bytes, options.seed)
    )
    wrong: dict[int, Finding] = {}
    digests = (
        {number: hashlib.sha256() for number in range(len(slices))} if options.sample_bytes is None else {}
    )
    compared: Counter[int] = Counter()
    with track("equality", len(blocks)) as advance:
        for block, take in in_order(lambda block: _compare(release, slices[block.slice], block), blocks):
            one = slices[block.slice]
            try:
                ours, problem = take()
            except (HerdbookError, OSError) as error:
                problem = EQUAL.error(_called(one), error, **_about(one))
            else:
                compared[block.slice] += block.stop - block.start
                if block.slice in digests:
                    digests[block.slice].update(ours)
            # Bytes that differ are told even if others of the same slice could not be had.
            known = wrong.get(block.slice)
            if problem and (known is None or (known.outcome, problem.outcome) == HIDDEN):
                wrong[block.slice] = problem
            advance()
    for number, digest in digests.items():
        one = slices[number]
        if number not in wrong and digest.hexdigest() != one.sha256:
            detail = "its bytes equal upstream's, but not the digest in the lineage"
            wrong[number] = EQUAL.failed(
                _called(one), detail, expected=one.sha256, found=digest.hexdigest(), **_about(one)
            )
    yield from (wrong[number] for number in sorted(wrong))
    yield from _equal(slices, compared, wrong)
    made = [one for one in lineage if one.made]
    yield _summary(slices, sizes, compared, made, options)


def draw(sizes: Sequence[int], sample_bytes: int, seed: int) -> list[Block]:
    """Draw blocks of slices at random: one of each slice first, in random order, then others.

    Args:
        sizes: Size of each slice in bytes.
        sample_bytes: How many bytes to draw at most; one block at least is drawn.
        seed: Decides what is drawn: the same for the same seed and sizes.
    """
    chance = Random(seed)  # noqa: S311 - to be drawn again by anybody
    counts = [max(1, -(-size // BLOCK_BYTES)) for size in sizes]
    order = list(range(len(sizes)))
    chance.shuffle(order)
    drawn: dict[tuple[int, int], Block] = {}
    left = sample_bytes

    def take(number: int, place: int) -> bool:
        nonlocal left
        block = Block(number, place * BLOCK_BYTES, min(sizes[number], (place + 1) * BLOCK_BYTES))
        if drawn and block.stop - block.start > left:
            return False
        drawn[number, place] = block
        left -= block.stop - block.start
        return True

    for number in order:
        if not take(number, chance.randrange(counts[number])):
            break
    else:
        rest = [
            (number, place)
            for number, count in enumerate(counts)
            for place in range(count)
            if (number, place) not in drawn
        ]
        for number, place in chance.sample(rest, min(len(rest), left // BLOCK_BYTES + 1)):
            if not take(number, place):
                break
    return [drawn[place] for place in sorted(drawn)]


def whole(sizes: Sequence[int]) -> Iterator[Block]:
    """Yield blocks that make up slices as a whole.

    Args:
        sizes: Size of each slice in bytes.
    """
    for number, size in enumerate(sizes):
        for start in range(0, size, PIECE_BYTES):
            yield Block(number, start, min(size, start + PIECE_BYTES))


def chance_of_catching(altered: int, touched: int, count: int) -> float:
    """Return the probability that a sample of tensors holds one of those that were altered.

    Drawn without replacement, the number of altered ones in the sample is distributed hypergeometrically.

    Args:
        altered: How many tensors were altered.
        touched: How many are in the sample.
        count: How many there are.
    """
    if touched > count - altered:
        return 1.0
    return 1 - math.comb(count - altered, touched) / math.comb(count, touched)


def detection_probability(touched: int, count: int, share: float) -> str:
    """Return how likely a sample shows that something was altered, as a sentence without its full stop.

    Args:
        touched: How many tensors are in the sample.
        count: How many there are.
        share: The share of their bytes that was compared.
    """
    hundredth = max(1, count // 100)
    several = (
        f", one of {hundredth} with {chance_of_catching(hundredth, touched, count):.4f}"
        if hundredth > 1
        else ""
    )
    return (
        f"One tensor that was replaced is caught with probability {chance_of_catching(1, touched, count):.4f}{several}; "
        f"a single altered byte with {share:.4f}"
    )


def _reachable(release: Release, slices: list[LineageSlice]) -> tuple[list[LineageSlice], list[Finding]]:
    """Return the slices whose source can be read by ranges, and a finding for each source that cannot."""
    unread: dict[str, Finding] = {}
    reachable = []
    sizes: Counter[str] = Counter()
    for one in slices:
        assert one.equals  # noqa: S101 - only such are given
        uri = one.equals.uri
        if uri not in unread:
            try:
                release.source(uri)
            except (HerdbookError, OSError) as error:
                unread[uri] = EQUAL.error(one.equals.source, error, source=uri)
            else:
                reachable.append(one)
        sizes[uri] += one.end - one.begin
    return reachable, list(unread.values())


def _compare(release: Release, one: LineageSlice, block: Block) -> tuple[bytes, Finding | None]:
    """Return a block's bytes, and what is wrong with them."""
    assert one.equals  # noqa: S101 - only such are compared
    ours = release.subject.read_range(one.file, one.begin + block.start, one.begin + block.stop)
    source = release.source(one.equals.uri)
    span = source.header(one.equals.file).get(one.equals.tensor)
    if span is None:
        raise VerificationError(f"{source.name}: {one.equals.file} has no tensor {one.equals.tensor}")
    if (span.dtype, tuple(span.shape)) != (one.dtype, one.shape):
        expected, found = f"{span.dtype} {list(span.shape)}", f"{one.dtype} {list(one.shape)}"
        detail = f"is of another type or shape than {one.equals.tensor} of {source.name}"
        return ours, EQUAL.failed(_called(one), detail, expected=expected, found=found, **_about(one))
    theirs = source.read_range(one.equals.file, span.start + block.start, span.start + block.stop)
    if ours == theirs:
        return ours, None
    return ours, EQUAL.failed(
        _called(one),
        f"bytes {block.start} to {block.stop} differ from those of {one.equals.tensor} of {source.name}",
        expected=hashlib.sha256(theirs).hexdigest(),
        found=hashlib.sha256(ours).hexdigest(),
        **_about(one),
    )


def _called(one: LineageSlice) -> str:
    return one.slice or one.tensor


def _about(one: LineageSlice) -> dict[str, str]:
    assert one.equals  # noqa: S101 - only such are compared
    source = f"{one.equals.uri}#{one.equals.file}: {one.equals.tensor}"
    return {"file": one.file, "tensor": one.tensor, "source": source}


def _equal(
    slices: list[LineageSlice], compared: Counter[int], wrong: dict[int, Finding]
) -> Iterator[Finding]:
    """Yield a finding for each source of which something was compared and all of that was equal."""
    touched: Counter[tuple[str, str]] = Counter()
    size: Counter[tuple[str, str]] = Counter()
    bad = set()
    for number, one in enumerate(slices):
        assert one.equals  # noqa: S101 - only such are given
        source = one.equals.source, one.equals.uri
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
    made: list[LineageSlice],
    options: Options,
) -> Finding:
    """Return what was compared, and how likely it is that something was missed."""
    count, touched = len(slices), len(compared)
    share = sum(compared.values()) / max(1, sum(sizes))
    rest = f"{len(made)} slices ({sum(one.end - one.begin for one in made):,} bytes) were made, not copied: see level recomputed"
    if not count:
        return SAMPLED.unverified("no slice", f"nothing can be compared with upstream; {rest}")
    if options.sample_bytes is None:
        return SAMPLED.passed(f"all {count} slices", f"{sum(sizes):,} bytes compared; {rest}")
    detail = (
        f"seed {options.seed}: {touched} of {count} slices, {sum(compared.values()):,} of {sum(sizes):,} bytes. "
        f"{detection_probability(touched, count, share)}; {rest}"
    )
    return SAMPLED.passed(f"{touched} slices", detail)
