"""What ran to make a release: each step with what it read, its parameters, and what it made, by the release's records.

This is the retrospective provenance that formats of workflow provenance ask for, in no format's words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from herdbook.layout import EVALUATIONS, RECORDS, ROUTING, SEARCHES, input_file
from herdbook.plan.folder import files_origin
from herdbook.plan.material import carried_inputs, inputs, materials
from herdbook.plan.operation import FoldAdapter
from herdbook.plan.quantize import CONVERT_CODE, QUANTIZE_CODE
from herdbook.provenance.slsa import download_location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from herdbook.lock import LockedFile
    from herdbook.plan import Evaluation, Node, Part, Plan
    from herdbook.plan.material import Material


@dataclass(frozen=True)
class Item:
    """A file that a step read or made.

    Args:
        name: What to call it.
        released: Its name in the release, if it is there; what else is known of it is then known from there.
        uri: Where it is from, if it is upstream's.
        sha256: SHA-256 of its content.
        git_blob: Git's id of its content, where that alone is known.
        size_bytes: Its size.
        in_part: Whether only ranges of it were read: then its digest was not compared.
    """

    name: str
    released: str | None = None
    uri: str | None = None
    sha256: str | None = None
    git_blob: str | None = None
    size_bytes: int = 0
    in_part: bool = False


@dataclass(frozen=True)
class StepRun:
    """A step that ran.

    Args:
        id: What tells it from the others.
        step: What of the recipe it carried out: the name of a model, or what was measured, reported or quantized.
        tool: The command of ``herdbook`` that did it.
        text: What it did, in a sentence.
        record: The file of the release that says all of it.
        used: What it read.
        made: What it made.
        parameters: What it was told beyond that.
        code: What it ran by: digests of modules and versions of packages, by name.
    """

    id: str
    step: str
    tool: str
    text: str
    record: str
    used: tuple[Item, ...]
    made: tuple[Item, ...]
    parameters: dict[str, Any] = field(default_factory=dict, hash=False)
    code: dict[str, str] = field(default_factory=dict, hash=False)


def material_items(material: Material) -> dict[str, Item]:
    """Return the files of a model or an adapter that was not made here, by their names there."""
    return {
        file.name: Item(
            file.name,
            uri=download_location(material, file) or f"{material.uri}#{quote(file.name)}",
            sha256=file.sha256,
            git_blob=file.git_blob,
            size_bytes=file.size_bytes,
            in_part=material.in_part and file.name in material.weights,
        )
        for file in material.files
    }


def input_items(plan: Plan) -> dict[str, Item]:
    """Return the files that the recipe names beside itself, by their names there."""
    carried = carried_inputs(plan)
    return {one.file.name: _input(one.file, set(carried)) for one in inputs(plan)}


def runs(plan: Plan, read_json: Callable[[str], Any]) -> Iterator[StepRun]:
    """Yield the steps of a build that left a record, each after those whose results it read.

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
        self._sources = {one.node: one for one in materials(plan, tuple(plan.nodes.values()))}
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
        for item in self._plan.quantized:
            name = f"{RECORDS}/{item.id}.gguf.json"
            yield StepRun(
                item.id,
                item.file,
                "quantize",
                f"Conversion the released model to GGUF and quantized it by {item.method}; each tensor was derived again",
                name,
                self._folder(self._plan.released),
                (Item(item.file, released=item.file),),
                {"method": item.method, "metadata": self._plan.gguf_metadata},
                CONVERT_CODE.describe() | QUANTIZE_CODE.describe(),
            )
        yield from (self._evaluation(item) for item in self._plan.evaluations if not item.made_as)

    def _part(self, node: Node, part: Part) -> StepRun:
        record = self._records[part.key]
        return StepRun(
            part.id,
            node.name,
            part.rule,
            f"Made {len(part.tensors)} tensors of {node.name}",
            _record(part),
            _once(self._used(node, part)),
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
            yield _result(f"{SEARCHES}/{node.search.id}.json")
        if text := part.operation.text:
            yield from self._texts(text.name)

    def _fetched(self, node: Node, part: Part) -> Iterator[Item]:
        locked, files = self._plan.lock.sources[node.name], material_items(self._sources[node.name])
        if locked.weights == "gguf":
            yield files[locked.files[0].name]
            return
        held = {tensor.name: tensor.file for tensor in locked.tensors}
        yield from (files[name] for name in dict.fromkeys(held[tensor.name] for tensor in part.tensors))

    def _search(self, node: Node) -> StepRun:
        search = node.search
        assert search is not None  # noqa: S101 - it is asked of such nodes alone
        return StepRun(
            f"search-{search.id}",
            f"search for {node.name}",
            "search",
            f"Chose matrices and ranks of {node.name}",
            f"{SEARCHES}/{search.id}.json",
            _once(
                (
                    *self._folder(self._plan.nodes[search.parent]),
                    *self._texts(search.text.name if search.text else None),
                )
            ),
            (_result(f"{SEARCHES}/{search.id}.json"),),
            {name: value for name, value in search.parameters.items() if name != "calibration"},
            search.code,
        )

    def _report(self) -> StepRun:
        report = self._plan.report
        assert report is not None  # noqa: S101 - it is asked of such plans alone
        name = f"{ROUTING}/{report.id}.json"
        texts = (item for text in report.texts for item in self._texts(text))
        return StepRun(
            f"routing-{report.id}",
            "report on routers",
            "routing",
            f"Told what the routers of {report.node.name} choose",
            name,
            _once((*self._folder(report.node), *texts)),
            (_result(name),),
            code=report.code,
        )

    def _evaluation(self, item: Evaluation) -> StepRun:
        name = f"{EVALUATIONS}/{item.id}.json"
        found = self._read(name)
        measured = (
            (Item(item.quantized.file, released=item.quantized.file),)
            if item.quantized
            else self._folder(item.node)
        )
        read = (
            self._inputs[file.name]
            for task in self._plan.lock.tasks.values()
            for file in (task.file, *task.data)
        )
        return StepRun(
            f"evaluate-{item.id}",
            f"measurement of {item.name}",
            "evaluate",
            f"Measured {item.name}",
            name,
            _once((*measured, *read)),
            (_result(name),),
            found["settings"],
            found["code"],
        )

    def _texts(self, name: str | None) -> tuple[Item, ...]:
        return (
            tuple(self._inputs[file.name] for file in self._plan.lock.calibration[name].data) if name else ()
        )

    def _shard(self, key: str) -> Item:
        """Return a shard. Those of models on the way are not in the release, but their digests are in its records."""
        part, file = self._plan.parts[key], self._records[key]["file"]
        return Item(
            f"{part.id}.safetensors",
            released=self._released.get(key),
            sha256=file["sha256"],
            size_bytes=file["size_bytes"],
        )

    def _folder(self, node: Node) -> tuple[Item, ...]:
        """Return what a model's folder holds: its shards, and the configuration and tokenizer as upstream has them."""
        shards = tuple(self._shard(part.key) for part in node.parts)
        origin = files_origin(self._plan, node)
        source = self._sources.get(origin.name)
        return (*shards, *(self._others(origin, source) if source else ()))

    def _others(self, node: Node, source: Material) -> tuple[Item, ...]:
        """Return what a source's configuration and tokenizer come from: files of their own, or the one file of a GGUF."""
        files, locked = material_items(source), self._plan.lock.sources[node.name]
        names = [locked.files[0].name] if locked.weights == "gguf" else [*node.files]
        return tuple(files[name] for name in names if name in files)


def _once(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(dict.fromkeys(items))


def _record(part: Part) -> str:
    return f"{RECORDS}/{part.id}.json"


def _result(name: str) -> Item:
    return Item(name.rpartition("/")[2], released=name)


def _input(file: LockedFile, carried: set[str]) -> Item:
    name = input_file(file.name, str(file.sha256))
    return Item(
        file.name,
        released=name if name in carried else None,
        sha256=file.sha256,
        git_blob=file.git_blob,
        size_bytes=file.size_bytes,
    )
