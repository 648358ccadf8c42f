"""Time of planning against the number of tensors, for mixtures and merges of models of true shapes.

No file is read: recipe and lock are made here, and the first plan, which digests the code, is not counted. The ratio is
that of time per tensor to the row above: 1 if planning is linear.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wide import buttercup

from herdbook.plan import make
from support.planned import merge, mixture, recipe_of, sources, stack

if TYPE_CHECKING:
    from herdbook.lock import Lock

# Mixtral-8x22B's: 56 layers of width 6144.
OF_22B = buttercup.Widths(hidden=6144, intermediate=16384, heads=48, kv_heads=8, layers=56)


def main() -> None:
    """Plan models of more and more layers, then of more and more sources; print the median times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    narrow = buttercup.Widths(hidden=256, intermediate=512, heads=4, kv_heads=2, vocabulary=512)
    warm = replace(narrow, layers=2)
    plan(mixture(2), sources(warm, 2))
    plan(merge(2), sources(warm, 2))
    print(f"{'':34}{'tensors':>10}{'planned':>10}{'per 1,000':>12}{'ratio':>8}")
    for title, sizes in (
        ("mixture of 4, layers: {0.layers}", [(replace(narrow, layers=n), 4) for n in (278, 556, 1111)]),
        ("merge of {1} models of 7B", [(buttercup.FULL, n) for n in (75, 150, 300)]),
        ("stack of {1} models of 7B", [(buttercup.FULL, n) for n in (10, 20, 40)]),
        ("mixture 8x22B", [(OF_22B, 8)]),
    ):
        before = None
        for widths, count in sizes:
            entry = {"merge": merge, "mixture": mixture, "stack": stack}[title.split()[0]](count)
            lock = sources(widths, count)
            seconds = statistics.median(plan(entry, lock) for _ in range(rounds))
            tensors = count * len(widths.shapes())
            each = seconds / tensors
            ratio = f"{each / before:.2f}" if before else ""
            name = title.format(widths, count)
            print(f"{name:34}{tensors:>10,}{seconds:>8.2f} s{1e6 * each:>9.1f} ms{ratio:>8}", flush=True)
            before = each


def plan(entry: dict[str, Any], lock: Lock) -> float:
    """Return the seconds of the processor that planning a model takes; other programs do not change them."""
    recipe = recipe_of(entry, len(lock.sources))
    start = time.process_time()
    make(recipe, lock, Path("recipe.yaml"))
    return time.process_time() - start


if __name__ == "__main__":
    main()
