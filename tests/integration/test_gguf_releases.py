"""Releases of families whose GGUF is not simply what llama.cpp's converter makes of them: made, noted on the card, and verified."""

import json

import pytest

from herdbook.cli.main import main
from herdbook.errors import StepError
from herdbook.layout import RECORDS
from herdbook.release.finding import Outcome
from herdbook.steps.card.step import render_card
from herdbook.steps.loss.step import loss
from herdbook.steps.quantize.step import convert, quantize
from herdbook.tools.converter import CONVERTER
from herdbook.weights.gguf_file import read_gguf
from support import buttercup, lies, tiny
from support.gguf_families import families
from support.verification import findings

pytestmark = pytest.mark.slow
ROWS = 520


@pytest.fixture(autouse=True)
def converter():
    try:
        CONVERTER.find()
    except StepError as error:
        pytest.skip(str(error))


def write_tokenizer(folder):
    """Write a tokenizer that the converter reads."""
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink(missing_ok=True)
    buttercup.write_tokenizer(folder, [f"{number} sires and dams" for number in range(2000)])
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def released(recipe, results):
    """Make a release with its quantized files; return plan and folder."""
    plan = tiny.build(recipe, results)
    convert(plan)
    for item in plan.quantized:
        quantize(plan, item, 1)
    for measured in plan.losses:
        loss(plan, measured)
    render_card(plan, plan.layout.card_folder)
    return plan, tiny.release(plan, lies.KEY)


def is_proven(folder, recipe, sample_bytes=None):
    found = findings(folder, "recomputed", sample_bytes=sample_bytes, inputs=recipe)
    wrong = [one for one in found if one.outcome is Outcome.FAILED]
    assert not wrong, wrong
    assert any(one.check == "gguf headers" for one in found)


@pytest.mark.parametrize("shared", [False, True])
def test_a_mixture_of_deepseek_s_kind(tmp_path, shared):
    names = ["base", "other", *(["third"] if shared else [])]
    for seed, name in enumerate(names):
        tiny.write_model(tmp_path / name, seed, vocab=ROWS, attention_bias=True)
        write_tokenizer(tmp_path / name)
    experts = [{"model": name, "prompts": [name]} for name in ("base", "other", "base")]
    moe = {"base": "base", "family": "deepseek", "experts": experts}
    if shared:
        moe["shared_experts"] = [{"model": "third", "prompts": ["more"]}]
    models = {**{name: {"folder": name} for name in names}, "mix": {"moe": moe}}
    lines = [
        json.dumps({"text": f"{number} sires and {number + 3} dams of {number * 7} " * 9})
        for number in range(200)
    ]
    for name in ("train", "held"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines[name == "held" :: 2]) + "\n")
    texts = {"windows": 30, "tokens": 12}
    sections = {
        "calibration": {
            "train": {"data": ["train.jsonl"], "split": "train", **texts},
            "held": {"data": ["held.jsonl"], "split": "validation", **texts},
        },
        "quantize": {
            "methods": ["Q8_0", "IQ4_NL"],
            "evaluate": False,
            "imatrix": {"texts": ["train"], "below": "mean"},
            "loss": {"texts": ["held"]},
        },
    }
    recipe = tiny.write_recipe(tmp_path / "r.yaml", models, **sections)
    plan, folder = released(recipe, tmp_path / "results")
    file = read_gguf(folder / plan.quantized[0].file)
    architecture = "granitemoe" if shared else "llama"
    assert file.value("general.architecture") == architecture
    assert file.value(f"{architecture}.expert_count") == 3
    assert file.value(f"{architecture}.expert_used_count") == 2
    assert ("blk.1.ffn_down_shexp.weight" in file.tensors) == shared
    losses = [json.loads(plan.layout.loss(each).read_text())["total"] for each in plan.losses]
    assert all(0 < each["kl_divergence"]["value"] < 0.01 for each in losses)
    is_proven(folder, recipe)
    is_proven(folder, recipe, sample_bytes=2000)


def test_a_model_with_longrope(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(families.COMMON, "vocab_size", ROWS)
    monkeypatch.setattr(families, "VOCABULARY", ROWS)
    families.write_folder("phi4-mini", tmp_path / "base")
    write_tokenizer(tmp_path / "base")
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml", {"base": {"folder": "base"}}, quantize={"methods": ["Q8_0"]}
    )
    plan, folder = released(recipe, tmp_path / "results")
    note = "With a context of more than 256 tokens (which it rounds up to a multiple of 256), llama.cpp uses the long factors"
    record = json.loads((folder / RECORDS / f"{plan.quantized[0].id}.gguf.json").read_text())
    assert record["note"].startswith(note)
    assert "llama.cpp uses the long factors" in (folder / "README.md").read_text().replace("\\", "")
    assert any(f"quantize: with{note[4:]}" in line for line in plan.warnings)
    assert main(["plan", "--recipe", str(recipe)]) == 0
    assert "llama.cpp uses the long factors" in "".join(capsys.readouterr())
    is_proven(folder, recipe)
    is_proven(folder, recipe, sample_bytes=2000)
