"""A release's lineage, derived from plan and records: each tensor is traced through the records to the sources."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

from herdbook.architectures.mixtures import expert_of
from herdbook.errors import CheckpointError, StepError
from herdbook.key import canonical_json
from herdbook.plan.alignment import ZERO
from herdbook.plan.operation import (
    DrawRouters,
    FetchGguf,
    FoldAdapter,
    MakeRouters,
    MergeTensors,
    PerturbExperts,
)
from herdbook.provenance.lineage import MAX_LINE
from herdbook.recipe import Moe
from herdbook.weights.dtypes import ITEM_BYTES
from herdbook.weights.record import pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.jsonio import JsonObject
    from herdbook.plan import Part, Plan
    from herdbook.weights.checkpoint import Span
    from herdbook.weights.record import Record, SliceEntry, TensorEntry

NO_PARAMETERS = {"action", "dtype", "shape", "sha256", "from", "slices", "name", "spectrum", "kind"}


class EqualsEntry(TypedDict):
    """``lineage.Equals`` as it is written."""

    uri: str
    source: str
    file: str
    tensor: str
    rows: NotRequired[list[int]]


class MadeEntry(TypedDict):
    """``lineage.Derived`` as it is written."""

    operation: str
    action: str
    parameters: JsonObject
    model: str
    tensor: str
    of: list[OriginEntry]


class OriginEntry(TypedDict):
    """``lineage.TracedTensor`` as it is written. ``also`` has the other sources whose file has the same bytes."""

    sha256: str
    equals: NotRequired[EqualsEntry]
    also: NotRequired[list[EqualsEntry]]
    made: NotRequired[MadeEntry]


def lines(
    plan: Plan, records: Mapping[str, Record], headers: Mapping[str, Mapping[str, Span]]
) -> Iterator[str]:
    """Yield the lines of a release's lineage: file by file, in the order of bytes.

    Args:
        plan: The plan.
        records: The records of all parts, by key.
        headers: Position of each tensor in the released safetensors, by file.

    Raises:
        CheckpointError: If records, headers and plan contradict each other; the tensor is named.
        StepError: If a line would be too long to be read.
    """
    origins = _Origins(plan, records)
    for file, part in zip(plan.released.shard_names, plan.released.parts, strict=True):
        for span in sorted(headers[file].values(), key=lambda span: (span.start, span.end)):
            position = span.start
            for shape, name, origin in origins.slices(part.key, span.name):
                size = math.prod(shape) * ITEM_BYTES[span.dtype]
                place = {"begin": position, "end": position + size, "dtype": span.dtype, "shape": list(shape)}
                text = canonical_json({"file": file, "tensor": span.name, **place, "slice": name, **origin})
                if len(text) > MAX_LINE:
                    raise StepError(
                        f"lineage: {file}: tensor {span.name} has too many ancestors for one line"
                    )
                yield text + "\n"
                position += size
            if position != span.end:
                raise CheckpointError(
                    f"lineage: {file}: tensor {span.name} has {span.end - span.start} bytes, but its record implies "
                    f"{position - span.start}. Delete the shard and its record, and rebuild."
                )


class _Origins:
    """Traces tensors through records to the sources."""

    def __init__(self, plan: Plan, records: Mapping[str, Record]) -> None:
        self._plan, self._records = plan, records
        self._known: dict[tuple[str, str], OriginEntry] = {}
        self._files = {
            name: {tensor.name: tensor.file for tensor in source.tensors}
            for name, source in plan.lock.sources.items()
        }

    def slices(self, key: str, tensor: str) -> Iterator[tuple[tuple[int, ...], str | None, OriginEntry]]:
        """Yield shape, name and origin of each slice of a part's tensor; most have one slice, without a name.

        Raises:
            CheckpointError: If a record is missing, or records contradict each other.
        """
        key, tensor, entry = self._first(key, tensor)
        for slice_ in pieces(entry):
            yield tuple(slice_["shape"]), slice_.get("name"), self._describe(key, tensor, entry, slice_)

    def _entry(self, key: str, tensor: str) -> TensorEntry:
        try:
            return self._records[key]["tensors"][tensor]
        except KeyError as error:
            raise CheckpointError(
                f"lineage: no record contains tensor {tensor} of {key}. Rebuild the release."
            ) from error

    def _first(self, key: str, tensor: str) -> tuple[str, str, TensorEntry]:
        """Follow copies to the original tensor. A tensor that a step left unchanged is a copy, too: its bytes are equal."""
        while True:
            entry = self._entry(key, tensor)
            cited = entry.get("from", [])
            if len(cited) != 1:
                return key, tensor, entry
            parent = self._entry(cited[0]["key"], cited[0]["tensor"])
            if not _equal(entry, entry, parent):
                if entry["action"] == "copy":
                    model = self._plan.parts[cited[0]["key"]].model
                    raise CheckpointError(
                        f"lineage: tensor {tensor} is declared as a copy of {cited[0]['tensor']} of {model}, but their "
                        "digests differ. Delete the shard and its record, and rebuild."
                    )
                return key, tensor, entry
            key, tensor = cited[0]["key"], cited[0]["tensor"]

    def _origin(self, key: str, tensor: str) -> OriginEntry:
        """Return digest and origin of a whole tensor."""
        if (key, tensor) not in self._known:
            first, name, entry = self._first(key, tensor)
            self._known[key, tensor] = self._describe(first, name, entry, cast("SliceEntry", entry))
        return self._known[key, tensor]

    def _describe(self, key: str, tensor: str, entry: TensorEntry, slice_: SliceEntry) -> OriginEntry:
        """Return digest and origin of a tensor that is not a copy, or of a slice of it.

        Args:
            key: The part that contains it.
            tensor: Its name in that part.
            entry: The record's entry of the tensor.
            slice_: The entry of the slice; the same object if the tensor has no slices.
        """
        if entry["action"] == "fetch":
            return self._fetched(key, tensor, slice_["sha256"])
        cited = slice_.get("from", [])
        if slice_ is not entry and len(cited) == 1:
            parent = cited[0]["key"], cited[0]["tensor"]
            if _equal(slice_, entry, self._entry(*parent)):
                return self._origin(*parent)
            if rows := self._equal_rows(entry, slice_, parent):
                return rows
        part = self._plan.parts[key]
        name = slice_.get("name", tensor)
        if "slices" in entry and slice_ is cast("SliceEntry", entry):
            of = [self._describe(key, tensor, entry, inner) for inner in entry["slices"]]
        else:
            of = [self._origin(parent["key"], parent["tensor"]) for parent in cited]
        made: MadeEntry = {
            "operation": part.rule,
            "action": "zeros" if slice_.get("kind") == ZERO else entry["action"],
            "parameters": self._parameters(
                part, name, {**slice_, "action": "rows"} if "kind" in slice_ else entry
            ),
            "model": part.model,
            "tensor": name,
            "of": of,
        }
        return {"sha256": slice_["sha256"], "made": made}

    def _equal_rows(
        self, entry: TensorEntry, slice_: SliceEntry, parent: tuple[str, str]
    ) -> OriginEntry | None:
        """Return digest and origin of rows that equal rows of an upstream tensor; None if they are not such rows."""
        if "rows" not in slice_ or self._entry(*parent)["dtype"] != entry["dtype"]:
            return None
        first = slice_["rows"][0]
        rows = [first, first + slice_["shape"][0]]
        origin = self._origin(*parent)
        if "equals" not in origin:
            return None
        found: OriginEntry = {"sha256": slice_["sha256"], "equals": {**origin["equals"], "rows": rows}}
        if "also" in origin:
            found["also"] = [{**equal, "rows": rows} for equal in origin["also"]]
        return found

    def _fetched(self, key: str, tensor: str, sha256: str) -> OriginEntry:
        part = self._plan.parts[key]
        source = self._plan.lock.sources[part.model]
        if isinstance(part.operation, FetchGguf):
            container = source.files[0]
            parameters: JsonObject = {
                "uri": source.uri,
                "file": container.name,
                "file_sha256": container.sha256,
                "dtype": part.operation.dtype,
            }
            made: MadeEntry = {
                "operation": "fetch",
                "action": "dequantize",
                "parameters": parameters,
                "model": part.model,
                "tensor": tensor,
                "of": [],
            }
            return {"sha256": sha256, "made": made}
        equal = [self._upstream(node.name, tensor) for node in self._plan.holders[key]]
        found: OriginEntry = {"sha256": sha256, "equals": equal[0]}
        if len(equal) > 1:
            found["also"] = equal[1:]
        return found

    def _upstream(self, name: str, tensor: str) -> EqualsEntry:
        """Return the location of a tensor in a source."""
        uri, file = self._plan.lock.sources[name].uri, self._files[name][tensor]
        return {"uri": uri, "source": name, "file": file, "tensor": tensor}

    def _parameters(self, part: Part, tensor: str, entry: Mapping[str, Any]) -> JsonObject:
        """Return the parameters of a tensor: those in its own record, and those that it takes from its part."""
        result = {name: value for name, value in entry.items() if name not in NO_PARAMETERS}
        match part.operation:
            case MakeRouters() | DrawRouters() as routers:
                model = self._plan.nodes[part.model].recipe
                assert isinstance(model, Moe)  # noqa: S101 - nothing else has routers
                result["base"] = model.moe.base
                if isinstance(routers, DrawRouters):
                    result["seed"] = routers.seed
            case PerturbExperts() as perturbing if entry["action"] == "alter":
                expert = expert_of(tensor)
                scale = perturbing.scales[str(expert[0]) if expert else "shared"]
                result |= {
                    "noise_scale": scale.noise,
                    "residual_scale": scale.residual,
                    "seed": perturbing.seed,
                }
            case FoldAdapter() as fold if entry["action"] == "adapter":
                result["files"] = dict(fold.files)
            case MergeTensors() as merge if entry["action"] == "merge":
                result |= {"method": merge.method, **merge.settings}
            case _:
                pass
        return result


def _equal(slice_: SliceEntry | TensorEntry, entry: TensorEntry, parent: TensorEntry) -> bool:
    """Return whether a tensor, or a slice of it, has its parent's bytes and dtype."""
    return slice_["sha256"] == parent["sha256"] and entry["dtype"] == parent["dtype"]
