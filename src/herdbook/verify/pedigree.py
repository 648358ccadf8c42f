"""The part of the level `claims` about the pedigree: recipe, lock, records and lineage tell one story, without a gap.

All of it is in the release; what a source really holds is the business of the levels that follow.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from herdbook.key import SHORT
from herdbook.layout import LINEAGE
from herdbook.provenance.lineage import lines
from herdbook.release.finding import Check
from herdbook.release.reader import MAX_LINEAGE_BYTES, damaged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan import Part, Plan
    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release

LEVEL = "claims"
KEYS = Check(LEVEL, "keys")
STEPS = Check(LEVEL, "steps")
ORIGINS = Check(LEVEL, "origins")
LINEAGES = Check(LEVEL, "lineage")


def keys(plan: Plan, said: Mapping[str, Any]) -> Iterator[Finding]:
    """Recipe and lock give the keys that the provenance names.

    Args:
        plan: The plan of the release's recipe and lock, with the code that the provenance names.
        said: The keys that it names.
    """
    found = {name: node.key for name, node in plan.nodes.items()}
    for name in sorted(found.keys() | said.keys()):
        if found.get(name) != said.get(name):
            detail = "recipe and lock give it another key than the provenance says"
            yield KEYS.failed(
                name, detail, expected=found.get(name, "none"), found=str(said.get(name, "none"))
            )
    if found == said:
        yield KEYS.passed(f"{len(found)} models", "recipe and lock give the keys that the provenance names")


def records(plan: Plan, release: Release) -> Iterator[Finding]:
    """Each step of the plan has a record, which tells what the plan asked for; no record tells of another step."""
    found = release.records()
    wrong = False
    for key in sorted(found.keys() | plan.parts.keys()):
        part, record = plan.parts.get(key), found.get(key)
        if part is None or record is None:
            wrong = True
            if part is None:
                yield STEPS.failed(f"record {key[:SHORT]}", "no step of the recipe makes it")
            else:
                yield STEPS.failed(part.id, "there is no record of it")
            continue
        for tensor, what, expected, told in _differences(part, record):
            wrong = True
            yield STEPS.failed(
                part.id, f"its record tells of another {what}", expected=expected, found=told, tensor=tensor
            )
    if not wrong:
        yield STEPS.passed(f"{len(found)} records", "tell of the steps that follow from recipe and lock")


def _differences(part: Part, record: Mapping[str, Any]) -> Iterator[tuple[str | None, str, str, str]]:
    """Yield what a record tells otherwise than the plan: tensor, what of it, as planned, as told."""
    for what, planned, told in (
        ("operation", part.rule, record["operation"]),
        ("parameter", part.operation.parameters, record["parameters"]),
        ("set of tensors", sorted(tensor.name for tensor in part.tensors), sorted(record["tensors"])),
    ):
        if planned != told:
            yield None, what, str(planned), str(told)
            return
    for tensor in part.tensors:
        entry = record["tensors"][tensor.name]
        form = (tensor.dtype, list(tensor.shape))
        if form != (entry["dtype"], entry["shape"]):
            yield tensor.name, "type or shape", str(form), str((entry["dtype"], entry["shape"]))
        cited = [
            (one["key"], one["tensor"])
            for piece in entry.get("slices", [entry])
            for one in piece.get("from", [])
        ]
        origins = [(origin.part, origin.tensor) for origin in tensor.origins]
        if cited != origins:
            yield tensor.name, "origin", str(origins), str(cited)


def origins(plan: Plan, release: Release) -> Iterator[Finding]:
    """What records cite is on record with that digest, copies equal what they copy, what was fetched is in the lock."""
    found = release.records()
    pinned = {
        digest
        for source in plan.lock.sources.values()
        for file in source.files
        for digest in (file.sha256, file.git_blob)
    }
    counts: dict[str, int] = {}
    wrong = False
    for record in found.values():
        for name, entry in record["tensors"].items():
            counts[entry["action"]] = counts.get(entry["action"], 0) + 1
            for detail, expected, told in _contradictions(record, entry, found, pinned):
                wrong = True
                yield ORIGINS.failed(
                    f"record {record['key'][:SHORT]}", detail, expected=expected, found=told, tensor=name
                )
    if not wrong:
        kinds = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
        yield ORIGINS.passed(f"{sum(counts.values())} tensors", f"lead back to the lock by record ({kinds})")


def _contradictions(
    record: Mapping[str, Any],
    entry: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Any]],
    pinned: set[str | None],
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield what is wrong with a tensor's entry: what, the digest it should have, the digest it has."""
    source = record["parameters"].get("file")
    if entry["action"] == "fetch" and source not in pinned:
        yield "comes from a file that the lock does not name", None, str(source)
    pieces = entry.get("slices", [entry])
    for piece in pieces:
        for cited in piece.get("from", []):
            parent = found.get(cited["key"], {}).get("tensors", {}).get(cited["tensor"], {})
            where = f"{cited['tensor']} of {cited['model']}"
            if parent.get("sha256") != cited["sha256"]:
                yield (
                    f"cites {where} with another digest than is on record",
                    parent.get("sha256"),
                    cited["sha256"],
                )
            elif entry["action"] == "copy" and cited["sha256"] != piece["sha256"]:
                yield (
                    f"is said to be a copy of {where}, but differs from it",
                    cited["sha256"],
                    piece["sha256"],
                )
        if entry["action"] == "copy" and not piece.get("from"):
            yield "is said to be a copy, but of nothing", None, None


def lineage(plan: Plan, release: Release) -> Iterator[Finding]:
    """The lineage is what the records give, so it covers every byte of every tensor."""
    headers = {name: release.subject.header(name) for name in plan.released.shard_names}
    text = release.subject.read(LINEAGE, MAX_LINEAGE_BYTES)
    with damaged(LINEAGE):
        told = text.decode().splitlines(keepends=True)
    derived = lines(plan, release.records(), headers)
    count = 0
    for number, (expected, found) in enumerate(zip_longest(derived, told), start=1):
        count = number
        if expected != found:
            detail = f"line {number} is not what the records give"
            yield LINEAGES.failed(LINEAGE, detail, expected=_line(expected), found=_line(found), file=LINEAGE)
            return
    release.lineage()  # reads it as others do
    yield LINEAGES.passed(f"{count} slices", "are what the records give, and leave no byte of a tensor out")


def _line(text: str | None) -> str:
    return text.rstrip("\n")[:1000] if text else "no such line"
