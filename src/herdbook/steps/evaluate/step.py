"""The evaluate step: one artifact, one group of tasks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from herdbook.comparison.samples import pack
from herdbook.files import atomic_writer, write_json
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.plan import Evaluation, Plan
    from herdbook.steps.evaluate.answers import Answers


def evaluate(plan: Plan, item: Evaluation, threads: int, devices: Sequence[str] = ("cpu",)) -> None:
    """Measure a model of the graph or a quantized file, and write the result.

    A quantized file is dequantized into the reference model, so that both run with the same code in the same type, or it is run by
    llama.cpp itself. Answers are kept while it runs, so that a killed evaluation goes on from them.

    Args:
        plan: The plan; the model's folder must exist.
        item: The measurement.
        threads: How many batches the CPU answers at the same time; it does not affect the result.
        devices: Where the model runs. The CPU's result is the reference; results of other devices name the device.

    Raises:
        LockError: If a task or its data changed since it was locked.
        StepError: If logits contain NaN, or lm-eval does not return a result for every task.
    """
    import torch

    from herdbook.steps.evaluate.answers import Answers
    from herdbook.steps.evaluate.measure import Measured, measure
    from herdbook.steps.evaluate.tasks import rounds

    torch.set_num_threads(threads)  # for loading; each batch is answered by one thread
    settings = plan.recipe.evaluate
    assert settings is not None  # noqa: S101 - otherwise the plan would have no evaluation
    weights = _weights(plan, item)
    device = {} if devices[0] == "cpu" or item.runtime else {"device": devices[0].partition(":")[0]}
    with (
        Answers(plan.layout.answers(item), {"key": item.key, **device}) as answers,
        rounds(plan, item.group) as tasks,
    ):
        opener = _run if item.runtime else _load
        opened = cache(lambda: opener(plan, item, threads, devices, answers))
        pinned = plan.lock.requests_of(item.node.name)
        answered = [measure(opened, one.tasks, one.limit, pinned, **one.options) for one in tasks]
    measured = Measured(
        {name: result for one in answered for name, result in one.tasks.items()},
        {name: result for one in answered for name, result in one.groups.items()},
        [sample for one in answered for sample in one.samples],
    )
    content, sha256 = pack(measured.samples)
    with atomic_writer(plan.layout.samples(item)) as file:
        file.write(content)
    write_json(
        plan.layout.evaluation(item),
        {
            **item.about,
            **device,
            "weights": weights,
            "tasks": measured.tasks,
            **({"groups": measured.groups} if measured.groups else {}),
            "samples": {"sha256": sha256},
        },
    )
    plan.layout.answers(item).unlink()


def _weights(plan: Plan, item: Evaluation) -> dict[str, str]:
    """Return the digest of each file that a measured model's weights are in."""
    if item.quantized is not None:
        record = read_record(plan.layout.quantized_record(item.quantized))
        return {item.quantized.file: record["file"]["sha256"]}
    records = [read_record(plan.layout.record(part)) for part in item.node.parts]
    return {
        name: record["file"]["sha256"] for name, record in zip(item.node.shard_names, records, strict=True)
    }


def _load(plan: Plan, item: Evaluation, threads: int, devices: Sequence[str], answers: Answers) -> Any:
    """Return lm-eval's model of a model in transformers; a quantized file is dequantized into one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from herdbook.steps.evaluate.parallel import ParallelHFLM

    settings, folder = plan.recipe.evaluate, plan.layout.folder(item.node)
    assert settings is not None  # noqa: S101 - otherwise the plan would have no evaluation
    dtype = getattr(torch, item.group.dtype)
    if item.quantized is not None:
        from herdbook.steps.quantize.dequantize import load_dequantized

        model = load_dequantized(plan.layout.quantized(item.quantized), folder).to(dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
    if devices[0] != "cpu":
        from herdbook.inference.devices import place_on_devices
        from herdbook.needs import pass_bytes

        model = place_on_devices(model, devices, pass_bytes(plan, item))
        threads = 1  # one batch keeps a GPU busy
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    title = f"evaluate {item.label}"
    return ParallelHFLM(threads, settings.batch_size, answers, title, pretrained=model, tokenizer=tokenizer)


def _run(plan: Plan, item: Evaluation, threads: int, _: Sequence[str], answers: Answers) -> Any:
    """Return lm-eval's model of a quantized file that llama.cpp runs, on the CPU."""
    from transformers import AutoTokenizer

    from herdbook.steps.evaluate.llama import LlamaLM
    from herdbook.steps.evaluate.llama_runtime import opener

    assert item.quantized is not None  # noqa: S101 - so it was planned
    folder = str(plan.layout.folder(item.node))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    longest = int(item.node.config["max_position_embeddings"])
    opened = opener(plan.layout.quantized(item.quantized), threads)
    return LlamaLM(opened, longest, answers, f"evaluate {item.label}", tokenizer)
