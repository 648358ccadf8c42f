"""The evaluate step: one artifact, all tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.comparison.samples import pack
from herdbook.files import atomic_writer, write_json
from herdbook.weights.checkpoint import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.plan import Evaluation, Plan


def evaluate(plan: Plan, item: Evaluation, threads: int, devices: Sequence[str] = ("cpu",)) -> None:
    """Measure a model of the graph or a quantized file, and write the result.

    A quantized file is dequantized into the reference model, so that both run with the same code in float32.

    Args:
        plan: The plan; the model's folder must exist.
        item: The measurement.
        threads: How many batches of documents the CPU reads at the same time; it does not affect the result.
        devices: Where the model runs. The CPU's result is the reference; results of other devices name the device.

    Raises:
        LockError: If a task or its data changed since it was locked.
        StepError: If lm-eval does not return a result for every task.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from herdbook.steps.evaluate.measure import Measured, measure
    from herdbook.steps.evaluate.tasks import rounds

    torch.set_num_threads(threads)  # for loading; each batch of documents is read by one thread
    settings = plan.recipe.evaluate
    assert settings is not None  # noqa: S101 - otherwise the plan would have no evaluation
    folder = plan.layout.folder(item.node)
    if item.quantized is None:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        ).eval()
        records = [read_record(plan.layout.record(part)) for part in item.node.parts]
        weights = {
            name: record["file"]["sha256"]
            for name, record in zip(item.node.shard_names, records, strict=True)
        }
    else:
        from herdbook.steps.quantize.dequantize import load_dequantized

        model = load_dequantized(plan.layout.quantized(item.quantized), folder)
        record = read_record(plan.layout.quantized_record(item.quantized))
        weights = {item.quantized.file: record["file"]["sha256"]}
    if devices[0] != "cpu":
        from herdbook.inference.devices import place_on_devices
        from herdbook.needs import pass_bytes

        model = place_on_devices(model, devices, pass_bytes(plan, item))
        threads = 1  # one batch keeps a GPU busy
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    with rounds(plan) as asked:
        answered = [
            measure(model, tokenizer, one.tasks, one.limit, settings.batch_size, threads, **one.options)
            for one in asked
        ]
    measured = Measured(
        {name: result for one in answered for name, result in one.tasks.items()},
        [sample for one in answered for sample in one.samples],
    )
    content, sha256 = pack(measured.samples)
    with atomic_writer(plan.layout.samples(item)) as file:
        file.write(content)
    write_json(
        plan.layout.evaluation(item),
        {
            **item.about,
            **({} if devices[0] == "cpu" else {"device": devices[0].partition(":")[0]}),
            "weights": weights,
            "tasks": measured.tasks,
            "samples": {"sha256": sha256},
        },
    )
