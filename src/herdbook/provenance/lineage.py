"""Lineage: the origin of the bytes of every tensor in a release, slice by slice where several are stacked in one.

The bytes either equal those of an upstream tensor, after any number of copies, or a step made them from other tensors,
which have the same kind of entry. So most of a merge can be proven by comparing byte ranges, without computing anything.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from herdbook import jsonio, limits
from herdbook.architectures.mixtures import expert_of
from herdbook.errors import CheckpointError, StepError, VerificationError
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
from herdbook.recipe import Moe
from herdbook.weights.dtypes import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan import Part, Plan
    from herdbook.weights.checkpoint import Span

MAX_LINE = 1 << 20  # characters; a longer line is refused when it is written or read
MAX_DEPTH = 64  # models between a release's tensor and a source
NO_PARAMETERS = {"action", "dtype", "shape", "sha256", "from", "slices", "name", "spectrum", "kind"}


@dataclass(frozen=True)
class Equals:
    """An upstream tensor that bytes equal.

    Args:
        uri: URI of its model in the lock.
        source: Name of its model in the recipe.
        file: The upstream file that contains it.
        tensor: Its name in that file.
        rows: The rows of it that the bytes equal, as the first and the one after the last; None for all of them.
    """

    uri: str
    source: str
    file: str
    tensor: str
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Derived:
    """The origin of a tensor that a step made.

    Args:
        operation: The step.
        action: What the step did, as recorded.
        parameters: Settings and results of the step: ranks, weights, tolerance.
        model: The model in the recipe that the tensor belongs to.
        tensor: Its name in that model.
        of: The tensors that it was made from, in order.
    """

    operation: str
    action: str
    parameters: dict[str, Any] = field(hash=False)
    model: str
    tensor: str
    of: tuple[TracedTensor, ...]


@dataclass(frozen=True)
class TracedTensor:
    """A tensor between sources and release: the digest of its bytes, and one of the two origins."""

    sha256: str
    equals: Equals | None = None
    made: Derived | None = None


@dataclass(frozen=True)
class LineageSlice:
    """A range of bytes in a released file: a tensor, or one of those that are stacked in it.

    Args:
        file: The file.
        tensor: The tensor in it.
        slice: The name that the slice would have as a tensor of its own; None for a whole tensor.
        dtype: Its dtype, by the code of safetensors.
        shape: Its shape.
        begin: Offset of its first byte in the file.
        end: Offset of the byte after its last.
        sha256: Digest of its bytes.
        equals: The upstream tensor that it equals, if any.
        made: Otherwise the step that made it.
    """

    file: str
    tensor: str
    slice: str | None
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    sha256: str
    equals: Equals | None = None
    made: Derived | None = None


def lines(
    plan: Plan, records: Mapping[str, Mapping[str, Any]], headers: Mapping[str, Mapping[str, Span]]
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
            for shape, about in origins.slices(part.key, span.name):
                size = math.prod(shape) * ITEM_BYTES[span.dtype]
                place = {"begin": position, "end": position + size, "dtype": span.dtype, "shape": list(shape)}
                text = canonical_json({"file": file, "tensor": span.name, **place, **about})
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

    def __init__(self, plan: Plan, records: Mapping[str, Mapping[str, Any]]) -> None:
        self._plan, self._records = plan, records
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self._files = {
            name: {tensor.name: tensor.file for tensor in source.tensors}
            for name, source in plan.lock.sources.items()
        }

    def slices(self, key: str, tensor: str) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
        """Yield shape, name, digest and origin of each slice of a part's tensor; most have one slice, without a name.

        Raises:
            CheckpointError: If a record is missing, or records contradict each other.
        """
        key, tensor, entry = self._first(key, tensor)
        for slice_ in entry.get("slices", [entry]):
            yield (
                tuple(slice_["shape"]),
                {"slice": slice_.get("name"), **self._describe(key, tensor, entry, slice_)},
            )

    def _entry(self, key: str, tensor: str) -> Mapping[str, Any]:
        try:
            return self._records[key]["tensors"][tensor]  # type: ignore[no-any-return]
        except KeyError as error:
            raise CheckpointError(
                f"lineage: no record contains tensor {tensor} of {key}. Rebuild the release."
            ) from error

    def _first(self, key: str, tensor: str) -> tuple[str, str, Mapping[str, Any]]:
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

    def _origin(self, key: str, tensor: str) -> dict[str, Any]:
        """Return digest and origin of a whole tensor."""
        if (key, tensor) not in self._known:
            first, name, entry = self._first(key, tensor)
            self._known[key, tensor] = self._describe(first, name, entry, entry)
        return self._known[key, tensor]

    def _describe(
        self, key: str, tensor: str, entry: Mapping[str, Any], slice_: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return digest and origin of a tensor that is not a copy, or of a slice of it.

        Args:
            key: The part that contains it.
            tensor: Its name in that part.
            entry: The record's entry of the tensor.
            slice_: The entry of the slice; the same object if the tensor has no slices.
        """
        if entry["action"] == "fetch":
            return {"sha256": slice_["sha256"], **self._fetched(key, tensor)}
        cited = slice_.get("from", [])
        if slice_ is not entry and len(cited) == 1:
            parent = cited[0]["key"], cited[0]["tensor"]
            if _equal(slice_, entry, self._entry(*parent)):
                return self._origin(*parent)
            if rows := self._equal_rows(entry, slice_, parent):
                return rows
        part = self._plan.parts[key]
        name = slice_.get("name", tensor)
        if "slices" in slice_:
            of = [self._describe(key, tensor, entry, inner) for inner in slice_["slices"]]
        else:
            of = [self._origin(parent["key"], parent["tensor"]) for parent in cited]
        made = {
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
        self, entry: Mapping[str, Any], slice_: Mapping[str, Any], parent: tuple[str, str]
    ) -> dict[str, Any] | None:
        """Return digest and origin of rows that equal rows of an upstream tensor; None if they are not such rows."""
        if "rows" not in slice_ or self._entry(*parent)["dtype"] != entry["dtype"]:
            return None
        first = slice_["rows"][0]
        rows = [first, first + slice_["shape"][0]]
        origin = self._origin(*parent)
        if "equals" not in origin:
            return None
        found = {"sha256": slice_["sha256"], "equals": {**origin["equals"], "rows": rows}}
        return found | (
            {"also": [{**one, "rows": rows} for one in origin["also"]]} if "also" in origin else {}
        )

    def _fetched(self, key: str, tensor: str) -> dict[str, Any]:
        part = self._plan.parts[key]
        source = self._plan.lock.sources[part.model]
        if isinstance(part.operation, FetchGguf):
            container = source.files[0]
            parameters = {
                "uri": source.uri,
                "file": container.name,
                "file_sha256": container.sha256,
                "dtype": part.operation.dtype,
            }
            made = {
                "operation": "fetch",
                "action": "dequantize",
                "parameters": parameters,
                "model": part.model,
                "tensor": tensor,
                "of": [],
            }
            return {"made": made}
        equal = [self._upstream(node.name, tensor) for node in self._plan.holders[key]]
        return {"equals": equal[0], **({"also": equal[1:]} if len(equal) > 1 else {})}

    def _upstream(self, name: str, tensor: str) -> dict[str, str]:
        """Return the location of a tensor in a source."""
        uri, file = self._plan.lock.sources[name].uri, self._files[name][tensor]
        return {"uri": uri, "source": name, "file": file, "tensor": tensor}

    def _parameters(self, part: Part, tensor: str, entry: Mapping[str, Any]) -> dict[str, Any]:
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


def _equal(slice_: Mapping[str, Any], entry: Mapping[str, Any], parent: Mapping[str, Any]) -> bool:
    """Return whether a tensor, or a slice of it, has its parent's bytes and dtype."""
    return bool(slice_["sha256"] == parent["sha256"] and entry["dtype"] == parent["dtype"])


def parse(text: str) -> list[LineageSlice]:
    """Read lineage.

    Raises:
        VerificationError: If it is damaged or too large; the line is named.
    """
    slices: list[LineageSlice] = []
    values = 0
    for number, ended in enumerate(io.StringIO(text, newline="\n"), start=1):
        line = ended.removesuffix("\n")
        values += sum(line.count(sign) for sign in ",[{")
        if len(line) > MAX_LINE or number > limits.TENSORS or values > limits.LINEAGE.values:
            raise VerificationError(
                f"lineage: line {number}: is over the limits ({MAX_LINE:,} characters per line, {limits.TENSORS:,} lines, "
                f"{limits.LINEAGE.values:,} values)"
            )
        if not line:
            continue
        try:
            slices.append(_read_slice(jsonio.load(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise VerificationError(f"lineage: line {number}: is damaged: {error!r}") from error
    return slices


def _read_slice(data: dict[str, Any]) -> LineageSlice:
    shape = tuple(_count(extent) for extent in data["shape"])
    begin, end, dtype = _count(data["begin"]), _count(data["end"]), _text(data["dtype"])
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ValueError(f"bytes {begin} to {end} do not fit {dtype} {list(shape)}")
    origin = _read_origin(data, 0)
    return LineageSlice(
        _text(data["file"]),
        _text(data["tensor"]),
        None if data["slice"] is None else _text(data["slice"]),
        dtype,
        shape,
        begin,
        end,
        origin.sha256,
        origin.equals,
        origin.made,
    )


def _read_origin(data: dict[str, Any], depth: int) -> TracedTensor:
    if depth > MAX_DEPTH:
        raise ValueError("its ancestry is too deep")
    sha256 = _text(data["sha256"])
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ValueError(f"{sha256!r} is not a SHA-256")
    if ("equals" in data) == ("made" in data):
        raise ValueError("either `equals` or `made` is needed")
    if "equals" in data:
        upstream = data["equals"]
        uri, source, file, tensor = (_text(upstream[key]) for key in ("uri", "source", "file", "tensor"))
        rows = None
        if "rows" in upstream:
            first, stop = (_count(row) for row in upstream["rows"])
            rows = (first, stop)
        return TracedTensor(sha256, equals=Equals(uri, source, file, tensor, rows))
    derived = data["made"]
    if not isinstance(derived["parameters"], dict):
        raise TypeError("`parameters` is not an object")
    made = Derived(
        _text(derived["operation"]),
        _text(derived["action"]),
        derived["parameters"],
        _text(derived["model"]),
        _text(derived["tensor"]),
        tuple(_read_origin(parent, depth + 1) for parent in derived["of"]),
    )
    return TracedTensor(sha256, made=made)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
