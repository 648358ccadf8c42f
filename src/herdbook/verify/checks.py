"""The checks, each cheaper than the next. Each yields one finding a thing that was checked."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.checkpoint import digest_shard
from herdbook.errors import HerdbookError, SourceError, VerificationError
from herdbook.fetch.select import check_name
from herdbook.files import sha256_file
from herdbook.key import Code, as_recorded, digest
from herdbook.plan import make
from herdbook.progress import track
from herdbook.release.layout import CLAIMS, LOCK, OUTSIDE_SUMS, RECIPE, RECORDS, SUMS
from herdbook.release.step import release_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.plan import Plan


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: ``files``, ``statement``, ``keys``, ``records``, ``lineage`` or ``quantized``.
        subject: The file or tensor, or what was counted.
        passed: Whether it is as it should be.
        detail: What was compared, or what is wrong, with expected and found digests.
    """

    check: str
    subject: str
    passed: bool
    detail: str


class Release:
    """A release's folder: its checksums, recipe, lock and records.

    Raises:
        VerificationError: If the folder has no checksums that can be read, or a name in them leads out of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sums: dict[str, str] = {}
        try:
            lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise VerificationError(f"{folder}: is no release: it has no {SUMS} that can be read") from error
        for number, line in enumerate(lines, start=1):
            digest, _, name = line.partition("  ")
            if len(digest) != 64 or not name or name in self.sums:
                raise VerificationError(f"{folder / SUMS}: line {number} is damaged")
            try:
                self.sums[check_name(name, str(folder / SUMS))] = digest
            except SourceError as error:
                raise VerificationError(str(error)) from error

    def json(self, name: str) -> Any:
        """Return a JSON file of the release. Raises VerificationError if it is missing or damaged."""
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VerificationError(f"{name}: cannot be read: {error}") from error

    def provenance(self) -> Any:
        """Return the first claim, its provenance. Raises VerificationError if it is missing or damaged."""
        try:
            with (self.folder / CLAIMS).open(encoding="utf-8") as file:
                return json.loads(file.readline())
        except (OSError, ValueError) as error:
            raise VerificationError(f"{CLAIMS}: cannot be read: {error}") from error

    def plan(self) -> Plan:
        """Return the plan that follows from the release's own recipe and lock."""
        return make(recipes.load(self.folder / RECIPE), locks.load(self.folder / LOCK), self.folder / RECIPE)


def verification_key(plan: Plan) -> str:
    """Return the digest of what a verification of a plan's release depends on."""
    return digest({"release": release_key(plan), "code": Code(("herdbook.verify.checks",)).describe()})


def verify(folder: Path) -> list[Finding]:
    """Verify a release: checksums, statement, keys, records, lineage, quantized files.

    Args:
        folder: The release.

    Returns:
        All findings, those that failed among them. A check that cannot be made at all is a finding that failed.
    """
    release = Release(folder)
    findings = list(_files(release))
    for check in (_statement, _keys, _records, _lineage, _quantized):
        try:
            findings += check(release)
        except (HerdbookError, KeyError, TypeError, AttributeError, StopIteration) as error:
            message = str(error) if isinstance(error, HerdbookError) else f"its data are damaged ({error!r})"
            findings.append(Finding(check.__name__[1:], folder.name, passed=False, detail=message))
    return findings


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Return findings as JSON for machines."""
    return {"passed": all(finding.passed for finding in findings), "findings": [asdict(f) for f in findings]}


def _files(release: Release) -> Iterator[Finding]:
    """Every file is listed, every listed file is there, and every digest fits."""
    present = {
        path.relative_to(release.folder).as_posix() for path in release.folder.rglob("*") if not path.is_dir()
    } - OUTSIDE_SUMS
    for name in sorted(present - release.sums.keys()):
        yield Finding("files", name, passed=False, detail=f"is not listed in {SUMS}")
    with track("files", len(release.sums)) as advance:
        for name, expected in release.sums.items():
            path = release.folder / name
            if not path.is_file():
                yield Finding("files", name, passed=False, detail="is missing")
            elif (found := sha256_file(path)) != expected:
                yield Finding(
                    "files", name, passed=False, detail=f"expected sha256 {expected}, found {found}"
                )
            else:
                yield Finding("files", name, passed=True, detail=f"sha256 {expected}")
            advance()


def _statement(release: Release) -> Iterator[Finding]:
    """The provenance statement is about these files."""
    data = release.provenance()
    subjects = {item["name"]: item["digest"]["sha256"] for item in data["subject"]}
    listed = {**release.sums, SUMS: sha256_file(release.folder / SUMS)}
    differing = sorted(
        name for name in subjects.keys() | listed.keys() if subjects.get(name) != listed.get(name)
    )
    for name in differing:
        detail = (
            f"the statement says {subjects.get(name, 'nothing')}, {SUMS} says {listed.get(name, 'nothing')}"
        )
        yield Finding("statement", name, passed=False, detail=detail)
    if not differing:
        yield Finding("statement", CLAIMS, passed=True, detail=f"is about all {len(subjects)} files")


def _keys(release: Release) -> Iterator[Finding]:
    """The keys follow from the release's own recipe and lock, and the code that the statement names."""
    said = release.provenance()["predicate"]["buildDefinition"]["internalParameters"]
    with as_recorded(said["code"]):
        plan = release.plan()
    for name, node in plan.nodes.items():
        expected = said["keys"].get(name)
        if expected != node.key:
            detail = f"recipe and lock give key {node.key}, the statement says {expected}"
            yield Finding("keys", name, passed=False, detail=detail)
    if said["keys"] == {name: node.key for name, node in plan.nodes.items()}:
        yield Finding(
            "keys", "recipe and lock", passed=True, detail=f"give the keys of all {len(plan.nodes)} models"
        )


def _shard_records(release: Release) -> dict[str, dict[str, Any]]:
    names = [name for name in release.sums if name.startswith(RECORDS) and not name.endswith(".gguf.json")]
    records = [release.json(name) for name in sorted(names)]
    return {record["key"]: record for record in records}


def _records(release: Release) -> Iterator[Finding]:
    """Each weights file, and each tensor in it, is what a record says."""
    by_digest = {record["file"]["sha256"]: record for record in _shard_records(release).values()}
    weights = [name for name in sorted(release.sums) if name.endswith(".safetensors")]
    with track("records", len(weights)) as advance:
        for name in weights:
            whole, tensors = digest_shard(release.folder / name)
            record = by_digest.get(whole)
            advance()
            if record is None:
                yield Finding(
                    "records", name, passed=False, detail=f"no record is about a file with sha256 {whole}"
                )
                continue
            said = {t: (e["dtype"], e["shape"], e["sha256"]) for t, e in record["tensors"].items()}
            found = {t: (e["dtype"], e["shape"], e["sha256"]) for t, e in tensors.items()}
            wrong = sorted(t for t in said.keys() | found.keys() if said.get(t) != found.get(t))
            for tensor in wrong:
                detail = (
                    f"tensor {tensor}: the record says {said.get(tensor)}, the file has {found.get(tensor)}"
                )
                yield Finding("records", name, passed=False, detail=detail)
            if not wrong:
                yield Finding("records", name, passed=True, detail=f"all {len(said)} tensors are as recorded")


def _lineage(release: Release) -> Iterator[Finding]:
    """Each tensor leads back to a locked source: what it cites is recorded, and copies equal what they were copied from."""
    records = _shard_records(release)
    plan = release.plan()
    pinned = {file.sha256 for source in plan.lock.sources.values() for file in source.files}
    counts: dict[str, int] = {}
    failed = False
    for record in records.values():
        source = record["parameters"].get("file") if record["operation"] == "fetch" else None
        for name, entry in record["tensors"].items():
            counts[entry["action"]] = counts.get(entry["action"], 0) + 1
            problem = _tensor_problem(record, entry, records, source, pinned)
            if problem:
                failed = True
                yield Finding("lineage", name, passed=False, detail=problem)
    if not failed:
        said = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
        yield Finding(
            "lineage",
            f"{sum(counts.values())} tensors",
            passed=True,
            detail=f"lead back to the lock ({said})",
        )


def _tensor_problem(
    record: dict[str, Any],
    entry: dict[str, Any],
    records: dict[str, dict[str, Any]],
    source: str | None,
    pinned: set[str | None],
) -> str | None:
    if entry["action"] == "fetch":
        known = source in pinned or not isinstance(source, str) or len(source) == 40
        return None if known else f"comes from a file with sha256 {source}, which the lock does not name"
    for cited in entry.get("from", []):
        parent = records.get(cited["key"])
        said = parent["tensors"].get(cited["tensor"], {}).get("sha256") if parent else None
        if said != cited["sha256"]:
            return f"cites {cited['tensor']} of {cited['model']} as {cited['sha256']}; its record says {said}"
        if entry["action"] == "copy" and cited["sha256"] != entry["sha256"]:
            return f"is said to be a copy of {cited['tensor']} of {cited['model']}, but differs from it"
    if entry["action"] == "copy" and not entry.get("from"):
        return f"is said to be a copy in {record['key']}, but of nothing"
    return None


def _quantized(release: Release) -> Iterator[Finding]:
    """Each quantized file was derived again from the released weights, tensor by tensor."""
    records = {
        record["file"]["sha256"]: record
        for record in (release.json(name) for name in sorted(release.sums) if name.endswith(".gguf.json"))
    }
    for name in sorted(name for name in release.sums if name.endswith(".gguf")):
        record = records.get(release.sums[name])
        if record is None:
            yield Finding("quantized", name, passed=False, detail="no record is about this file")
        elif record["verdict"] != "equal":
            yield Finding("quantized", name, passed=False, detail=f"tensors differ: {record['differing']}")
        else:
            detail = f"all {len(record['tensors'])} tensors were derived again from the weights"
            yield Finding("quantized", name, passed=True, detail=detail)
