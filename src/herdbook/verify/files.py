"""The level `files`: these are the files of the release, byte for byte, and the records describe them.

In a folder every file is read. On the Hub small files are read as a whole, and only the headers of weights: the Hub states
the SHA-256 of large files itself and refuses uploads that differ from it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook import limits
from herdbook.errors import CheckpointError, HerdbookError, VerificationError
from herdbook.layout import CONFIG, IMATRIX, OUTSIDE_SUMS, RECORDS, SUMS, WEIGHTS_INDEX
from herdbook.plan.edition import Edition
from herdbook.progress import track
from herdbook.release.finding import Check
from herdbook.release.places import INERT, ignored_text, unlisted
from herdbook.release.reader import caught, damaged, unread
from herdbook.release.subject import FolderSubject, MissingError
from herdbook.sources import lfs, remote_code
from herdbook.sources.index import read_index
from herdbook.verify import reference
from herdbook.verify.ahead import THREADS, in_order
from herdbook.weights.checkpoint import digest_open_shard
from herdbook.weights.loading import loading_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release

LEVEL = "files"
SUMMED = Check(LEVEL, "sums")
UNLISTED = Check(LEVEL, "unlisted")
RECORDED = Check(LEVEL, "records")
INDEX = Check(LEVEL, "index")
LOADS = Check(LEVEL, "loads whole")
CODE = Check(LEVEL, "remote code")
QUANTIZED = Check(LEVEL, "quantized")
SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")  # the end of the name of a part


@dataclass(frozen=True)
class _Read:
    """The content of a listed file, as far as it was read.

    Args:
        sha256: Digest of its content.
        tensors: Dtype, shape and, in a folder, digest of each tensor, by name; None for other files than safetensors.
        damage: Why its tensors cannot be read.
    """

    sha256: str
    tensors: dict[str, tuple[Any, ...]] | None = None
    damage: str | None = None


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Check every file, and every tensor's file, dtype and shape; in a folder also its digest."""
    yield from caught(reference.check(release, options), reference.REFERENCE, release)
    yield from _unlisted(release)
    in_folder = isinstance(release.subject, FolderSubject)
    contents: dict[str, _Read] = {}
    names = [name for name in sorted(release.sums) if name in release.subject.files]
    with track("files", len(names)) as advance:
        for name, take in in_order(lambda name: _read(release, name), names, 1 if in_folder else THREADS):
            try:
                contents[name] = take()
            except (HerdbookError, OSError) as error:
                yield SUMMED.error(name, error, file=name)
            advance()
    yield from _summed(release, contents)
    yield from caught(_records(release, contents, with_digests=in_folder), RECORDED, release)
    yield from caught(_index(release, contents), INDEX, release)
    yield from caught(_loads(release, contents), LOADS, release)
    yield from caught(_remote_code(release), CODE, release)
    yield from caught(_quantized(release), QUANTIZED, release)


def _unlisted(release: Release) -> Iterator[Finding]:
    """Check that every file is listed, is of a kind that no program loads, or was left by a program that copied it."""
    for name, why in sorted(release.subject.odd.items()):
        yield UNLISTED.failed(name, why, file=name)
    found = unlisted(release)
    for name in found.others:
        if INERT.fullmatch(name):
            yield UNLISTED.passed(name, "is not part of the release, and no program loads it", file=name)
        else:
            yield UNLISTED.failed(name, f"is not listed in {SUMS}", file=name)
    for where, count in found.left.items():
        yield UNLISTED.passed(where, ignored_text(count))


def _read(release: Release, name: str) -> _Read:
    """Read a file as far as needed: in a folder once, for its digest and those of its tensors."""
    subject = release.subject
    if not name.endswith(".safetensors"):
        return _Read(subject.digest(name))
    try:
        with damaged(name):
            if isinstance(subject, FolderSubject):
                with subject.open(name) as file:
                    whole, entries = digest_open_shard(file, name)
                subject.count(subject.files[name].size_bytes)
                return _Read(
                    whole, {t: (e["dtype"], tuple(e["shape"]), e["sha256"]) for t, e in entries.items()}
                )
            header = subject.header(name)
            return _Read(subject.digest(name), {t: (span.dtype, span.shape) for t, span in header.items()})
    except (CheckpointError, VerificationError) as error:
        return _Read(subject.digest(name), damage=str(error))


def _summed(release: Release, contents: dict[str, _Read]) -> Iterator[Finding]:
    """Check that every listed file exists and has its digest."""
    names = {digest: name for name, digest in sorted(release.sums.items(), reverse=True)}
    missing = release.sums.keys() - release.subject.files.keys()
    strays = _strays(release) if missing else {}
    for name, expected in sorted(release.sums.items()):
        about = {"file": name, "expected": expected}
        if name in missing:
            stray = strays.get(expected)
            yield SUMMED.failed(
                name, f"is missing; {stray} has its content" if stray else "is missing", **about
            )
        elif name in contents:
            found = contents[name].sha256
            if found == expected:
                yield SUMMED.passed(name, f"has the digest that {SUMS} lists", found=found, **about)
            else:
                hint = (
                    f": it has the content of {names[found]}" if found in names else _pointer(release, name)
                )
                yield SUMMED.failed(
                    name, f"does not have the digest that {SUMS} lists{hint}", found=found, **about
                )


def _pointer(release: Release, name: str) -> str:
    """Return advice if a file is what git checks out in place of a large file while Git LFS is not installed."""
    size = release.subject.files[name].size_bytes
    head = release.subject.read_range(name, 0, min(size, len(lfs.START)))
    return f": {lfs.ADVICE}" if lfs.is_pointer(head) else ""


def _strays(release: Release) -> dict[str, str]:
    """Return the names of files that are not listed, by their digests."""
    names = {}
    for name in sorted(release.subject.files.keys() - release.sums.keys() - OUTSIDE_SUMS):
        with suppress(HerdbookError, OSError):
            names[release.subject.digest(name)] = name
    return names


def _records(release: Release, contents: dict[str, _Read], *, with_digests: bool) -> Iterator[Finding]:
    """Check each weights file, and each tensor in it, against its record."""
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
            yield RECORDED.failed(name, "no record describes this content", found=read.sha256, file=name)
            continue
        size = release.subject.files[name].size_bytes
        if record["file"].get("size_bytes") != size:
            stated = str(record["file"].get("size_bytes"))
            yield RECORDED.failed(
                name, "its record states another size", expected=str(size), found=stated, file=name
            )
        recorded = {
            tensor: (entry["dtype"], tuple(entry["shape"]), *([entry["sha256"]] if with_digests else []))
            for tensor, entry in record["tensors"].items()
        }
        wrong = sorted(
            t for t in recorded.keys() | read.tensors.keys() if recorded.get(t) != read.tensors.get(t)
        )
        for tensor in wrong:
            yield RECORDED.failed(
                name,
                f"tensor {tensor} differs from record {record['key'][:12]}",
                expected=_format(recorded.get(tensor)),
                found=_format(read.tensors.get(tensor)),
                file=name,
                tensor=tensor,
            )
        if not wrong:
            checked = "bytes, dtypes and shapes" if with_digests else "dtypes and shapes"
            yield RECORDED.passed(name, f"{checked} of all its tensors are as recorded", file=name)


def _format(entry: tuple[Any, ...] | None) -> str:
    return (
        " ".join(str(list(value) if isinstance(value, tuple) else value) for value in entry)
        if entry
        else "nothing"
    )


def _index(release: Release, contents: dict[str, _Read]) -> Iterator[Finding]:
    """Check that the index names the right file for each tensor, and no other tensors."""
    actual = {t: name for name in release.weights() if name in contents for t in contents[name].tensors or {}}
    if WEIGHTS_INDEX not in release.sums:
        if len(release.weights()) > 1:
            yield INDEX.failed(
                WEIGHTS_INDEX, "is missing, although the weights are in several files", file=WEIGHTS_INDEX
            )
        return
    content = release.subject.read(WEIGHTS_INDEX, limits.DOCUMENT.size_bytes)
    with damaged(WEIGHTS_INDEX):
        listed = read_index(content)
    missing = [name for name in release.weights() if name not in release.subject.files]
    wrong = sorted(
        t
        for t in listed.keys() | actual.keys()
        if listed.get(t) != actual.get(t) and listed.get(t) not in missing
    )
    for name in missing:
        yield unread(INDEX, MissingError(name), release)
    for tensor in wrong:
        yield INDEX.failed(
            WEIGHTS_INDEX,
            f"names the wrong file for tensor {tensor}",
            expected=actual.get(tensor, "nothing"),
            found=listed.get(tensor, "nothing"),
            file=WEIGHTS_INDEX,
            tensor=tensor,
        )
    if not (wrong or missing):
        yield INDEX.passed(
            WEIGHTS_INDEX, f"names the right file for all {len(actual)} tensors", file=WEIGHTS_INDEX
        )


def _loads(release: Release, contents: dict[str, _Read]) -> Iterator[Finding]:
    """Check that the weights files contain each tensor that the configuration implies, and no other."""
    if not release.weights() and release.edition is Edition.GGUF:
        detail = f"has quantized files only, which are made from the weights in {release.recipe.release.repo}"
        yield LOADS.passed(release.name, detail)
        return
    unread = [name for name in release.weights() if name not in contents or contents[name].tensors is None]
    if unread:
        detail = f"whether all tensors exist is unknown, since {unread[0]} could not be read"
        yield LOADS.unverified(CONFIG, detail, file=CONFIG)
        return
    release.subject.entry(CONFIG)  # a missing one says nothing of the weights
    form = {
        tensor: tuple(entry[1])
        for name in release.weights()
        for tensor, entry in (contents[name].tensors or {}).items()
    }
    try:
        with damaged(CONFIG):
            problems = loading_problems(dict(release.subject.json(CONFIG)), form)
    except (HerdbookError, OSError) as error:
        yield LOADS.error(CONFIG, error, file=CONFIG)
        return
    for problem in problems:
        yield LOADS.failed(CONFIG, problem, file=CONFIG)
    if not problems:
        detail = f"implies the {len(form)} tensors of the weights files, with their shapes, and no others"
        yield LOADS.passed(CONFIG, detail, file=CONFIG)


def _remote_code(release: Release) -> Iterator[Finding]:
    """Check that no configuration leads programs to code, which they run if the repository is trusted."""
    listed = release.sums.keys() & release.subject.files.keys()
    names = [name for name in sorted(listed) if "/" not in name and name.endswith(CONFIG)]
    clean = 0
    for name in names:
        try:
            setting = remote_code.named_in(release.subject.json(name))
        except (HerdbookError, OSError) as error:
            yield CODE.error(name, error, file=name)
            continue
        if setting:
            yield CODE.failed(name, f"names code that programs would run ({setting})", file=name)
        clean += not setting
    if clean and clean == len(names):
        yield CODE.passed(f"{clean} configurations", "name no code")


def _quantized(release: Release) -> Iterator[Finding]:
    """Check that each quantized file has a record of its content, and of what each of its tensors was made from."""
    records: dict[str, int] = {}
    for name in sorted(
        name
        for name in release.sums
        if name.startswith(RECORDS) and name.endswith(".gguf.json") and not name.endswith(f"{IMATRIX}.json")
    ):
        record = release.subject.json(name)
        with damaged(name):
            records[record["file"]["sha256"]] = records[str(record["name"])] = len(record["tensors"])
    for name in sorted(
        name for name in release.sums if name.endswith(".gguf") and not name.endswith(IMATRIX)
    ):
        whole = SPLIT.sub(".gguf", name)
        count = records.get(release.sums[name] if whole == name else whole)
        if count is None:
            yield QUANTIZED.failed(
                name, "no record describes this content", found=release.sums[name], file=name
            )
        else:
            detail = (
                f"its record states what each of its {count} tensors was made from (see level recomputed)"
            )
            yield QUANTIZED.passed(name, detail, file=name)
