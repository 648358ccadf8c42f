"""GGUF files of each kind, beside those of llama.cpp's quantizer, and what llama.cpp's runtime makes of them.

Two models: the miniature, which `snakemake` has built, and a small mixture of Qwen3's kind with random weights, which is merged here from
two models. Their files are made as in a build: eight methods with an importance matrix, and a budget of bits per weight. Printed for each:
its bits per weight, whether all tensors have the bytes of those that llama.cpp's quantizer makes of the full-width file by llama.cpp's
converter (to which, for the budget, the types are given), and how llama.cpp continues a text. The first file is also read in parts.

    pip install llama-cpp-python==0.3.36
    python benchmarks/runtime.py
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from gguf.constants import GGMLQuantizationType
from quantize import convert_at_full_width, same_tensors
from wide import ROOT, tiny

from herdbook import plan as plans
from herdbook.layout import CONFIG
from herdbook.plan.jobs import result_jobs
from herdbook.quantization.methods import METHODS
from herdbook.quantization.split import part_names, runs
from herdbook.recipe.quantize import BudgetedFile, Quantize
from herdbook.sources.select import TOKENIZER_FILES
from herdbook.steps.evaluate.llama_runtime import opener
from herdbook.steps.machine import Machine
from herdbook.steps.registry import run
from herdbook.weights.gguf_file import read_gguf
from herdbook.weights.gguf_parts import write_part
from herdbook.weights.imatrix import read_imatrix

if TYPE_CHECKING:
    from herdbook.plan import Plan, Quantized
    from herdbook.plan.job import Job
    from herdbook.weights.imatrix import ImportanceMatrix

FORMS = ("Q8_0", "Q6_K", "Q4_K_M", "Q4_K_L", "MXFP4_MOE", "IQ4_XS", "IQ3_M", "IQ2_M")
BITS = {"qwen3": 4.5, "miniature": 5.5}  # the miniature's rows hold no type below IQ4_NL
PARTS = 3
BEGINNING, CONTINUED = "The capital of France is", 8
HEAD = "| file | bits per weight | bytes of llama.cpp's quantizer | continued by llama.cpp |\n| --- | ---: | --- | --- |"


@dataclass(frozen=True)
class Peer:
    """llama.cpp's quantizer, on one model.

    Args:
        full: The model at full width, by llama.cpp's converter.
        matrix: The importance matrix.
        threads: How many threads encode.
    """

    full: Path
    matrix: ImportanceMatrix
    threads: int

    def quantize(self, item: Quantized, types: dict[str, str], output: Path) -> None:
        """Make a file of a method, or, for a budget, of given types."""
        from llama_cpp import llama_cpp as library

        settings = library.llama_model_quantize_default_params()
        settings.ftype, settings.nthread = item.file_type, self.threads
        entries, kept = [], []
        for name, inputs in self.matrix.inputs.items():
            kept.append(np.concatenate([inputs.weights(expert) for expert in range(len(inputs.counts))]))
            values = kept[-1].ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            entries.append(library.llama_model_imatrix_data(name.encode(), values, kept[-1].size))
        settings.imatrix = _listed(
            library.llama_model_imatrix_data, entries, (None, None, 0), settings.imatrix
        )
        if ends := METHODS[item.method].ends if item.method in METHODS else None:
            settings.output_tensor_type = settings.token_embedding_type = GGMLQuantizationType[ends]
        if item.budget:
            settings.token_embedding_type = GGMLQuantizationType[types["token_embd.weight"]]
            settings.output_tensor_type = GGMLQuantizationType[types.get("output.weight", "F16")]
            chosen = [
                library.llama_model_tensor_override(
                    f"^{re.escape(name)}$".encode(), GGMLQuantizationType[kind]
                )
                for name, kind in types.items()
            ]
            settings.tt_overrides = _listed(
                library.llama_model_tensor_override, chosen, (None, 0), settings.tt_overrides
            )
        status = library.llama_model_quantize(
            str(self.full).encode(), str(output).encode(), ctypes.byref(settings)
        )
        if status or not kept:
            raise SystemExit(f"{item.file}: llama.cpp's quantizer ended with status {status}")


def _listed(kind: Any, entries: list[Any], end: tuple[Any, ...], pointer: Any) -> Any:
    """Return entries as llama.cpp is given them: an array that ends with an empty one."""
    return ctypes.cast((kind * (len(entries) + 1))(*entries, kind(*end)), type(pointer))


def continued(file: Path, threads: int) -> str:
    """Return how llama.cpp continues the text, always with the likeliest token."""
    runtime = opener(file, threads)(64)
    try:
        tokens = runtime.tokens(BEGINNING, begin=True)
        made = [int(runtime.logits(tokens)[-1].argmax())]
        while len(made) < CONTINUED:
            made.append(int(runtime.logits(made[-1:], new=True)[-1].argmax()))
        return str(runtime.text(made, special=True))
    finally:
        runtime.close()


def with_files(plan: Plan, bits: float) -> Plan:
    """Return a plan of the same model with all the files."""
    section = Quantize(
        methods=[*FORMS, BudgetedFile(bpw=bits)],
        imatrix={"texts": list(plan.recipe.calibration), "below": "mean"},
    )
    return replace(plan, recipe=plan.recipe.model_copy(update={"quantize": section}))


def mixture(root: Path, tokenizer: Path) -> Plan:
    """Merge a small mixture of Qwen3's kind, with the tokenizer in a folder."""
    settings = yaml.safe_load((tokenizer / CONFIG).read_text(encoding="utf-8"))
    special = {key: settings[key] for key in ("bos_token_id", "eos_token_id", "vocab_size")}
    for seed, name in enumerate(("base", "other"), start=1):
        tiny.write_model(
            root / name,
            seed,
            model_type="qwen3",
            hidden=256,
            intermediate=512,
            head_dim=64,
            tie_word_embeddings=True,
            **special,
        )
        for file in TOKENIZER_FILES:
            (root / name / file).unlink(missing_ok=True)
            if (tokenizer / file).exists():
                shutil.copy(tokenizer / file, root / name)
    experts = [{"model": name, "prompts": [name]} for name in ("base", "other", "base", "other")]
    models = {name: {"folder": name} for name in ("base", "other")}
    models["mix"] = {"moe": {"base": "base", "family": "qwen3", "gate": "hidden", "experts": experts}}
    texts = ROOT / "config" / "miniature" / "text" / "general" / "validation.jsonl"
    shutil.copy(texts, root / "general.jsonl")
    calibration = {"general": {"data": ["general.jsonl"], "split": "validation", "windows": 30, "tokens": 48}}
    return tiny.build(
        tiny.write_recipe(root / "recipe.yaml", models, calibration=calibration), root / "results"
    )


def make(plan: Plan, job: Job, threads: int) -> None:
    """Run a job whose results are missing."""
    if not all(path.exists() for path in job.outputs):
        run(plan, job, Machine(threads))


def compare(plan: Plan, folder: Path, threads: int) -> None:
    """Make the files of a plan and those of llama.cpp's quantizer, and print a row for each."""
    jobs = [job for job in result_jobs(plan) if job.rule in {"imatrix", "convert", "quantize"}]
    for job in jobs:
        if job.rule != "quantize":
            make(plan, job, threads)
    full, output = folder / "full.gguf", folder / "theirs.gguf"
    model = plan.layout.folder(plan.released)
    convert_at_full_width(model, full, plan.gguf_metadata, folder / "staging")
    assert plan.imatrix is not None  # noqa: S101 - the files ask for it
    peer = Peer(full, read_imatrix(plan.layout.matrix(plan.imatrix)), threads)
    print(HEAD, flush=True)
    for number, item in enumerate(plan.quantized):
        ours = plan.layout.quantized(item)
        make(plan, next(job for job in jobs if ours in job.outputs), threads)
        made = read_gguf(ours)
        types = {name: tensor.type.name for name, tensor in made.tensors.items()}
        peer.quantize(item, types, output)
        same = "yes" if same_tensors(ours, output) else "NO"
        bits = 8 * sum(tensor.size_bytes for tensor in made.tensors.values())
        weights = sum(tensor.parameters for tensor in made.tensors.values())
        print(
            f"| {item.method} | {bits / weights:.2f} | {same} | `{continued(ours, threads)!r}` |", flush=True
        )
        if number:
            continue
        cut = runs(item.tensors, item.size_bytes // (PARTS - 1))
        paths = [folder / name for name in part_names(item.file, len(cut))]
        for part, path in enumerate(paths):
            write_part(made, cut, part, path)
        print(
            f"| {item.method} in {len(paths)} parts | {bits / weights:.2f} | | `{continued(paths[0], threads)!r}` |",
            flush=True,
        )
    full.unlink()


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(BITS), help="only this one")
    parser.add_argument("--results", type=Path, default=Path("results"), help="of the build of the miniature")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    miniature = plans.load(ROOT / "config" / "miniature.yaml", options.results)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for title in [options.model] if options.model else list(BITS):
            folder = root / title
            folder.mkdir()
            plan = miniature
            if title == "qwen3":
                plan = mixture(folder, miniature.layout.folder(miniature.released))
            print(f"\n{plan.recipe.release.name} ({title})\n")
            compare(with_files(plan, BITS[title]), folder, options.threads)


if __name__ == "__main__":
    main()
