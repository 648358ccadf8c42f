"""The rates of this machine, measured with the steps' own code on matrices of Mistral-7B's widths."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from gguf.constants import GGMLQuantizationType
from merge import run_parts, source_parts, write_recipe
from wide import buttercup, write_source

from herdbook import plan as plans
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.needs import decomposition_operations
from herdbook.quantization.methods import METHODS
from herdbook.steps.laser.decompose import approximate, decompose
from herdbook.steps.moe.step import moe
from herdbook.steps.quantize.encode import encode
from laser import matrix

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PACKAGES = "import torch, transformers, herdbook.plan, herdbook.inference.forward, herdbook.cli.main"
WIDTHS = buttercup.Widths(layers=1)
TOKENS = 400  # about a document of the tasks


def core_seconds(function: Callable[[Any], object], items: list[Any], device: str) -> float:
    """Return the seconds that a core takes for an item while all cores are busy; on a GPU, the wall time.

    On cores, processor time is measured, which excludes that of other programs.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    with one_thread_a_matrix(), ThreadPoolExecutor(len(items)) as pool:
        started = clock()
        list(pool.map(function, items))
        return (clock() - started) / len(items)


def program_seconds(run: Callable[[], object]) -> float:
    """Return the processor time of the programs that a function runs: the smaller of two measurements."""
    times = []
    for _ in range(2):
        before = os.times()
        run()
        after = os.times()
        times.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    return min(times)


def start() -> float:
    """Return the seconds until Python and the modules of most steps are loaded, from memory and not from a disk."""
    command = [sys.executable, "-c", PACKAGES]
    return program_seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def float64(device: str = "cpu") -> float:
    """Return the operations per second of a core, or a GPU, when reducing a matrix of an MLP at the costliest rank."""
    cores = (os.cpu_count() or 1) if device == "cpu" else 1
    shape = (WIDTHS.hidden, WIDTHS.intermediate)

    def reduce(weights: torch.Tensor) -> None:
        approximate(weights, decompose(weights, device), WIDTHS.hidden // 2)

    if device != "cpu":
        reduce(matrix(*shape, seed=0))  # loads what is loaded at the first use
    matrices = [matrix(*shape, seed) for seed in range(cores)]
    return decomposition_operations(shape) / core_seconds(reduce, matrices, device)


def float32(folder: Path, device: str = "cpu") -> float:
    """Return the operations per second of a core, or a GPU, for text passing a layer, embeddings and head."""
    from transformers import AutoModelForCausalLM

    cores = (os.cpu_count() or 1) if device == "cpu" else 1
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval().to(device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    generator = torch.Generator().manual_seed(0)

    def run(tokens: torch.Tensor) -> None:
        with torch.inference_mode():
            model(tokens.to(device), use_cache=False).logits.sum().item()

    def text() -> torch.Tensor:
        return torch.randint(WIDTHS.vocabulary, (1, TOKENS), generator=generator)

    with one_thread_a_matrix():
        run(text())
    return 2 * parameters * TOKENS / core_seconds(run, [text() for _ in range(cores)], device)


def quantized() -> float:
    """Return the elements per second that a core quantizes, in the slowest K type."""
    rows = matrix(WIDTHS.hidden // 8, WIDTHS.intermediate, seed=0).float().numpy()
    cores = os.cpu_count() or 1
    kinds = {GGMLQuantizationType[method.base] for method in METHODS.values() if method.base.endswith("_K")}

    def seconds(kind: GGMLQuantizationType) -> float:
        return core_seconds(lambda weights: encode(weights, kind, None, "weights"), [rows] * cores, "cpu")

    return rows.size / max(map(seconds, kinds))


def disk(work: Path) -> float:
    """Return the bytes per second when making the experts' shards of a mixture: read, digested twice, written.

    The source is in the page cache, since it was just written.
    """
    recipe = write_recipe(work, ["base", "base"], "rates")
    plan = plans.load(recipe, work / "results")
    run_parts(plan, source_parts(plan), 1)
    parts = [part for part in plan.released.parts if part.label.startswith("expert")]
    began = time.perf_counter()
    for part in parts:
        moe(plan, part)
    os.sync()
    return 2 * sum(part.size_bytes for part in parts) / (time.perf_counter() - began)


def write_layer(folder: Path) -> None:
    """Write the model that rates are measured with: a layer as wide as Mistral-7B's, with embeddings and head."""
    write_source(folder, WIDTHS, 0)
