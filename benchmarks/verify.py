"""The cost of each level of `herdbook verify`, on releases with layers as wide as Mistral-7B's from a local Hub.

Three sources of random weights with Mistral-7B's shapes and few layers are put on a local Hub. The ordinary steps build a
release from them (the base is lasered in its last layer, then four experts are merged) and publish it on that Hub. Then each
level is verified by a process of its own, from the name of the repository alone. Printed for each level: result, bytes
transferred (counted by the Hub), requests, seconds, seconds of processors, and peak resident memory.

`--against FOLDER` names a checkout of another commit (`git worktree add FOLDER COMMIT`). It builds its release from the same
sources and verifies it, in turns with this one; the ratio is that of seconds of processors, the least of each of `--rounds`:

    python benchmarks/verify.py --layers 2 --part 8 --sample 20MB --rounds 3 --against FOLDER
"""

from __future__ import annotations

import argparse
import json
import subprocess
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

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCES = ("base", "talk", "reason")
EXPERTS = ("base-laser", "talk", "base-laser", "reason")
REPO = "herd/Herd-4x7B-laser"
HERE = Path(__file__).parents[1]
# Locks, builds and publishes by the code of any version, in one process, which imports what it needs but once; deletes shards as
# soon as nothing needs them, since all would fill the disk; and prints size and number of the released tensors.
BUILD = """
import json, sys
from pathlib import Path
from herdbook import plan as plans
from herdbook.cli.main import main

def do(*arguments):
    if status := main(list(arguments)):
        sys.exit(f"herdbook {arguments[0]} ended with {status}")

recipe, results = map(Path, sys.argv[1:])
do("lock")
plan = plans.load(recipe, results)
for node in plan.nodes.values():
    for part in node.parts:
        do(part.rule, part.key)
    do("assemble", node.key)
    for parent in set(node.parents):
        for part in plan.nodes[parent].parts:
            plan.layout.shard(part).resolve().unlink(missing_ok=True)  # a fetched one may be a link into the cache
            plan.layout.shard(part).unlink(missing_ok=True)
for step in ("routing", "card", "release", "attest"):
    do(step)
do("verify", str(plan.layout.release_folder), "--json", str(plan.layout.verification))
do("publish")
parts = plan.released.parts
print(json.dumps([sum(part.size_bytes for part in parts), sum(len(part.tensors) for part in parts)]))
"""
LEVELS = ("files", "claims", "upstream", "equality", "recomputed")
STATUSES = {0: "passed", 8: "failed", 9: "unverified", 10: "broken"}


def write_recipe(path: Path, layers: int, repo: str) -> None:
    """Write the recipe: the base lasered in the last layer, then merged with the others."""
    models: dict[str, object] = {name: {"hub": f"herd/{name}-7b"} for name in SOURCES}
    down = [f"layers.{layers - 1}.mlp.down_proj"]
    models["base-laser"] = {"laser": "base", "rank": {"fraction": 0.9}, "matrices": down}
    experts = [
        {"model": name, "prompts": [f"w{3 + number} w{20 + number}", f"w{40 + number}"]}
        for number, name in enumerate(EXPERTS)
    ]
    models["herd"] = {"moe": {"base": "base-laser", "experts": experts}}
    release = {"model": "herd", "name": repo.partition("/")[2], "license": "apache-2.0", "repo": repo}
    path.write_text(yaml.safe_dump({"models": models, "release": release}, sort_keys=False))


def checks(sample: str, chosen: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the chosen levels, with a sample where it counts."""
    sampled = ("--sample", sample)
    levels = [
        *[(level,) for level in ("files", "claims", "upstream")],
        ("equality", *sampled),
        ("equality", "--sample", "all"),
        ("recomputed", *sampled),
    ]
    return [level for level in levels if level[0] in chosen]


class Bench:
    """A local Hub, a folder to work in, and the code that is measured.

    Args:
        work: The folder.
        hub: The Hub, which has the sources.
        code: A checkout of Herdbook.
        repo: The repository to which the release is published.
    """

    def __init__(self, work: Path, hub: LocalHub, code: Path, repo: str) -> None:
        self.work, self.hub, self.repo = work, hub, repo
        self.recipe = work / "recipe.yaml"
        self.environment = environment(hub, work / "home", hub.token) | {
            "PYTHONPATH": str(code.resolve() / "src"),
            "HERDBOOK_RECIPE": str(self.recipe),
        }
        self.environment.pop(
            "PYTHONDONTWRITEBYTECODE", None
        )  # users do not compile the modules in each process

    def herdbook(self, *arguments: str, accepted: tuple[int, ...] = (0,)) -> Cost:
        """Run a command of herdbook in the folder, as a user would."""
        command = [sys.executable, "-P", "-m", "herdbook", *arguments]
        return run(command, self.environment, accepted=accepted, folder=self.work)

    def build(self, layers: int) -> tuple[int, int]:
        """Lock, build and publish; return the size of the weights, and how many tensors they are."""
        self.work.mkdir(exist_ok=True)
        write_recipe(self.recipe, layers, self.repo)
        command = [sys.executable, "-P", "-c", BUILD, str(self.recipe), str(self.work / "results")]
        said = subprocess.check_output(command, env=self.environment, cwd=self.work, text=True)
        size, count = json.loads(said.splitlines()[-1])
        clear(self.work / "results")
        clear(self.work / "home")
        return size, count

    def verify(self, *level: str) -> tuple[str, int, int, Cost]:
        """Verify the published release with an empty cache; return the result, bytes, requests, and the process."""
        clear(self.work / "home")
        self.hub.forget()
        arguments = ("verify", self.repo, "--seed", "0", "--level", *level)
        done = self.herdbook(*arguments, accepted=tuple(STATUSES))
        requests = self.hub.requests
        return STATUSES[done.status], sum(request.bytes_sent for request in requests), len(requests), done


def main() -> None:
    """Build a release of each size, verify it at each level, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    parser.add_argument("--sample", default="500MB", help="bytes that are compared (default: 500MB)")
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=LEVELS, help="default: all")
    parser.add_argument("--rounds", type=int, default=1, help="the round with the least seconds counts")
    parser.add_argument("--against", type=Path, help="a checkout of another commit, to compare with")
    parser.add_argument("--work", type=Path, help="folder for 20 GB (default: a temporary one)")
    options = parser.parse_args()
    codes = [HERE, *([options.against] if options.against else [])]
    for layers in options.layers:
        with tempfile.TemporaryDirectory(dir=options.work) as name, LocalHub() as hub:
            publish_sources(Path(name), hub, layers, options.part)
            benches = [
                Bench(Path(name) / f"code{number}", hub, code, f"{REPO}{number or ''}")
                for number, code in enumerate(codes)
            ]
            measure(benches, layers, checks(options.sample, options.levels), options.rounds)


def publish_sources(work: Path, hub: LocalHub, layers: int, part: int) -> None:
    """Generate the sources, and put them on the Hub."""
    whole = buttercup.Widths(layers=layers)
    sizes = ("hidden", "intermediate", "heads", "kv_heads", "vocabulary")
    widths = replace(whole, **{size: getattr(whole, size) // part for size in sizes})
    hub.orgs.add(REPO.partition("/")[0])
    for seed, name in enumerate(SOURCES):
        write_source(work / name, widths, seed)
        files = {path.name: path for path in (work / name).iterdir()}
        hub.add_repo(f"herd/{name}-7b", files, license="apache-2.0")


def measure(benches: Sequence[Bench], layers: int, levels: Sequence[tuple[str, ...]], rounds: int) -> None:
    """Print the table of one size; with a second code, also its seconds of processors, and the ratio."""
    started = time.perf_counter()
    size, count = benches[0].build(layers)
    for other in benches[1:]:
        other.build(layers)
    passed = time.perf_counter() - started
    print(f"\n{layers} layers, {size / GB:.2f} GB, {count} tensors; made and published in {passed:.0f} s\n")
    compared = len(benches) > 1
    print(
        f"{'level':26}{'result':>12}{'MB read':>10}{'requests':>10}{'s':>8}{'CPU s':>8}{'MB memory':>11}"
        + (f"{'before':>12}{'CPU s':>8}{'ratio':>8}" if compared else "")
    )
    for level in levels:
        found = [[bench.verify(*level) for bench in benches] for _ in range(rounds)]
        least = [min(one, key=lambda each: each[3].cpu_seconds) for one in zip(*found, strict=True)]
        result, read, requests, done = least[0]
        line = (
            f"{' '.join(level):26}{result:>12}{read / MB:10.1f}{requests:10}{done.seconds:8.1f}"
            f"{done.cpu_seconds:8.1f}{done.peak_bytes / MB:11.0f}"
        )
        for found_before, _, _, before in least[1:]:
            line += f"{found_before:>12}{before.cpu_seconds:8.1f}{done.cpu_seconds / before.cpu_seconds:8.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
