"""The part of the level `claims` about the pedigree: recipe, lock, records and lineage agree, without a gap.

All of these are in the release. Later levels check what the sources really contain.
"""

from __future__ import annotations

import hashlib
import io
import math
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from herdbook import limits
from herdbook.key import SHORT
from herdbook.layout import LINEAGE
from herdbook.plan.alignment import ZERO, name_of, parts_of
from herdbook.plan.operation import (
    DrawRouters,
    LineUp,
    MakeRouters,
    MergeTensors,
    ReduceAsSearched,
)
from herdbook.provenance.origins import lines
from herdbook.release.finding import Check
from herdbook.release.reader import damaged
from herdbook.weights.dtypes import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan import Part, Plan, Tensor
    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release

LEVEL = "claims"
KEYS = Check(LEVEL, "keys")
STEPS = Check(LEVEL, "steps")
ORIGINS = Check(LEVEL, "origins")
LINEAGES = Check(LEVEL, "lineage")
PIECE_BYTES = 1 << 20
# All that a record may contain; of tensors, where nothing but the tensors is made, so that no later level compares it.
KEYS_OF_RECORD = {"code", "file", "key", "operation", "parameters", "tensors"}
KEYS_OF_FILE = {"sha256", "size_bytes"}
KEYS_OF_TENSOR = {"action", "dtype", "from", "kind", "name", "rows", "sha256", "shape", "slices"}
WITHOUT_EVIDENCE = {"cast", "copy", "fetch", "rows", "stack", "zeros"}


def keys(plan: Plan, recorded: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that recipe and lock give the keys that the provenance names.

    Args:
        plan: The plan of the release's recipe and lock, with the code that the provenance names.
        recorded: The keys that it names.
    """
    detail = "recipe, lock and recorded code give it another key than the provenance names"
    found = {name: node.key for name, node in plan.nodes.items()}
    for name in sorted(found.keys() | recorded.keys()):
        if found.get(name) != recorded.get(name):
            yield KEYS.failed(
                name, detail, expected=found.get(name, "none"), found=str(recorded.get(name, "none"))
            )
    if found == recorded:
        yield KEYS.passed(
            f"{len(found)} models", "recipe, lock and recorded code give the keys that the provenance names"
        )


def records(plan: Plan, release: Release) -> Iterator[Finding]:
    """Check that each step of the plan has a record that matches it, and that no record describes another step."""
    recorded = release.records()
    wrong = False
    for key in sorted(recorded.keys() | plan.parts.keys()):
        part, record = plan.parts.get(key), recorded.get(key)
        if part is None or record is None:
            wrong = True
            if part is None:
                yield STEPS.failed(f"record {key[:SHORT]}", "belongs to no step of the recipe")
            else:
                yield STEPS.failed(part.id, "has no record")
            continue
        for tensor, aspect, expected, actual in _differences(part, record):
            wrong = True
            yield STEPS.failed(
                part.id, f"its record has another {aspect}", expected=expected, found=actual, tensor=tensor
            )
    if not wrong:
        yield STEPS.passed(f"{len(recorded)} records", "match the steps that follow from recipe and lock")


def _differences(part: Part, record: Mapping[str, Any]) -> Iterator[tuple[str | None, str, str, str]]:
    """Yield where a record differs from the plan: tensor, aspect, planned value, recorded value."""
    for aspect, planned, recorded in (
        ("operation", part.rule, record["operation"]),
        ("parameter", part.operation.parameters, record["parameters"]),
        ("code", part.code.json, record.get("code")),
        ("set of tensors", sorted(tensor.name for tensor in part.tensors), sorted(record["tensors"])),
    ):
        if planned != recorded:
            yield None, aspect, str(planned), str(recorded)
            return
    for unknown in (*sorted(record.keys() - KEYS_OF_RECORD), *sorted(record["file"].keys() - KEYS_OF_FILE)):
        yield None, "entry", "none", unknown
    for tensor in part.tensors:
        entry = record["tensors"][tensor.name]
        if entry["action"] in WITHOUT_EVIDENCE:
            pieces = [entry, *entry.get("slices", [])]
            for unknown in sorted({key for piece in pieces for key in piece} - KEYS_OF_TENSOR):
                yield tensor.name, "entry", "none", unknown
        form = (tensor.dtype, list(tensor.shape))
        if form != (entry["dtype"], entry["shape"]):
            yield tensor.name, "dtype or shape", str(form), str((entry["dtype"], entry["shape"]))
        if not _may_be(part, tensor, entry["action"]):
            yield tensor.name, "action", tensor.action, entry["action"]
        elif (
            isinstance(part.operation, MakeRouters | DrawRouters) and entry.get("gate") != part.operation.gate
        ):
            yield tensor.name, "gate", part.operation.gate, str(entry.get("gate"))
        elif isinstance(part.operation, MergeTensors) and entry["action"] == "merge":
            planned = {"method": part.operation.method, **part.operation.values[tensor.name]}
            stated = {name: entry.get(name) for name in planned}
            if planned != stated:
                yield tensor.name, "method or value", str(planned), str(stated)
        elif tensor.action == "rows":
            runs, found = _runs(part, tensor.name), [_rows(piece) for piece in entry.get("slices", [])]
            if runs != found:
                yield tensor.name, "order of rows", str(runs)[:1000], str(found)[:1000]
        elif tensor.slices and (named := [piece["name"] for piece in entry.get("slices", [])]) != list(
            tensor.slices
        ):
            yield tensor.name, "list of slices", str(list(tensor.slices))[:1000], str(named)[:1000]
        elif tensor.action == "zeros" and entry["sha256"] != _digest_of_zeros(tensor.size_bytes):
            yield tensor.name, "digest than zeros have", _digest_of_zeros(tensor.size_bytes), entry["sha256"]
        cited = [
            (parent["key"], parent["tensor"])
            for piece in entry.get("slices", [entry])
            for parent in piece.get("from", [])
        ]
        origins = [(origin.part, origin.tensor) for origin in tensor.origins]
        if cited != origins:
            yield tensor.name, "origin", str(origins), str(cited)


def _runs(part: Part, tensor: str) -> list[tuple[str, str, int, list[int]]]:
    """Return the name, the kind, the length and the first rows of each run of which a tensor is put together, as planned."""
    operation = part.operation
    runs = operation.rows[tensor] if isinstance(operation, LineUp) else []
    if isinstance(operation, MergeTensors):
        runs = operation.values[tensor]["rows"]
    return [(name_of(tensor, run), run[2], run[1], [row for _, row in parts_of(run)]) for run in runs]


def _rows(piece: Mapping[str, Any]) -> tuple[str, str, int, list[int]]:
    """Return the same of a slice in a record; of one that is not of the planned kind, its content."""
    return piece["name"], piece["kind"], piece["shape"][0], piece["rows"]


def _may_be(part: Part, tensor: Tensor, action: str) -> bool:
    """Return whether a step may have recorded an action: the planned one; a search may leave a matrix as it is."""
    unchanged = isinstance(part.operation, ReduceAsSearched) and tensor.action == "laser" and action == "copy"
    return action == tensor.action or unchanged


def _size(piece: Mapping[str, Any], dtype: str) -> int:
    return int(math.prod(piece["shape"])) * ITEM_BYTES[dtype]


def _digest_of_zeros(size_bytes: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, size_bytes, PIECE_BYTES):
        digest.update(bytes(min(PIECE_BYTES, size_bytes - start)))
    return digest.hexdigest()


def origins(plan: Plan, release: Release) -> Iterator[Finding]:
    """Check that cited tensors have the cited digests, copies equal their originals, and fetched files are in the lock."""
    recorded = release.records()
    pinned = {
        digest
        for source in plan.lock.sources.values()
        for file in source.files
        for digest in (file.sha256, file.git_blob)
    }
    counts: dict[str, int] = {}
    wrong = False
    for record in recorded.values():
        for name, entry in record["tensors"].items():
            counts[entry["action"]] = counts.get(entry["action"], 0) + 1
            for detail, expected, actual in _contradictions(plan, record, entry, pinned, recorded):
                wrong = True
                yield ORIGINS.failed(
                    f"record {record['key'][:SHORT]}", detail, expected=expected, found=actual, tensor=name
                )
    if not wrong:
        kinds = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
        yield ORIGINS.passed(
            f"{sum(counts.values())} tensors", f"are traced to the lock by the records ({kinds})"
        )


def _contradictions(
    plan: Plan,
    record: Mapping[str, Any],
    entry: Mapping[str, Any],
    pinned: set[str | None],
    recorded: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield what is wrong with a tensor's entry: the problem, the expected digest, the actual digest."""
    source = record["parameters"].get("file")
    if entry["action"] == "fetch" and source not in pinned:
        yield "comes from a file that the lock does not name", None, str(source)
    pieces = entry.get("slices", [entry])
    for piece in pieces:
        for cited in piece.get("from", []):
            parent = recorded.get(cited["key"], {}).get("tensors", {}).get(cited["tensor"], {})
            part = plan.parts.get(cited["key"])
            where = f"{cited['tensor']} of {part.model if part else cited['key'][:SHORT]}"
            if parent.get("sha256") != cited["sha256"]:
                yield (
                    f"cites {where} with another digest than its record has",
                    parent.get("sha256"),
                    cited["sha256"],
                )
            elif entry["action"] in {"copy", "stack"} and cited["sha256"] != piece["sha256"]:
                yield (
                    f"is declared as a copy of {where}, but differs from it",
                    cited["sha256"],
                    piece["sha256"],
                )
        if piece.get("kind") == ZERO and piece["sha256"] != _digest_of_zeros(_size(piece, entry["dtype"])):
            yield f"states that {piece['name']} is zero, and it is not", None, piece["sha256"]
        if entry["action"] == "copy" and not piece.get("from"):
            yield "is declared as a copy, but names no original", None, None


def lineage(plan: Plan, release: Release) -> Iterator[Finding]:
    """Check that the lineage follows from the records, and so covers every byte of every tensor."""
    headers = {name: release.subject.header(name) for name in plan.released.shard_names}
    text = release.subject.read(LINEAGE, limits.LINEAGE.size_bytes)
    with damaged(LINEAGE):
        actual = io.StringIO(
            text.decode(), newline="\n"
        )  # line by line: a list of lines can take eight times the text
    derived = lines(plan, release.records(), headers)
    count = 0
    for number, (expected, found) in enumerate(zip_longest(derived, actual), start=1):
        count = number
        if expected != found:
            detail = f"line {number} does not follow from the records"
            yield LINEAGES.failed(LINEAGE, detail, expected=_line(expected), found=_line(found), file=LINEAGE)
            return
    release.lineage()  # raises if readers of the release could not parse it
    yield LINEAGES.passed(f"{count} slices", "follow from the records and cover every byte of every tensor")


def _line(text: str | None) -> str:
    return text.rstrip("\n")[:1000] if text else "no such line"
