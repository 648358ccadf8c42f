"""The cost of each level of `herdbook verify`, on releases with layers as wide as Mistral-7B's from a local Hub.

Three sources of random weights with Mistral-7B's shapes and few layers are put on a local Hub. The ordinary steps build a
release from them (the base is lasered in its last layer, then four experts are merged) and publish it on that Hub. Then each
level is verified by a process of its own, from the name of the repository alone. Printed for each level: result, bytes
transferred (counted by the Hub), requests, seconds, seconds of processors, and peak resident memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from merge import Cost, clear, run
from pytest_local_hub import LocalHub
from pytest_local_hub.client import environment
from wide import GB, MB, buttercup, write_source

from herdbook import plan as plans

if TYPE_CHECKING:
    from herdbook.plan import Plan

SOURCES = ("base", "talk", "reason")
EXPERTS = ("base-laser", "talk", "base-laser", "reason")
REPO = "herd/Herd-4x7B-laser"
CHECKS = (
    ("files",),
    ("claims",),
    ("upstream",),
    ("equality", "--sample", "500MB"),
    ("equality", "--sample", "all"),
    ("recomputed", "--sample", "500MB"),
)
STATUSES = {0: "passed", 8: "failed", 9: "unverified", 10: "broken"}


def write_recipe(folder: Path, layers: int) -> Path:
    """Write the recipe: the base lasered in the last layer, then merged with the others; return its path."""
    models: dict[str, object] = {name: {"hub": f"herd/{name}-7b"} for name in SOURCES}
    down = [f"layers.{layers - 1}.mlp.down_proj"]
    models["base-laser"] = {"laser": "base", "rank": {"fraction": 0.9}, "matrices": down}
    experts = [
        {"model": name, "prompts": [f"w{3 + number} w{20 + number}", f"w{40 + number}"]}
        for number, name in enumerate(EXPERTS)
    ]
    models["herd"] = {"moe": {"base": "base-laser", "experts": experts}}
    release = {"model": "herd", "name": REPO.partition("/")[2], "license": "apache-2.0", "repo": REPO}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"models": models, "release": release}, sort_keys=False))
    return path


class Bench:
    """A local Hub and a folder to work in."""

    def __init__(self, work: Path, hub: LocalHub, layers: int, part: int) -> None:
        self.work, self.hub, self.layers = work, hub, layers
        whole = buttercup.Widths(layers=layers)
        sizes = ("hidden", "intermediate", "heads", "kv_heads", "vocabulary")
        self.widths = replace(whole, **{size: getattr(whole, size) // part for size in sizes})
        self.recipe = write_recipe(work, layers)
        self.environment = environment(hub, work / "home", hub.token)

    def herdbook(self, *arguments: str, accepted: tuple[int, ...] = (0,)) -> Cost:
        """Run a command of herdbook in the folder, as a user would."""
        variables = {**self.environment, "HERDBOOK_RECIPE": str(self.recipe)}
        command = [sys.executable, "-m", "herdbook", *arguments]
        return run(command, variables, accepted=accepted, folder=self.work)

    def publish_sources(self) -> None:
        """Generate the sources, and put them on the Hub."""
        self.hub.orgs.add(REPO.partition("/")[0])
        for seed, name in enumerate(SOURCES):
            write_source(self.work / name, self.widths, seed)
            files = {path.name: path for path in (self.work / name).iterdir()}
            self.hub.add_repo(f"herd/{name}-7b", files, license="apache-2.0")

    def build(self) -> Plan:
        """Lock, build and publish; shards are deleted as soon as nothing needs them, since all would fill the disk."""
        self.herdbook("lock")
        plan = plans.load(self.recipe, self.work / "results")
        for node in plan.nodes.values():
            for part in node.parts:
                self.herdbook(part.rule, part.key)
            self.herdbook("assemble", node.key)
            for parent in set(node.parents):
                for part in plan.nodes[parent].parts:
                    plan.layout.shard(part).resolve().unlink()  # a fetched one is a link into the cache
                    plan.layout.shard(part).unlink(missing_ok=True)
        for step in ("routing", "card", "release", "attest"):
            self.herdbook(step)
        self.herdbook("verify", str(plan.layout.release_folder), "--json", str(plan.layout.verification))
        self.herdbook("publish")
        clear(self.work / "results")
        clear(self.work / "home")
        return plan

    def verify(self, *level: str) -> tuple[str, int, int, Cost]:
        """Verify the published release with an empty cache; return the result, bytes, requests, and the process."""
        clear(self.work / "home")
        self.hub.forget()
        done = self.herdbook("verify", REPO, "--seed", "0", "--level", *level, accepted=tuple(STATUSES))
        requests = self.hub.requests
        return STATUSES[done.status], sum(request.bytes_sent for request in requests), len(requests), done


def main() -> None:
    """Build a release of each size, verify it at each level, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--layers",
        type=int,
        nargs="+",
        default=[2, 4],
        help="default: 2 4; 32 is full size, and 110 GB of disk",
    )
    parser.add_argument(
        "--part", type=int, default=1, help="divide all widths by 2, 4 or 8, for less time (default: 1)"
    )
    parser.add_argument("--work", type=Path, help="folder for 20 GB (default: a temporary one)")
    options = parser.parse_args()
    for layers in options.layers:
        with tempfile.TemporaryDirectory(dir=options.work) as name, LocalHub() as hub:
            measure(Bench(Path(name), hub, layers, options.part))


def measure(bench: Bench) -> None:
    """Print the table of one size."""
    started = time.perf_counter()
    bench.publish_sources()
    plan = bench.build()
    size = sum(part.size_bytes for part in plan.released.parts)
    count = sum(len(part.tensors) for part in plan.released.parts)
    print(
        f"\n{bench.layers} layers, {size / GB:.2f} GB, {count} tensors; made and published in "
        f"{time.perf_counter() - started:.0f} s\n"
    )
    print(f"{'level':26}{'result':>12}{'MB read':>10}{'requests':>10}{'s':>8}{'CPU s':>8}{'MB memory':>11}")
    for level in CHECKS:
        result, read, requests, done = bench.verify(*level)
        print(
            f"{' '.join(level):26}{result:>12}{read / MB:10.1f}{requests:10}{done.seconds:8.1f}"
            f"{done.cpu_seconds:8.1f}{done.peak_bytes / MB:11.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
