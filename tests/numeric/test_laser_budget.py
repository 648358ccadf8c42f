"""A budget of rank over several matrices, against every other way to spread it and against NumPy's SVD."""

import itertools
import json
import math
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from herdbook.inference.forward import LayerwiseModel
from herdbook.inference.text import windows
from herdbook.steps.laser.budget import spread
from support import tiny

MATRICES = ["self_attn.k_proj", "mlp.up_proj"]


def lost(values, rank):
    """The square of the relative error of the best approximation of a rank."""
    return sum(value**2 for value in values[rank:]) / sum(value**2 for value in values)


def best(spectra, total):
    """Try every choice of ranks that add up to a total; return the smallest sum of losses."""
    names = list(spectra)
    choices = itertools.product(*(range(1, len(spectra[name]) + 1) for name in names))
    return min(
        sum(lost(spectra[name], rank) for name, rank in zip(names, choice, strict=True))
        for choice in choices
        if sum(choice) == total
    )


def drawn(*counts, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"m{number}": np.sort(10 ** rng.uniform(-2, 1 + number, count))[::-1]
        for number, count in enumerate(counts)
    }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("budget", [0.01, 0.3, 0.5, 0.77, 0.95, 1.0])
def test_no_other_choice_of_ranks_loses_less(budget, seed):
    spectra = drawn(5, 3, 6, 4, seed=seed)
    found = spread(spectra, budget)
    total = max(4, math.floor(budget * 18))
    assert sum(found.ranks.values()) == total
    assert sum(lost(spectra[name], rank) for name, rank in found.ranks.items()) == pytest.approx(
        best(spectra, total), rel=1e-12
    )


def test_the_norm_of_a_matrix_counts_for_nothing():
    spectra = drawn(5, 7)
    scaled = {name: values * factor for factor, (name, values) in enumerate(spectra.items(), start=100)}
    assert spread(scaled, 0.5).ranks == spread(spectra, 0.5).ranks


def test_a_rank_follows_from_the_level_and_its_matrix_alone():
    spectra = drawn(20, 31, 7, seed=3)
    found = spread(spectra, 0.4)
    for name, values in spectra.items():
        shares = values**2 / (values**2).sum()
        assert found.ranks[name] == 1 + sum(share >= found.level * (1 - 1e-11) for share in shares[1:])


def test_of_equal_shares_the_first_by_name_are_kept():
    values = np.array([2.0, 1.0, 1.0])
    assert spread({"b": values, "a": values}, 0.5).ranks == {"a": 2, "b": 1}
    assert spread({"b": values, "a": values}, 0.67).ranks == {"a": 3, "b": 1}


def test_a_matrix_of_zeros_keeps_one_value():
    assert spread({"a": np.zeros(4), "b": np.array([3.0, 2.0, 1.0])}, 0.6).ranks == {"a": 1, "b": 3}


# -- from the recipe -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("budget")
    tiny.write_model(root / "m", layers=2, dtype=torch.float32)
    rng = random.Random(1)
    lines = [json.dumps({"text": " ".join(f"w{rng.randrange(50)}" for _ in range(200))}) for _ in range(20)]
    (root / "validation.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def build(folder, results, name, rank, **entry):
    entry = {"laser": "m", "matrices": MATRICES, "rank": rank, **entry}
    text = {"data": ["validation.jsonl"], "split": "validation", "windows": 30, "tokens": 24}
    recipe = tiny.write_recipe(
        folder / f"{name}.yaml", {"m": {"folder": "m"}, "l": entry}, calibration={"c": text}
    )
    plan = tiny.build(recipe, results)
    entries = {
        tensor: entry
        for part in plan.nodes["l"].parts
        for tensor, entry in json.loads(plan.layout.record(part).read_text())["tensors"].items()
        if entry["action"] == "laser"
    }
    (planned,) = plan.searches.values()
    return plan, entries, json.loads(plan.layout.search(planned).read_text())


def one_by_one(spectra, total):
    """Give each matrix one value, then the next value to the matrix that gains most, until the total is reached."""
    ranks = dict.fromkeys(spectra, 1)
    while sum(ranks.values()) < total:
        gains = {
            name: lost(values, ranks[name]) - lost(values, ranks[name] + 1)
            for name, values in spectra.items()
            if ranks[name] < len(values)
        }
        ranks[max(gains, key=gains.__getitem__)] += 1
    return ranks


def test_a_model_s_matrices_keep_what_the_budget_gives_them(folder, tmp_path):
    plan, entries, result = build(folder, tmp_path, "plain", {"budget": 0.6})
    before = load_file(folder / "m/model.safetensors")
    spectra = {name: np.linalg.svd(before[name].double().numpy(), compute_uv=False) for name in entries}
    assert {len(values) for values in spectra.values()} == {16, 32}
    expected = one_by_one(spectra, math.floor(0.6 * 2 * (16 + 32)))
    assert len(set(expected.values())) > 2  # not the same share of each
    assert {name: entry["rank"] for name, entry in entries.items()} == expected
    assert {name: entry["rule"] for name, entry in entries.items()} == expected
    (budget,) = result["budgets"]
    assert budget["rule"] == {"budget": 0.6}
    assert budget["ranks"] == result["chosen"] == expected
    made = {
        name: tensor
        for shard in plan.layout.folder(plan.nodes["l"]).glob("*.safetensors")
        for name, tensor in load_file(shard).items()
    }
    for name, rank in expected.items():
        assert torch.linalg.matrix_rank(made[name].double(), atol=1e-5) == rank


def test_a_ranking_selects_and_the_budget_is_for_the_selected(folder, tmp_path):
    for by in ("snr", "gradient"):
        select = {"by": by, "count": 3}
        more = {"calibration": "c"} if by == "gradient" else {}
        _, entries, result = build(folder, tmp_path, by, {"budget": 0.5}, select=select, **more)
        assert set(entries) == {entry["tensor"] for entry in result["ranking"][:3]}
        assert sum(entry["rank"] for entry in entries.values()) == math.floor(
            0.5 * sum(entry["of"] for entry in entries.values())
        )


def test_by_the_outputs_it_is_their_error_that_is_least(folder, tmp_path):
    plan, entries, result = build(folder, tmp_path, "outputs", {"svd-llm": {"budget": 0.4}}, calibration="c")
    model = AutoModelForCausalLM.from_pretrained(folder / "m", dtype=torch.float32).eval()
    outputs = {name: [] for name in entries}
    for name in entries:
        model.get_submodule(name.removesuffix(".weight")).register_forward_hook(
            lambda _, __, out, name=name: outputs[name].append(out[0].double())
        )
    ids = windows(plan, "c", folder / "m", LayerwiseModel(folder / "m").config, 30)
    with torch.no_grad():
        for window in ids:
            model(torch.tensor([window]))
    spectra = {
        name: torch.linalg.svdvals(torch.cat(found)).numpy()[: entries[name]["of"]]
        for name, found in outputs.items()
    }
    expected = one_by_one(spectra, math.floor(0.4 * 2 * (16 + 32)))
    assert {name: entry["rank"] for name, entry in entries.items()} == expected
    assert result["chosen"] == {name: {"svd-llm": rank} for name, rank in expected.items()}
    plain = build(folder, tmp_path, "plain", {"budget": 0.4})[2]["budgets"][0]["ranks"]
    assert plain != expected


def test_a_guard_tries_each_budget_s_rank(folder, tmp_path):
    rank = [{"budget": 0.3}, {"svd-llm": {"budget": 0.8}}, 30]
    _, entries, result = build(folder, tmp_path, "guarded", rank, calibration="c", guard={"margin": 0.002})
    first, second = result["budgets"]
    assert [first["rule"], second["rule"]] == rank[:2]
    for trial in result["trials"]:
        name = trial["tensor"]
        assert trial["rule"] in (first["ranks"][name], {"svd-llm": second["ranks"][name]}, 30)
    assert {name: entry["rule"] for name, entry in entries.items()} == result["chosen"]
    assert any(isinstance(trial["rule"], dict) for trial in result["trials"])
