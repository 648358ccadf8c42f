"""The miniature release as `make demo` built it: a good model, and the numbers that its card says."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from herdbook import humanize
from support import llama_cpp
from support.loaded import loads_whole
from support.project import REPOSITORY

RELEASE = REPOSITORY / "results/Miniature-4x135M-laser/release"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (RELEASE / "SHA256SUMS").exists(), reason="needs what `make demo` builds"),
]


def test_it_loads_whole():
    loads_whole(RELEASE)


def test_it_loads_and_knows_the_capital_of_france():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(RELEASE)
    model = AutoModelForCausalLM.from_pretrained(RELEASE, dtype=torch.float32)
    tokens = tokenizer("The capital of France is", return_tensors="pt")
    text = tokenizer.decode(model.generate(**tokens, max_new_tokens=8, do_sample=False)[0])
    print(text)
    assert "Paris" in text


@pytest.mark.parametrize(("method", "share"), [("Q8_0", 0.1), ("Q4_K_M", 0.6)])
def test_llama_cpp_runs_the_quantized_files(monkeypatch, method, share):
    """It cuts text into the same tokens, and what it predicts diverges from the released model by a share of what the base's does."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from herdbook.steps.evaluate.llama_runtime import Runtime

    llama_cpp.provide(monkeypatch)
    text = "The capital of France is Paris, and that of Italy is Rome.\n\n    def f(x):\n\treturn 1234 + x  # né à Zürich"
    tokens = AutoTokenizer.from_pretrained(RELEASE)(text)["input_ids"]
    (path,) = RELEASE.glob(f"*{method}.gguf")
    runtime = Runtime(path, len(tokens), 2)
    try:
        assert runtime.tokens(text, begin=True) == tokens
        file = torch.from_numpy(runtime.logits(tokens)).log_softmax(-1)
    finally:
        runtime.close()

    def predictions(folder):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            return model(torch.tensor([tokens])).logits[0].log_softmax(-1)

    def divergence(other):
        return (whole.exp() * (whole - other)).sum(-1).mean().item()

    whole, base = predictions(RELEASE), predictions(next(RELEASE.parents[1].glob("models/base-[0-9a-f]*")))
    print(divergence(file), divergence(base))
    assert 0 < divergence(file) < share * divergence(base)


def test_parameters_are_those_of_the_loaded_model():
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(RELEASE)
    count = sum(parameter.numel() for parameter in model.parameters())
    card = (RELEASE / "README.md").read_text(encoding="utf-8")
    assert f"| **total** | **{count:,}** | |" in card


def test_the_table_says_what_was_measured():
    card = (RELEASE / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (?:► )?`([^`]+)` \|(.* ± .*)\|$", card, re.MULTILINE))
    results = [
        json.loads(path.read_text(), parse_float=Decimal)
        for path in (RELEASE / "provenance/evaluations").glob("*.json")
    ]
    assert {result["name"] for result in results} == rows.keys()
    for result in results:
        for task in result["tasks"].values():
            assert f"{task['metrics']['bits_per_byte']['value']:.4f}" in rows[result["name"]]


def test_the_merge_is_a_good_one():
    """On its specialists' texts it is nearer to them than to the base, which it descends from too."""
    scores = {}
    for path in (RELEASE / "provenance/evaluations").glob("*.json"):
        result = json.loads(path.read_text())
        scores[result["name"]] = {
            task: found["metrics"]["bits_per_byte"]["value"] for task, found in result["tasks"].items()
        }
    for kind in ("python", "prose"):
        base, tuned, merged = (scores[name][f"held_out_{kind}"] for name in ("base", kind, "miniature"))
        assert tuned < base
        assert abs(merged - tuned) < abs(merged - base)


def test_no_file_tells_a_path_of_the_machine():
    for path in RELEASE.rglob("*"):
        if path.suffix in {".json", ".md", ".yaml", ".svg", ".jinja"} and path.name != "tokenizer.json":
            text = path.read_text(encoding="utf-8")
            assert str(RELEASE.parents[2]) not in text, path
            assert f"{Path.home()}/" not in text, path


def test_no_job_used_more_memory_than_was_planned():
    found = {}
    for log in (REPOSITORY / "logs").glob("*/*.log"):
        lines = re.findall(
            r"^memory: (.*) used, (.*) planned$", log.read_text(encoding="utf-8"), re.MULTILINE
        )
        found |= {(log.parent.name, log.stem, number): line for number, line in enumerate(lines)}
    rules = {rule for rule, *_ in found}
    print(*sorted(found.items()), sep="\n")
    assert {
        "fetch",
        "adapter",
        "laser",
        "moe",
        "routing",
        "evaluate",
        "convert",
        "quantize",
        "card",
        "release",
    } <= rules
    for job, (used, planned) in found.items():
        assert humanize.parse_size(used) <= humanize.parse_size(planned), job
