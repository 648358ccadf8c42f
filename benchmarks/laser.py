"""LASER of one matrix: ours against a full SVD and against laserRMT's loop, in one run.

Every method reduces the same matrices by laserRMT's threshold, in a process of its own. Printed for each shape: seconds
a matrix with all threads at work, how many times as long as ours that is, memory beyond the libraries' own, and how many
of the result's bfloat16 differ from those of the float64 SVD.

A full SVD uses all threads for one matrix; ours uses one thread a matrix and takes as many matrices at once as there
are threads, which is why its result does not depend on their number; its memory is for all of these.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from herdbook.inference.threads import one_thread_a_matrix
from herdbook.recipe.rank import Threshold
from herdbook.steps.laser.decompose import approximate, decompose, round_once
from herdbook.steps.laser.rank import keep
from herdbook.weights.tensors import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ("576x1536", "1024x4096", "4096x4096", "4096x14336")
MB = 2**20


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Return a matrix with a spectrum like that of trained weights: a few large values on a sloping bulk; bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.02 * torch.randn(rows, columns, generator=generator)
    small = min(rows, columns)
    rank = small // 8
    left = torch.randn(rows, rank, generator=generator)
    right = torch.randn(rank, columns, generator=generator)
    sizes = 0.05 / torch.arange(1, rank + 1).sqrt()
    return (noise + (left * sizes) @ right * math.sqrt(0.25 / small)).to(torch.bfloat16)


def full_svd(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the reduction by a full SVD in a dtype."""

    def reduce(weights: torch.Tensor) -> torch.Tensor:
        left, values, right = torch.linalg.svd(weights.to(dtype), full_matrices=False)
        rank = keep(Threshold("laser-rmt"), values.double().numpy(), *weights.shape).rank
        return round_once(((left[:, :rank] * values[:rank]) @ right[:rank]).double(), weights.dtype)

    return reduce


def laser_rmt(weights: torch.Tensor) -> torch.Tensor:
    """Reduce as laserRMT's scripts do, step by step: all in float64, with the zeros multiplied."""
    left, values, right = torch.linalg.svd(weights.double(), full_matrices=False)
    sigma = (torch.quantile(values, 0.75) - torch.quantile(values, 0.25)) / 1.349
    beta = min(weights.shape) / max(weights.shape)
    threshold = sigma * math.sqrt((1 + math.sqrt(beta)) ** 2)
    kept = torch.where(values > threshold, values, torch.zeros_like(values))
    return (left @ torch.diag(kept) @ right).to(weights.dtype)


def ours(weights: torch.Tensor) -> torch.Tensor:
    """Reduce with Herdbook."""
    found = decompose(weights)
    return approximate(weights, found, keep(Threshold("laser-rmt"), found.values, *weights.shape).rank)


METHODS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "ours": ours,
    "full SVD, float64": full_svd(torch.float64),
    "full SVD, float32": full_svd(torch.float32),
    "laserRMT's loop": laser_rmt,
}


def peak_memory() -> int:
    """Return the largest memory of this process so far, in bytes; getrusage would count what the parent held, too."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def measure(method: str, shape: str, threads: int, out: Path) -> dict[str, Any]:
    """Run a method and return seconds a matrix and memory in bytes; the first result goes to a file."""
    rows, columns = map(int, shape.split("x"))
    torch.set_num_threads(threads)
    METHODS[method](matrix(40, 60, 0))  # whatever is loaded at the first use
    count = threads if method == "ours" else 1
    given = [matrix(rows, columns, seed) for seed in range(count)]
    before = peak_memory()
    start = time.perf_counter()
    if method == "ours":
        with one_thread_a_matrix(), ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(ours, given))
    else:
        found = [METHODS[method](weights) for weights in given]
    seconds = (time.perf_counter() - start) / count
    memory = peak_memory() - before
    out.write_bytes(to_bytes(found[0]))
    extra = {}
    if method == "ours":
        with one_thread_a_matrix():
            decomposition = decompose(given[0])
            rank = keep(Threshold("mp-edge"), decomposition.values, rows, columns).rank
            start = time.perf_counter()
            approximate(given[0], decomposition, rank)
            extra = {"again": time.perf_counter() - start}
    return {"seconds": seconds, "memory": memory, **extra}


def operations(rows: int, columns: int) -> str:
    """Return the operations that a decomposition needs, in 10^9: see ``herdbook.steps.laser.decompose``."""
    larger, smaller = max(rows, columns), min(rows, columns)
    return f"{(larger * smaller**2 + (4 / 3 + 4 / 3 + 2) * smaller**3) / 1e9:.1f}"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--shapes", nargs="+", default=SHAPES, metavar="ROWSxCOLUMNS", help="default: %(default)s"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: %(default)s")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        method, out = arguments.one
        print(json.dumps(measure(method, arguments.shapes[0], arguments.threads, Path(out))))
        return
    print(f"{arguments.threads} threads\n")
    print("| shape | method | s a matrix | times ours | memory, MB | entries that differ |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in arguments.shapes:
            rows, columns = map(int, shape.split("x"))
            results, bits = {}, {}
            for method in METHODS:
                out = Path(folder) / "result"
                command = [sys.executable, __file__, "--shapes", shape, "--threads", str(arguments.threads)]
                done = subprocess.run([*command, "--one", method, str(out)], capture_output=True, check=True)
                results[method] = json.loads(done.stdout)
                bits[method] = torch.frombuffer(bytearray(out.read_bytes()), dtype=torch.int16)
            reference = bits["full SVD, float64"]
            for method, found in results.items():
                ratio = found["seconds"] / results["ours"]["seconds"]
                differing = int((bits[method] != reference).sum())
                cells = [
                    shape,
                    method,
                    f"{found['seconds']:.2f}",
                    f"{ratio:.1f}",
                    f"{found['memory'] / MB:.0f}",
                    f"{differing} of {len(reference)}",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)
            again = results["ours"]["again"]
            rate = float(operations(rows, columns)) / results["ours"]["seconds"]
            notes.append(
                f"{shape}: {rows * columns * 2 / MB:.0f} MB in bfloat16; decomposing takes {operations(rows, columns)} "
                f"GFLOP, ours {rate:.0f} GFLOP/s with approximating; another threshold (mp-edge), one thread: {again:.2f} s"
            )
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
