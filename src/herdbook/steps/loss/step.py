"""The steps of the loss by quantization: what the released model predicts, kept once for all files; and the loss of each file.

Of the predictions, the last hidden states are kept: with the output matrix they are the logits, bit by bit, in a small part of the
space, since the logits of a text are a product of these two.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from herdbook import hub
from herdbook.architectures.gguf_tensors import gguf_shapes
from herdbook.architectures.mixtures import BY_MODEL_TYPE
from herdbook.errors import CheckpointError
from herdbook.files import atomic_writer, write_json
from herdbook.inference.forward import LayerwiseModel
from herdbook.inference.mixture import LayerwiseMixture
from herdbook.inference.tensors import CheckpointFolder
from herdbook.inference.text import windows
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.layout import CONFIG
from herdbook.plan.compress import widths
from herdbook.progress import track
from herdbook.quantization.schemes import SCHEMES
from herdbook.recipe import Compress
from herdbook.steps.compress.decoded import DecodedTensors
from herdbook.steps.loss.control import ShuffledExperts
from herdbook.steps.loss.divergence import Tokens, compare, summarize
from herdbook.weights.gguf_restored import RestoredTensors
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.inference.tensors import Weights
    from herdbook.plan import FileLoss, Node, Plan, Reference
    from herdbook.weights.gguf_file import GgufFile


def reference(plan: Plan, item: Reference, threads: int = 1) -> None:
    """Let the released model read the texts, keep its last hidden states, and measure the control.

    Args:
        plan: The plan; the model's folder must exist.
        item: What is kept.
        threads: How many windows are read at the same time; it does not affect the result.

    Raises:
        LockError: If a text changed since it was locked.
        StepError: If a text is too short, or the model cannot read it.
        CheckpointError: If a tensor is missing or damaged.
    """
    folder = plan.layout.folder(item.node)
    with one_thread_a_matrix():
        model = _open(folder, threads)
        texts = _texts(plan, item, folder, model)
        sequences = [ids for drawn in texts.values() for ids in drawn]
        with track(f"reference {item.id}", model.layers) as advance:
            states = model.normed(model.read(sequences, advance))
        path = plan.layout.reference(item)
        with atomic_writer(path) as file:
            np.save(file, torch.cat(states).numpy())
        record = {
            **item.about,
            "texts": {name: _size(drawn) for name, drawn in texts.items()},
        }
        if item.has_control:
            other = _open(folder, threads, ShuffledExperts(folder))
            record["control"] = _measure(path, model, other, texts, "the control")["total"]
        write_json(plan.layout.reference_record(item), record)


def loss(plan: Plan, item: FileLoss, threads: int = 1) -> None:
    """Measure how much a quantized file loses against the released model. Its weights are dequantized layer by layer.

    Args:
        plan: The plan; the model's folder, the file, and what ``reference`` keeps must exist.
        item: The file. Another publisher's is downloaded, if the Hub's cache lacks it.
        threads: How many windows are read at the same time; it does not affect the result.

    Raises:
        LockError: If a text changed since it was locked.
        SourceError: If another publisher's file cannot be downloaded.
        CheckpointError: If the file is damaged, or does not belong to this model.
        StepError: If it computes what is not a number.
    """
    folder = plan.layout.folder(item.reference.node)
    tensors: Weights
    if item.encoded:
        what, file, bits, tensors = _encoded(plan, item.encoded)
    else:
        path, file = _file(plan, item)
        tensors = RestoredTensors(path, _config(folder), path.name)
        _check_shapes(tensors.file, folder)
        what, bits = path.name, _bits(tensors.file)
    with one_thread_a_matrix():
        full, model = _open(folder, threads), _open(folder, threads, tensors)
        texts = _texts(plan, item.reference, folder, full)
        measured = _measure(plan.layout.reference(item.reference), full, model, texts, what, item.id)
    write_json(plan.layout.loss(item), {**item.about, "file": file, **bits, **measured})


def _encoded(plan: Plan, node: Node) -> tuple[str, dict[str, Any], dict[str, Any], DecodedTensors]:
    """Return the name of an encoded model, its files, its bits per weight, and its decoded tensors."""
    scheme = SCHEMES[node.recipe.scheme] if isinstance(node.recipe, Compress) else None
    assert scheme is not None  # noqa: S101 - so it was planned
    files = [read_record(plan.layout.record(part))["file"] for part in node.parts]
    file = {
        "size_bytes": sum(one["size_bytes"] for one in files),
        "weights": {name: one["sha256"] for name, one in zip(node.shard_names, files, strict=True)},
    }
    tensors = DecodedTensors(plan.layout.folder(node), scheme)
    return node.name, file, widths(node, scheme), tensors


def _file(plan: Plan, item: FileLoss) -> tuple[Path, dict[str, Any]]:
    """Return where a file is, and its digest and size."""
    if item.quantized:
        about = read_record(plan.layout.quantized_record(item.quantized))["file"]
        return plan.layout.quantized(item.quantized), {key: about[key] for key in ("sha256", "size_bytes")}
    assert item.locked is not None  # noqa: S101 - so it was planned
    pinned = item.locked.file
    remote = hub.RemoteFile(pinned.name, pinned.size_bytes, pinned.sha256, pinned.git_blob)
    path = hub.download(item.repo, item.locked.revision, remote)
    return path, {"sha256": pinned.sha256, "size_bytes": pinned.size_bytes}


def _open(folder: Path, threads: int, weights: Weights | None = None) -> LayerwiseModel:
    """Return a model in a folder, or with other weights of the same form."""
    if _config(folder).get("model_type") in BY_MODEL_TYPE:
        return LayerwiseMixture(folder, threads, weights=weights)
    return LayerwiseModel(folder, threads=threads, weights=weights)


def _measure(
    kept: Path,
    full: LayerwiseModel,
    model: LayerwiseModel,
    texts: dict[str, list[list[int]]],
    what: str,
    title: str = "control",
) -> dict[str, Any]:
    """Return the loss of a model in each text and in all of them.

    Args:
        kept: The last hidden states of the model at full width.
        full: The model at full width.
        model: The measured model.
        texts: The windows of each text.
        what: The measured model's name in errors.
        title: The title of the progress bar.
    """
    expected = np.load(kept, mmap_mode="r")
    sequences = [ids for drawn in texts.values() for ids in drawn]
    starts = np.cumsum([0, *map(len, sequences)])
    with track(f"loss {title}", model.layers) as advance:
        states = model.normed(model.read(sequences, advance))
    heads = full.head(), model.head()

    def compared(index: int) -> Tokens:
        rows = np.array(expected[starts[index] : starts[index + 1]])
        return compare((torch.from_numpy(rows), heads[0]), (states[index], heads[1]), sequences[index], what)

    found = model.each(compared, range(len(sequences)))
    ends = np.cumsum([0, *map(len, texts.values())])
    groups = {name: found[ends[at] : ends[at + 1]] for at, name in enumerate(texts)}
    return {
        "total": summarize(found),
        "texts": {name: summarize(group) for name, group in groups.items()},
    }


def _texts(plan: Plan, item: Reference, folder: Path, model: LayerwiseModel) -> dict[str, list[list[int]]]:
    return {
        name: windows(plan, name, folder, model.config, plan.recipe.calibration[name].windows)
        for name in item.texts
    }


def _bits(file: GgufFile) -> dict[str, Any]:
    """Return the bits per weight of a file's tensors, and how many weights have which type."""
    types: Counter[str] = Counter()
    for tensor in file.tensors.values():
        types[tensor.type.name] += tensor.parameters
    bits = 8 * sum(tensor.size_bytes for tensor in file.tensors.values())
    return {"bits_per_weight": round(bits / types.total(), 3), "types": dict(sorted(types.items()))}


def _check_shapes(file: GgufFile, folder: Path) -> None:
    """Check that a file's tensors have the shapes of the model's. Raises CheckpointError, which names one that has not."""
    spans = {name: span.shape for name, (_, span) in CheckpointFolder(folder).spans.items()}
    for name, shape in gguf_shapes(_config(folder), spans, str(folder)).items():
        found = file.tensors[name].shape if name in file.tensors else None
        if found is not None and found != shape:
            raise CheckpointError(
                f"{file.path}: does not belong to this model: tensor {name} has shape {list(found)}, the model's has {list(shape)}"
            )


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return config


def _size(drawn: list[list[int]]) -> dict[str, int]:
    return {"windows": len(drawn), "tokens": sum(map(len, drawn))}
