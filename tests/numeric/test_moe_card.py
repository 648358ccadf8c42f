"""What the card says of a mixture's routers is what was done."""

import pytest

import tiny
from herdbook.card.step import render_card

TOLD = {
    "hidden": "hidden state at the end of an expert's prompts",
    "hidden_avg": "mean hidden state over an expert's prompts",
    "cheap_embed": "mean embedding of the tokens",
    "random": "drawn at random (seed 0)",
    "uniform_random": "drawn at random (seed 0)",
    "router_input": "what the base's MLP sees at the end of an expert's prompts",
    "router_input_avg": "what the base's MLP sees, on average over an expert's prompts",
    "centred": "less the mean over all experts",
    "ridge": "a ridge regression",
}


@pytest.mark.parametrize("gate", TOLD)
def test_the_card_tells_each_gate(tmp_path, gate):
    tiny.write_model(tmp_path / "base")
    experts = [{"model": "base", "prompts": [prompt]} for prompt in ("w1 w2", "w3")]
    mixture = {"base": "base", "gate": gate, "experts": experts, "family": "qwen2"}
    mixture["shared_experts"] = [{"model": "base", "prompts": ["w7"]}]
    models = {"base": {"folder": "base", "license": "mit"}, "mix": {"moe": mixture}}
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", models), tmp_path / "results")
    render_card(plan, tmp_path / "card")
    card = (tmp_path / "card/README.md").read_text(encoding="utf-8")
    assert TOLD[gate] in card
    assert ("drawn at random" in card) == gate.endswith("random")
    assert "Every token also passes the MLPs of `base`, as a shared expert" in card
    assert ("lets it: `w7`" in card) == (not gate.endswith("random"))
