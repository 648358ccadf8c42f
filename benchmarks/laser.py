"""LASER of one matrix: Herdbook, a full SVD and laserRMT's loop compared in one run.

Every method reduces the same matrices with laserRMT's threshold, in a process of its own. Printed for each shape: seconds
per matrix with all threads busy, the ratio to Herdbook's, memory beyond the libraries' own, and how many bfloat16 values of
the result differ from those of the float64 SVD.

A full SVD uses all threads for one matrix. Herdbook uses one thread per matrix and processes one matrix per thread at once,
so that its result does not depend on the number of threads; its memory is that of all these matrices.
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
from herdbook.recipe.spectral import Threshold
from herdbook.steps.laser.decompose import approximate, decompose, round_once
from herdbook.steps.laser.rank import keep
from herdbook.weights.tensors import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ("576x1536", "1024x4096", "4096x4096", "4096x14336")
MB = 2**20


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Return a bfloat16 matrix with a spectrum like that of trained weights: a few large values above a sloping bulk."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.02 * torch.randn(rows, columns, generator=generator)
    small = min(rows, columns)
    rank = small // 8
    left = torch.randn(rows, rank, generator=generator)
    right = torch.randn(rank, columns, generator=generator)
    sizes = 0.05 / torch.arange(1, rank + 1).sqrt()
    return (noise + (left * sizes) @ right * math.sqrt(0.25 / small)).to(torch.bfloat16)


def full_svd(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that reduces a matrix by a full SVD in a dtype."""

    def reduce(weights: torch.Tensor) -> torch.Tensor:
        left, values, right = torch.linalg.svd(weights.to(dtype), full_matrices=False)
        rank = keep(Threshold("laser-rmt"), values.double().numpy(), *weights.shape).rank
        return round_once(((left[:, :rank] * values[:rank]) @ right[:rank]).double(), weights.dtype)

    return reduce


def laser_rmt(weights: torch.Tensor) -> torch.Tensor:
    """Reduce as laserRMT's scripts do, step by step: in float64, with the zeroed values multiplied."""
    left, values, right = torch.linalg.svd(weights.double(), full_matrices=False)
    sigma = (torch.quantile(values, 0.75) - torch.quantile(values, 0.25)) / 1.349
    beta = min(weights.shape) / max(weights.shape)
    threshold = sigma * math.sqrt((1 + math.sqrt(beta)) ** 2)
    kept = torch.where(values > threshold, values, torch.zeros_like(values))
    return (left @ torch.diag(kept) @ right).to(weights.dtype)


def ours(weights: torch.Tensor) -> torch.Tensor:
    """Reduce with Herdbook."""
    decomposition = decompose(weights)
    return approximate(
        weights, decomposition, keep(Threshold("laser-rmt"), decomposition.values, *weights.shape).rank
    )


METHODS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "ours": ours,
    "full SVD, float64": full_svd(torch.float64),
    "full SVD, float32": full_svd(torch.float32),
    "laserRMT's loop": laser_rmt,
}


def peak_memory() -> int:
    """Return the peak memory of this process so far, in bytes; getrusage would include that of the parent."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def measure(method: str, shape: str, threads: int, out: Path) -> dict[str, Any]:
    """Run a method and return seconds per matrix and memory in bytes; the first result is written to a file."""
    rows, columns = map(int, shape.split("x"))
    torch.set_num_threads(threads)
    METHODS[method](matrix(40, 60, 0))  # loads what is loaded at the first use
    count = threads if method == "ours" else 1
    matrices = [matrix(rows, columns, seed) for seed in range(count)]
    before = peak_memory()
    start = time.perf_counter()
    if method == "ours":
        with one_thread_a_matrix(), ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(ours, matrices))
    else:
        results = [METHODS[method](weights) for weights in matrices]
    seconds = (time.perf_counter() - start) / count
    memory = peak_memory() - before
    out.write_bytes(to_bytes(results[0]))
    extra = {}
    if method == "ours":
        with one_thread_a_matrix():
            decomposition = decompose(matrices[0])
            rank = keep(Threshold("mp-edge"), decomposition.values, rows, columns).rank
            start = time.perf_counter()
            approximate(matrices[0], decomposition, rank)
            extra = {"approximation_seconds": time.perf_counter() - start}
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
    parser.add_argument("--method", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.method:
        method, out = arguments.method
        print(json.dumps(measure(method, arguments.shapes[0], arguments.threads, Path(out))))
        return
    print(f"{arguments.threads} threads\n")
    print("| shape | method | s per matrix | times ours | memory, MB | entries that differ |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in arguments.shapes:
            rows, columns = map(int, shape.split("x"))
            results, bits = {}, {}
            for method in METHODS:
                out = Path(folder) / "result"
                command = [sys.executable, __file__, "--shapes", shape, "--threads", str(arguments.threads)]
                done = subprocess.run(
                    [*command, "--method", method, str(out)], capture_output=True, check=True
                )
                results[method] = json.loads(done.stdout)
                bits[method] = torch.frombuffer(bytearray(out.read_bytes()), dtype=torch.int16)
            reference = bits["full SVD, float64"]
            for method, result in results.items():
                ratio = result["seconds"] / results["ours"]["seconds"]
                differing = int((bits[method] != reference).sum())
                cells = [
                    shape,
                    method,
                    f"{result['seconds']:.2f}",
                    f"{ratio:.1f}",
                    f"{result['memory'] / MB:.0f}",
                    f"{differing} of {len(reference)}",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)
            approximation_s = results["ours"]["approximation_seconds"]
            rate = float(operations(rows, columns)) / results["ours"]["seconds"]
            notes.append(
                f"{shape}: {rows * columns * 2 / MB:.0f} MB in bfloat16; decomposing takes {operations(rows, columns)} "
                f"GFLOP, ours {rate:.0f} GFLOP/s including the approximation; another threshold (mp-edge), one thread: "
                f"{approximation_s:.2f} s"
            )
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
