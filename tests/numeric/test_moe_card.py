"""What the card says of a mixture's routers is what was done."""

import json

import pytest

from herdbook.steps.card.step import render_card
from support import tiny

TOLD = {
    "hidden": "hidden state at the end of an expert's prompts",
    "hidden_avg": "mean hidden state over an expert's prompts",
    "cheap_embed": "mean embedding of the tokens",
    "random": "drawn at random (seed 0)",
    "uniform_random": "drawn at random (seed 0)",
    "router_input": "what the base's MLP sees at the end of an expert's prompts",
    "router_input_avg": "what the base's MLP sees, on average over an expert's prompts",
    "centred": "less the mean over all experts",
    "ridge": "a closed-form ridge regression",
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


def test_the_card_tells_what_the_routers_choose(tmp_path):
    for seed, name in enumerate(("base", "b")):
        tiny.write_model(tmp_path / name, seed=seed)
    lines = [json.dumps({"text": " ".join(f"w{(i * j) % 60}" for i in range(40))}) for j in range(1, 12)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    experts = [{"model": name, "prompts": ["w1"]} for name in ("base", "b")]
    experts.append({"model": "b", "prompts": ["w9"]})
    models = {
        **{name: {"folder": name, "license": "mit"} for name in ("base", "b")},
        "mix": {"moe": {"base": "base", "experts": experts, "experts_per_token": 1}},
    }
    text = {"data": ["t.jsonl"], "split": "validation", "windows": 30, "tokens": 12}
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml", models, calibration={"words": text}, routing={"texts": ["words"]}
    )
    plan = tiny.build(recipe, tmp_path / "results")
    render_card(plan, tmp_path / "card")
    card = (tmp_path / "card/README.md").read_text(encoding="utf-8")
    report = json.loads(plan.layout.report(plan.report).read_text(encoding="utf-8"))
    shares = [layer["words"]["share"] for layer in report["layers"]]
    shown = " | ".join(f"{50 * (a + b):.1f} %" for a, b in zip(*shares, strict=True))
    assert f"| words | 360 | {report['texts']['words']['loss']:.4f} | {shown} |" in card.replace("\\", "")
    table = card[card.index("| text | tokens") :].split("\n\n")[0]
    assert len(table.splitlines()) == 3  # no blank line ends it early
    assert "Experts 1 and 2 have equal rows in layers 0-1" in card.replace("\\", "")
    figure = (tmp_path / "card/figures/routing.svg").read_text(encoding="utf-8")
    assert figure.count("of the choices</title>") == 6  # a cell for each expert and layer
