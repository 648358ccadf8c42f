"""The cost of `herdbook audit` of dense merges with layers as wide as Mistral-7B's, from a local Hub.

Two sources of random weights with Mistral-7B's shapes and few layers, and merges of them by our own steps with mergekit's
semantics, are put on a local Hub. Each merge is audited by a process of its own, with an empty cache. Printed: the result, bytes
transferred (counted by the Hub), seconds, seconds of processors and peak resident memory.

    python benchmarks/audit.py --layers 2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from merge import clear, run
from pytest_local_hub import LocalHub
from pytest_local_hub.client import environment
from wide import GB, MB, buttercup, write_source

HERE = Path(__file__).parents[1]
STATUSES = {0: "passed", 8: "failed", 9: "unverified", 10: "broken"}
BOTH = ("one", "other")
METHODS: dict[str, dict[str, Any]] = {
    "linear": {"models": [{"model": name, "parameters": {"weight": 0.5}} for name in BOTH]},
    "slerp": {"base_model": "one", "models": [{"model": name} for name in BOTH], "parameters": {"t": 0.4}},
    "ties": {
        "base_model": "one",
        "models": [{"model": "other", "parameters": {"weight": 0.6, "density": 0.5}}],
    },
}


def named(method: str, prefix: str) -> str:
    """Return mergekit's configuration of a merge, whose models have a prefix before their names."""
    settings = METHODS[method]
    models = [{**entry, "model": prefix + entry["model"]} for entry in settings["models"]]
    base = {"base_model": prefix + settings["base_model"]} if "base_model" in settings else {}
    return yaml.safe_dump({**settings, **base, "merge_method": method, "models": models, "dtype": "bfloat16"})


def main() -> None:
    """Make the merges, audit them, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=2, help="default: 2")
    parser.add_argument(
        "--part", type=int, default=1, help="divide all widths by 2, 4 or 8, for less time (default: 1)"
    )
    parser.add_argument("--sample", default="500MB", help="bytes that are recomputed (default: 500MB)")
    parser.add_argument("--work", type=Path, help="folder for 12 GB (default: a temporary one)")
    options = parser.parse_args()
    whole = buttercup.Widths(layers=options.layers)
    sizes = ("hidden", "intermediate", "heads", "kv_heads", "vocabulary")
    widths = replace(whole, **{size: getattr(whole, size) // options.part for size in sizes})
    with tempfile.TemporaryDirectory(dir=options.work) as name, LocalHub() as hub:
        work = Path(name)
        for seed, source in enumerate(BOTH):
            write_source(work / source, widths, seed)
            hub.add_repo(f"herd/{source}", {path.name: path for path in (work / source).iterdir()})
        print(f"{'method':10}{'GB':>8}{'result':>12}{'MB read':>10}{'s':>8}{'CPU s':>8}{'MB memory':>11}")
        for method in METHODS:
            audit(work, hub, method, options.sample)


def audit(work: Path, hub: LocalHub, method: str, sample: str) -> None:
    """Make a merge, put it on the Hub, audit it, and print a line."""
    folder = work / method
    folder.mkdir()
    (folder / "config.yml").write_text(named(method, "../"))
    variables = environment(hub, work / "home", hub.token) | {"PYTHONPATH": str(HERE / "src")}
    herdbook = [sys.executable, "-P", "-m", "herdbook"]
    recipe = folder / "recipe.yaml"
    arguments = ["config.yml", "--output", "recipe.yaml", "--license", "apache-2.0", "--name", method]
    run([*herdbook, "import", *arguments], variables, folder)
    run([*herdbook, "lock", str(recipe)], variables, folder)
    made = folder / "results"
    script = (
        "import sys; from pathlib import Path; from herdbook import plan;"
        "from herdbook.steps.machine import Machine; from herdbook.steps.registry import STEPS;"
        "p = plan.load(Path(sys.argv[1]), Path(sys.argv[2]));"
        "[STEPS[part.rule](p, part, Machine()) for part in p.parts.values()];"
        "[STEPS['assemble'](p, node, Machine()) for node in p.nodes.values()]"
    )
    run([sys.executable, "-P", "-c", script, str(recipe), str(made)], variables, folder)
    (released,) = (made / "models").glob("merged-*")
    files = {path.name: path.resolve() for path in released.iterdir()}
    card = f"---\nlicense: apache-2.0\n---\n```yaml\n{named(method, 'herd/')}```\n"
    hub.add_repo(f"herd/{method}", {**files, "README.md": card.encode()})
    size = sum(path.stat().st_size for path in files.values())
    clear(work / "home")
    hub.forget()
    done = run([*herdbook, "audit", f"herd/{method}", "--sample", sample], variables, work, tuple(STATUSES))
    read = sum(request.bytes_sent for request in hub.requests)
    print(
        f"{method:10}{size / GB:8.2f}{STATUSES[done.status]:>12}{read / MB:10.1f}{done.seconds:8.1f}{done.cpu_seconds:8.1f}"
        f"{done.peak_bytes / MB:11.0f}",
        flush=True,
    )
    clear(made)


if __name__ == "__main__":
    main()
