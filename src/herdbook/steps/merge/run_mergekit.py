"""Merges by mergekit's own methods: a pinned version of mergekit, in an environment of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from herdbook.errors import StepError
from herdbook.files import scratch
from herdbook.progress import track
from herdbook.tools.mergekit import MERGEKIT
from herdbook.weights.checkpoint import Produced, read_header, stream_span, write_shard
from herdbook.weights.finite import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from herdbook.plan import Part, Plan, Tensor
    from herdbook.plan.operation import RunMergekit
    from herdbook.weights.checkpoint import Span
    from herdbook.weights.digests import Piece
    from herdbook.weights.record import TensorEntry


def mergekit(plan: Plan, part: Part, operation: RunMergekit) -> None:
    """Run mergekit on whole models, and write its tensors into one shard.

    mergekit runs on the CPU on one thread, offline, without running code from models; its own output is deleted.

    Raises:
        StepError: If mergekit is not installed, fails, or makes different tensors than planned.
    """
    shard, record = plan.layout.shard(part), plan.layout.record(part)
    with scratch(shard) as folder:
        config = folder / "config.yml"
        config.write_text(yaml.safe_dump(_config(plan, operation)), encoding="utf-8")
        arguments = [
            str(config),
            str(folder / "out"),
            "--random-seed",
            str(operation.seed),
        ]
        arguments += ["--no-copy-tokenizer", "--no-write-model-card", "--num-threads", "1"]
        MERGEKIT.run(arguments, folder, print)
        spans = {
            name: (path, span)
            for path in sorted((folder / "out").glob("*.safetensors"))
            for name, span in read_header(path).items()
        }
        with track(f"merge {part.id}", len(part.tensors)) as advance:
            tensors = (_produced(tensor, spans, part, operation.method, advance) for tensor in part.tensors)
            write_shard(shard, record, tensors, {**part.about, "mergekit": MERGEKIT.version})


def _config(plan: Plan, operation: RunMergekit) -> dict[str, Any]:
    """Return mergekit's configuration, with the models' folders in place of their names."""
    request = operation.request
    folders = {
        name: str(plan.layout.folder(plan.by_key[key]).absolute()) for name, key in operation.models.items()
    }
    return {
        "merge_method": operation.method,
        **({"base_model": folders[request["base"]]} if "base" in request else {}),
        **_models(request, folders),
        "parameters": request["parameters"],
        **{key: request[key] for key in ("dtype", "out_dtype") if key in request},
    }


def _models(request: Mapping[str, Any], folders: dict[str, str]) -> dict[str, Any]:
    """Return the merged models, or the slice of their layers if these are chosen; that has to list the base."""
    entries = request["models"]
    if "layers" not in request:
        return {
            "models": [
                {"model": folders[entry["model"]], "parameters": entry["parameters"]} for entry in entries
            ]
        }
    listed = {entry["model"] for entry in entries}
    base = request.get("base")
    sources = [*entries, *([{"model": base, "parameters": {}}] if base and base not in listed else [])]

    def taken(name: str) -> list[int]:
        layers = request["layers"]
        first, last = (layers[name] if isinstance(layers, dict) else layers).split("-")
        return [int(first), int(last) + 1]

    return {
        "slices": [
            {
                "sources": [
                    {
                        "model": folders[entry["model"]],
                        "layer_range": taken(entry["model"]),
                        "parameters": entry["parameters"],
                    }
                    for entry in sources
                ]
            }
        ]
    }


def _produced(
    tensor: Tensor, spans: dict[str, tuple[Path, Span]], part: Part, method: str, advance: Callable[[], None]
) -> Produced:
    if tensor.name not in spans:
        raise StepError(f"mergekit made no tensor {tensor.name}, which the plan of {part.model} contains")
    path, span = spans[tensor.name]
    if (span.dtype, span.shape) != (tensor.dtype, tensor.shape):
        raise StepError(
            f"mergekit made tensor {tensor.name} as {span.dtype} {list(span.shape)}; planned was {tensor.dtype} "
            f"{list(tensor.shape)}"
        )

    def chunks() -> Iterator[Piece]:
        yield from finite(stream_span(path, span), span, f"tensor {tensor.name}")
        advance()

    entry: TensorEntry = {
        "action": "merge",
        "method": method,
        "by": f"mergekit {MERGEKIT.version}",
    }
    return Produced(tensor.name, tensor.dtype, tensor.shape, chunks, entry)
