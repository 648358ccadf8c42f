"""The level `files`: these are the files of the release, byte for byte, and their records are about them.

In a folder every file is read. On the Hub no weights are: it says the SHA-256 of large files itself, and refuses uploads
that differ from it; of them the headers are read, and small files as a whole.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from herdbook.errors import CheckpointError, HerdbookError, VerificationError
from herdbook.layout import OUTSIDE_SUMS, RECORDS, SUMS, WEIGHTS_INDEX
from herdbook.progress import track
from herdbook.release.finding import Check
from herdbook.release.reader import damaged
from herdbook.release.subject import FolderSubject
from herdbook.verify.ahead import THREADS, in_order
from herdbook.weights.checkpoint import digest_shard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release

LEVEL = "files"
SUMMED = Check(LEVEL, "sums")
UNLISTED = Check(LEVEL, "unlisted")
RECORDED = Check(LEVEL, "records")
INDEX = Check(LEVEL, "index")
QUANTIZED = Check(LEVEL, "quantized")

# What a repository may hold beside a release: what the Hub and its client put there, and what no program loads.
INERT = (
    ".gitattributes", ".gitignore", ".cache/huggingface/*", ".eval_results/*.yaml", "LICENSE", "LICENSE.*", "NOTICE",
    "*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp",
)  # fmt: skip


@dataclass(frozen=True)
class _Read:
    """What was read of a listed file.

    Args:
        sha256: Digest of its content.
        tensors: Of safetensors: dtype, shape and, in a folder, digest of each tensor, by name.
        damage: Why it has none.
    """

    sha256: str
    tensors: dict[str, tuple[Any, ...]] | None = None
    damage: str | None = None


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Check every file, and every tensor's place, type and shape; in a folder its digest, too."""
    del options
    yield from _unlisted(release)
    here = isinstance(release.subject, FolderSubject)
    contents: dict[str, _Read] = {}
    names = [name for name in sorted(release.sums) if name in release.subject.files]
    with track("files", len(names)) as advance:
        for name, take in in_order(lambda name: _read(release, name), names, 1 if here else THREADS):
            try:
                contents[name] = take()
            except (HerdbookError, OSError) as error:
                yield SUMMED.error(name, error, file=name)
            advance()
    yield from _summed(release, contents)
    yield from _records(release, contents, with_digests=here)
    yield from _index(release, contents)
    yield from _quantized(release)


def _unlisted(release: Release) -> Iterator[Finding]:
    """What is there must be listed, or be of a kind that no program loads."""
    for name, what in sorted(getattr(release.subject, "odd", {}).items()):
        yield UNLISTED.failed(name, f"is {what}; it was not opened", file=name)
    for name in sorted(release.subject.files.keys() - release.sums.keys() - OUTSIDE_SUMS):
        if any(fnmatchcase(name, pattern) for pattern in INERT):
            yield UNLISTED.passed(name, "is no part of the release, and no program loads it", file=name)
        else:
            yield UNLISTED.failed(name, f"is not listed in {SUMS}", file=name)


def _read(release: Release, name: str) -> _Read:
    """Read a file as far as it is needed: in a folder once, for its digest and those of its tensors."""
    subject = release.subject
    if not name.endswith(".safetensors"):
        return _Read(subject.digest(name))
    try:
        with damaged(name):
            if isinstance(subject, FolderSubject):
                whole, entries = digest_shard(subject.path(name))
                subject.count(subject.files[name].size_bytes)
                return _Read(
                    whole, {t: (e["dtype"], tuple(e["shape"]), e["sha256"]) for t, e in entries.items()}
                )
            header = subject.header(name)
            return _Read(subject.digest(name), {t: (span.dtype, span.shape) for t, span in header.items()})
    except (CheckpointError, VerificationError) as error:
        return _Read(subject.digest(name), damage=str(error))


def _summed(release: Release, contents: dict[str, _Read]) -> Iterator[Finding]:
    """Every listed file is there, and has its digest."""
    names = {digest: name for name, digest in sorted(release.sums.items(), reverse=True)}
    missing = release.sums.keys() - release.subject.files.keys()
    strays = _strays(release) if missing else {}
    for name, expected in sorted(release.sums.items()):
        about = {"file": name, "expected": expected}
        if name in missing:
            place = strays.get(expected)
            yield SUMMED.failed(
                name, f"is missing; {place} has its content" if place else "is missing", **about
            )
        elif name in contents:
            found = contents[name].sha256
            if found == expected:
                yield SUMMED.passed(name, f"has the digest that {SUMS} lists", found=found, **about)
            else:
                other = f": it is that of {names[found]}" if found in names else ""
                yield SUMMED.failed(name, f"has other content than {SUMS} lists{other}", found=found, **about)


def _strays(release: Release) -> dict[str, str]:
    """Return the names of files that are not listed, by their digests."""
    found = {}
    for name in sorted(release.subject.files.keys() - release.sums.keys() - OUTSIDE_SUMS):
        with suppress(HerdbookError, OSError):
            found[release.subject.digest(name)] = name
    return found


def _records(release: Release, contents: dict[str, _Read], *, with_digests: bool) -> Iterator[Finding]:
    """Each weights file, and each tensor in it, is what a record says."""
    by_digest = {record["file"]["sha256"]: record for record in release.records().values()}
    for name in release.weights():
        read = contents.get(name)
        if read is None:
            continue
        if read.tensors is None:
            yield RECORDED.failed(name, str(read.damage), file=name)
            continue
        record = by_digest.get(read.sha256)
        if record is None:
            yield RECORDED.failed(name, "no record is about this content", found=read.sha256, file=name)
            continue
        said = {
            tensor: (entry["dtype"], tuple(entry["shape"]), *([entry["sha256"]] if with_digests else []))
            for tensor, entry in record["tensors"].items()
        }
        wrong = sorted(t for t in said.keys() | read.tensors.keys() if said.get(t) != read.tensors.get(t))
        for tensor in wrong:
            yield RECORDED.failed(
                name,
                f"tensor {tensor} is not as recorded in {record['key'][:12]}",
                expected=_spell(said.get(tensor)),
                found=_spell(read.tensors.get(tensor)),
                file=name,
                tensor=tensor,
            )
        if not wrong:
            what = "bytes, types and shapes" if with_digests else "types and shapes"
            yield RECORDED.passed(name, f"{what} of all its tensors are as recorded", file=name)


def _spell(entry: tuple[Any, ...] | None) -> str:
    return (
        " ".join(str(list(one) if isinstance(one, tuple) else one) for one in entry) if entry else "nothing"
    )


def _index(release: Release, contents: dict[str, _Read]) -> Iterator[Finding]:
    """The index leads to each tensor where it is, and to nothing else."""
    held = {t: name for name in release.weights() if name in contents for t in contents[name].tensors or {}}
    if WEIGHTS_INDEX not in release.sums:
        if len(release.weights()) > 1:
            yield INDEX.failed(
                WEIGHTS_INDEX, "is missing, and there are several files of weights", file=WEIGHTS_INDEX
            )
        return
    data = release.subject.json(WEIGHTS_INDEX)
    with damaged(WEIGHTS_INDEX):
        said = {str(tensor): str(name) for tensor, name in data["weight_map"].items()}
    wrong = sorted(t for t in said.keys() | held.keys() if said.get(t) != held.get(t))
    for tensor in wrong:
        yield INDEX.failed(
            WEIGHTS_INDEX,
            f"leads to another place than that of tensor {tensor}",
            expected=held.get(tensor, "nothing"),
            found=said.get(tensor, "nothing"),
            file=WEIGHTS_INDEX,
            tensor=tensor,
        )
    if not wrong:
        yield INDEX.passed(WEIGHTS_INDEX, f"leads to all {len(held)} tensors", file=WEIGHTS_INDEX)


def _quantized(release: Release) -> Iterator[Finding]:
    """Each quantized file has a record, by which every tensor was derived again from the released weights."""
    records: dict[str, Any] = {}
    for name in sorted(
        name for name in release.sums if name.startswith(RECORDS) and name.endswith(".gguf.json")
    ):
        record = release.subject.json(name)
        with damaged(name):
            records[record["file"]["sha256"]] = (
                record["verdict"],
                len(record["tensors"]),
                record["differing"],
            )
    for name in sorted(name for name in release.sums if name.endswith(".gguf")):
        verdict, _, differing = records.get(release.sums[name], (None, 0, None))
        if verdict is None:
            yield QUANTIZED.failed(
                name, "no record is about this content", found=release.sums[name], file=name
            )
        elif verdict != "equal":
            yield QUANTIZED.failed(
                name, f"by its record, tensors differ from the weights: {differing}", file=name
            )
        else:
            detail = "by its record, every tensor was derived again from the weights"
            yield QUANTIZED.passed(name, detail, file=name)
