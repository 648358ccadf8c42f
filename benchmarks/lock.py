"""Time of `herdbook lock` and `herdbook plan` for config/buttercup.yaml, a mixture of four models of 7B.

The sources have their true shapes and holes for weights, on a Hub on this machine. As on the real one, `lock` reads headers by
range requests and receives the digests of weights, so its time is that of everything but the network. `plan` is also timed
in a process that has planned before: without imports and digests of code.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from listed import full_size_hub, herdbook

from herdbook import plan as plans

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPE = "config/buttercup.yaml"


def main() -> None:
    """Lock and plan several times; print the median."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        print(f"{'':22}{'wall':>10}{'processor':>12}")
        with full_size_hub(folder) as variables:
            show("herdbook lock", rounds, lambda: herdbook(folder, "lock", RECIPE, variables=variables))
        show("herdbook plan", rounds, lambda: herdbook(folder, "plan", RECIPE, "--elsewhere"))
        show("  again in a process", rounds, lambda: plans.load(folder / RECIPE, folder / "results"))
        plan = plans.load(folder / RECIPE, folder / "results")
    sources = sum(len(source.tensors) for source in plan.lock.sources.values())
    print(f"{sources} tensors of {len(plan.lock.sources)} sources, {len(plan.nodes)} models")


def show(what: str, rounds: int, work: Callable[[], object]) -> None:
    """Print the median times of some work: by the clock, and of the processor, which other programs do not change."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter(), processor()
        work()
        times.append((time.perf_counter() - start[0], processor() - start[1]))
    wall, used = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{what:22}{wall:8.2f} s{used:10.2f} s")


def processor() -> float:
    """Return the seconds that this process and those that it waited for have computed."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
