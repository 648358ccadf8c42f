"""The steps that made a release: inputs, parameters and outputs of each, from the release's records.

This is the retrospective provenance that formats of workflow provenance need, independent of any format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from herdbook.export.items import Item, input_items, material_items, result_item
from herdbook.layout import EVALUATIONS, IMATRIX, LOSSES, RECORDS, ROUTING, SEARCHES
from herdbook.plan.folder import files_origin
from herdbook.plan.material import inputs, materials
from herdbook.plan.operation import FoldAdapter
from herdbook.plan.quantize import CONVERT_CODE, QUANTIZE_CODE
from herdbook.sources.purl import HubCommit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from herdbook.jsonio import JsonObject
    from herdbook.plan import Evaluation, FileLoss, Node, Part, Plan, Reference
    from herdbook.plan.material import Material


@dataclass(frozen=True)
class StepRun:
    """A step that ran.

    Args:
        id: Its unique name.
        step: The part of the recipe that it carried out: a model's name, a measurement, a report or a quantized file.
        tool: The command of ``herdbook`` that ran.
        text: What it did, in a sentence.
        record: The file of the release with all details.
        used: The files that it read.
        made: The files that it made.
        parameters: Its further parameters.
        code: Its code: digests of modules and versions of packages, by name.
    """

    id: str
    step: str
    tool: str
    text: str
    record: str
    used: tuple[Item, ...]
    made: tuple[Item, ...]
    parameters: JsonObject = field(default_factory=dict, hash=False)
    code: dict[str, str] = field(default_factory=dict, hash=False)


def runs(plan: Plan, read_json: Callable[[str], Any]) -> Iterator[StepRun]:
    """Yield the steps of a build that left a record, each after the steps whose results it read.

    Args:
        plan: The plan of the release's own recipe and lock, with the keys of its build.
        read_json: Returns a JSON file of the release by its name.
    """
    yield from _Runs(plan, read_json)


class _Runs:
    """The steps of one build."""

    def __init__(self, plan: Plan, read_json: Callable[[str], Any]) -> None:
        self._plan = plan
        self._read = read_json
        self._records = {key: read_json(_record(part)) for key, part in plan.parts.items()}
        self._sources = {material.node: material for material in materials(plan, tuple(plan.nodes.values()))}
        self._inputs = input_items(plan)
        released = plan.released
        self._released = {
            part.key: name for part, name in zip(released.parts, released.shard_names, strict=True)
        }

    def __iter__(self) -> Iterator[StepRun]:
        for node in self._plan.nodes.values():
            if node.search and node.search.model == node.name:
                yield self._search(node)
            yield from (self._part(node, part) for part in node.parts if part.model == node.name)
        if self._plan.report:
            yield self._report()
        if matrix := self._plan.imatrix:
            texts = (item for text in matrix.texts for item in self._texts(text))
            yield StepRun(
                f"imatrix-{matrix.id}",
                matrix.file,
                "imatrix",
                "Made the importance matrix of the released model",
                f"{RECORDS}/{matrix.id}{IMATRIX}.json",
                _unique((*self._folder(self._plan.released), *texts)),
                (Item(matrix.file, released=matrix.file),),
                dict(matrix.parameters),
                matrix.code.json,
            )
        for item in self._plan.quantized:
            name = f"{RECORDS}/{item.id}.gguf.json"
            used = (Item(item.imatrix.file, released=item.imatrix.file),) if item.imatrix else ()
            yield StepRun(
                item.id,
                item.file,
                "quantize",
                f"Made a GGUF of the released model, quantized by {item.method}, from its weights in one pass",
                name,
                _unique((*self._folder(self._plan.released), *used)),
                tuple(Item(name, released=name) for name in item.parts),
                {"method": item.method, "metadata": self._plan.gguf_metadata},
                CONVERT_CODE.describe().json | QUANTIZE_CODE.describe().json,
            )
        if self._plan.reference:
            yield self._reference(self._plan.reference)
            yield from (self._loss(item) for item in self._plan.losses)
        yield from (self._evaluation(item) for item in self._plan.evaluations if not item.made_as)

    def _part(self, node: Node, part: Part) -> StepRun:
        record = self._records[part.key]
        return StepRun(
            part.id,
            node.name,
            part.rule,
            f"Made {len(part.tensors)} tensors of {node.name}",
            _record(part),
            _unique(self._used(node, part)),
            (self._shard(part.key),),
            record["parameters"],
            record["code"],
        )

    def _used(self, node: Node, part: Part) -> Iterator[Item]:
        if part.rule == "fetch":
            yield from self._fetched(node, part)
        for key in part.parents:
            yield self._shard(key)
        for key in part.operation.folders:
            yield from self._folder(self._plan.by_key[key])
        if isinstance(part.operation, FoldAdapter):
            yield from material_items(self._sources[node.name]).values()
        if node.search:
            yield result_item(f"{SEARCHES}/{node.search.id}.json")
        if text := part.operation.text:
            yield from self._texts(text.name)

    def _fetched(self, node: Node, part: Part) -> Iterator[Item]:
        locked, files = self._plan.lock.sources[node.name], material_items(self._sources[node.name])
        if locked.weights == "gguf":
            yield files[locked.files[0].name]
            return
        file_of = {tensor.name: tensor.file for tensor in locked.tensors}
        yield from (files[name] for name in dict.fromkeys(file_of[tensor.name] for tensor in part.tensors))

    def _search(self, node: Node) -> StepRun:
        search = node.search
        assert search is not None  # noqa: S101 - only such nodes are passed
        return StepRun(
            f"search-{search.id}",
            f"search for {node.name}",
            "search",
            f"Chose matrices and ranks of {node.name}",
            f"{SEARCHES}/{search.id}.json",
            _unique(
                (
                    *self._folder(self._plan.nodes[search.parent]),
                    *self._texts(search.text.name if search.text else None),
                )
            ),
            (result_item(f"{SEARCHES}/{search.id}.json"),),
            {name: value for name, value in search.parameters.items() if name != "calibration"},
            search.code.json,
        )

    def _report(self) -> StepRun:
        report = self._plan.report
        assert report is not None  # noqa: S101 - only such plans are passed
        name = f"{ROUTING}/{report.id}.json"
        texts = (item for text in report.texts for item in self._texts(text))
        return StepRun(
            f"routing-{report.id}",
            "report on routers",
            "routing",
            f"Reported what the routers of {report.node.name} choose",
            name,
            _unique((*self._folder(report.node), *texts)),
            (result_item(name),),
            code=report.code.json,
        )

    def _reference(self, item: Reference) -> StepRun:
        name = f"{LOSSES}/{item.id}.json"
        texts = (file for text in item.texts for file in self._texts(text))
        return StepRun(
            f"reference-{item.id}",
            "reference of losses",
            "reference",
            f"Kept what {item.node.name} predicts for texts",
            name,
            _unique((*self._folder(item.node), *texts)),
            (result_item(name),),
            code=item.code.json,
        )

    def _loss(self, item: FileLoss) -> StepRun:
        name = f"{LOSSES}/{item.id}.json"
        texts = (file for text in item.reference.texts for file in self._texts(text))
        files: tuple[Item, ...]
        if item.quantized:
            files = (Item(item.quantized.file, released=item.quantized.file),)
        elif item.encoded:
            files = self._folder(item.encoded)
        else:
            assert item.locked is not None  # noqa: S101 - so it was planned
            pinned = item.locked.file
            uri = f"{HubCommit(item.repo, item.locked.revision)}#{quote(pinned.name)}"
            files = (Item(pinned.name, uri=uri, sha256=pinned.sha256, size_bytes=pinned.size_bytes),)
        return StepRun(
            f"loss-{item.id}",
            f"loss of {item.label}",
            "loss",
            f"Measured the loss of {item.label} against {item.reference.node.name}",
            name,
            _unique((*files, result_item(f"{LOSSES}/{item.reference.id}.json"), *texts)),
            (result_item(name),),
            code=item.code.json,
        )

    def _evaluation(self, item: Evaluation) -> StepRun:
        name = f"{EVALUATIONS}/{item.id}.json"
        results = self._read(name)
        measured = (
            tuple(Item(name, released=name) for name in item.quantized.parts)
            if item.quantized
            else self._folder(item.node)
        )
        read = {locked.name for locked, _ in item.group.tasks}
        read |= {
            f"{data_set.repo}@{data_set.revision}"
            for locked, _ in item.group.tasks
            for data_set in map(self._plan.lock.data_sets.__getitem__, locked.repos)
        }
        texts = (
            self._inputs[entry.file.name]
            for entry in inputs(self._plan)
            if entry.role in {"task", "task data", "data set"} and entry.name in read
        )
        return StepRun(
            f"evaluate-{item.id}",
            f"measurement of {item.label}",
            "evaluate",
            f"Measured {item.label}",
            name,
            _unique((*measured, *texts)),
            (result_item(name),),
            results["settings"],
            results["code"],
        )

    def _texts(self, name: str | None) -> tuple[Item, ...]:
        return (
            tuple(self._inputs[file.name] for file in self._plan.lock.calibration[name].data) if name else ()
        )

    def _shard(self, key: str) -> Item:
        """Return a shard. Shards of intermediate models are not in the release, but their digests are in its records."""
        part, file = self._plan.parts[key], self._records[key]["file"]
        return Item(
            f"{part.id}.safetensors",
            released=self._released.get(key),
            sha256=file["sha256"],
            size_bytes=file["size_bytes"],
        )

    def _folder(self, node: Node) -> tuple[Item, ...]:
        """Return the files of a model's folder: its shards, and upstream's configuration and tokenizer."""
        shards = tuple(self._shard(part.key) for part in node.parts)
        origin = files_origin(self._plan, node)
        source = self._sources.get(origin.name)
        return (*shards, *(self._side_files(origin, source) if source else ()))

    def _side_files(self, node: Node, source: Material) -> tuple[Item, ...]:
        """Return the files with a source's configuration and tokenizer: its own files, or the GGUF that contains them."""
        files, locked = material_items(source), self._plan.lock.sources[node.name]
        names = [locked.files[0].name] if locked.weights == "gguf" else [*node.files]
        return tuple(files[name] for name in names if name in files)


def _unique(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(dict.fromkeys(items))


def _record(part: Part) -> str:
    return f"{RECORDS}/{part.id}.json"
