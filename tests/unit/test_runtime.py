"""Quantized files that llama.cpp runs: planned beside the dequantized ones, and compared with them on the card."""

import pytest

from herdbook import needs
from herdbook import plan as plans
from herdbook.errors import RecipeError
from herdbook.layout import BOMS
from herdbook.needs.software import missing_software
from herdbook.plan.jobs import result_jobs
from herdbook.recipe import load
from herdbook.steps.card.step import card_texts, render_card
from support import measured, quantized, tiny
from support.verification import failures

VALUES = {"mix": 0.9, "mix.Q8_0": 0.91, "mix.Q8_0.llama.cpp": 0.915}
EXPERTS = [{"model": "base", "prompts": ["w1"]}, {"model": "base", "prompts": ["w2"]}]


def write(folder, **changes):
    tiny.write_model(folder / "base", seed=1, head_dim=8)
    tiny.write_task(folder / "task.yaml")
    return tiny.write_recipe(
        folder / "r.yaml",
        {"base": {"folder": "base"}, "mix": {"moe": {"base": "base", "experts": EXPERTS}}},
        evaluate={"tasks": ["task.yaml"], "models": ["mix"]},
        quantize={"methods": ["Q8_0"], **changes},
    )


def test_the_card_says_how_far_both_differ(tmp_path):
    plan = tiny.build(write(tmp_path, runtime="llama.cpp"), tmp_path / "results")
    quantized.add_to(plan, quantized.size_label(experts=2))
    assert [item.name for item in plan.evaluations] == list(VALUES)
    assert len({item.key for item in plan.evaluations}) == 3
    for item in plan.evaluations:
        measured.write(plan, item, [VALUES[item.name]] * 3)
    card = card_texts(plan)["README.md"]
    assert "| `mix.Q8_0.llama.cpp` | 0.9150 ± 0.0123 |" in card
    render_card(plan, plan.layout.card_folder)
    release = tiny.release(plan)
    assert not failures(release, "claims")
    bill = (release / BOMS["1.6"]).read_text()
    assert "Tiny.Q8_0.gguf run by llama.cpp: held_out" in bill
    assert "\n- Q8\\_0: +0.0050 in Held-out text (bits per byte)\n" in card


def test_without_it_nothing_is_run_twice(tmp_path):
    recipe = write(tmp_path)
    tiny.lock(recipe)
    plan = plans.load(recipe, tmp_path / "results")
    assert [item.runtime for item in plan.evaluations] == ["", ""]
    assert "llama.cpp" not in str(plan.evaluations[-1].about)


def test_the_runtime_is_missed_before_anything_is_built(tmp_path, monkeypatch):
    recipe = write(tmp_path, runtime="llama.cpp")
    tiny.lock(recipe)
    plan = plans.load(recipe, tmp_path / "results")
    monkeypatch.setattr(
        "herdbook.needs.software.find_spec", lambda name: None if name == "llama_cpp" else name
    )
    [missed] = [line for line in missing_software(result_jobs(plan)) if "llama.cpp" in line]
    assert missed.startswith("evaluate mix.Q8_0.llama.cpp-")
    assert ": llama.cpp's runtime is not installed (`quantize.runtime`)" in missed
    assert [needs.gpus(plan, item, 10**11) for item in plan.evaluations] == [1, 1, 0]
    assert all(needs.memory_bytes(plan, item) > 0 for item in plan.evaluations)


def test_it_needs_the_dequantized_file_to_compare_with(tmp_path):
    with pytest.raises(RecipeError, match="quantize: runtime: is compared with the dequantized file"):
        load(write(tmp_path, runtime="llama.cpp", evaluate=False))
