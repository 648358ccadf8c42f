"""Folding adapters, against PEFT itself and by hand."""

import json

import pytest
import torch

from herdbook.architectures.lora import scale_of
from herdbook.steps.adapter.fold import fold
from herdbook.weights.checkpoint import read_record
from support import tiny


def test_fold_by_hand():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    a, b = torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0], [0.5]])
    assert fold(weight, a, b, 10.0).equal(torch.tensor([[21.0, -18.0], [8.0, -1.0]]))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"r": 8, "lora_alpha": 16}, 2.0),
        ({"r": 16, "lora_alpha": 8, "use_rslora": True}, 2.0),
        ({"r": 8, "lora_alpha": 16, "rank_pattern": {"up_proj": 4}}, 4.0),
        ({"r": 8, "lora_alpha": 16, "alpha_pattern": {"model.layers.0.mlp.up_proj": 4}}, 0.5),
        (
            {"r": 8, "lora_alpha": 16, "alpha_pattern": {"p_proj": 4}},
            2.0,
        ),  # no module's name, only the end of one
        ({"r": 8, "lora_alpha": 16, "alpha_pattern": {r"layers\.[0-3]\..*up_proj": 64}}, 8.0),
        ({"r": 8, "lora_alpha": 16, "alpha_pattern": {r"layers\.[1-3]\..*up_proj": 64}}, 2.0),
        ({"r": 8, "lora_alpha": 16, "alpha_pattern": {"up_proj|q_proj": 4, "q_proj": 64}}, 0.5),
    ],
)
def test_scale(config, expected):
    assert scale_of(config, "model.layers.0.mlp.up_proj") == expected


# Settings that PEFT reads with regular expressions, and that change the scale of single modules.
PATTERNS = {
    "plain": {},
    "patterns": {
        "use_rslora": True,
        "rank_pattern": {"up_proj|down_proj": 4, r"layers\.1\.mlp\.gate_proj": 4},
        "alpha_pattern": {r"model\.layers\.\d+\.mlp\.up_proj": 3, r".*\.1\.mlp\.(gate|down).*": 5},
    },
}


@pytest.mark.parametrize("changes", PATTERNS.values(), ids=PATTERNS)
def test_folded_model_is_that_of_peft(tmp_path, changes):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tiny.write_model(tmp_path / "base", seed=1)
    tiny.write_adapter(tmp_path / "adapter", tmp_path / "base", seed=2)
    settings = tmp_path / "adapter/adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | changes))
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml", {"base": {"folder": "base"}, "tuned": {"adapter": "adapter", "on": "base"}}
    )
    plan = tiny.build(recipe, tmp_path / "results")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    expected = PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload().state_dict()
    ours = AutoModelForCausalLM.from_pretrained(
        plan.layout.folder(plan.released), dtype=torch.float32
    ).state_dict()
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        # rounded to bfloat16 once, as ours is; PEFT computes in float32, so an entry may fall on the other side
        rounded = tensor.to(torch.bfloat16).float()
        assert (ours[name] != rounded).float().mean() < 0.002
        torch.testing.assert_close(ours[name], rounded, rtol=2**-7, atol=1e-6)
    record = read_record(plan.layout.record(plan.released.parts[0]))
    changed = {name for name, entry in record["tensors"].items() if entry["action"] == "adapter"}
    assert changed == {name for name in expected if ".mlp." in name}
    scale = {"plain": 8 / 4, "patterns": 3 / 2}["patterns" if changes else "plain"]
    assert record["tensors"]["model.layers.1.mlp.up_proj.weight"]["scale"] == scale
