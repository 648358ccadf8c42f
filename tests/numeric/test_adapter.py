"""Folding adapters, against PEFT itself and by hand."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from herdbook.architectures.lora import scale_of
from herdbook.errors import CheckpointError
from herdbook.steps.adapter.fold import fold
from herdbook.weights.record import read_record
from support import tiny
from support.sampled import sampled


def test_fold_with_norms_by_hand():
    weight, a, b = (
        torch.tensor([[3.0, 0.0], [0.0, 1.0]]),
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([[2.0], [0.0]]),
    )
    expected = torch.tensor([[6.0, 8.0], [0.0, 0.5]], dtype=torch.float64)  # rows (3, 4) and (0, 1)
    assert fold(weight, a, b, 2.0, torch.tensor([10.0, 0.5])).equal(expected)


def test_fold_by_hand():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    a, b = torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0], [0.5]])
    expected = torch.tensor([[21.0, -18.0], [8.0, -1.0]], dtype=torch.float64)
    assert fold(weight, a, b, 10.0).equal(expected)


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


# Settings of PEFT's LoraConfig: what chat fine-tunes train besides matrices of layers.
KINDS = {
    "dora": {"target_modules": ["q_proj", "up_proj"], "use_dora": True, "use_rslora": True},
    "embeddings": {"target_modules": ["embed_tokens", "lm_head", "down_proj"]},
    "dora of embeddings": {"target_modules": ["embed_tokens", "up_proj"], "use_dora": True},
    "modules to save": {
        "target_modules": "all-linear",
        "modules_to_save": ["lm_head", "embed_tokens", "norm"],
    },
    "biases of LoRA": {
        "target_modules": ["q_proj", "k_proj"],
        "lora_bias": True,
        "rank_pattern": {"k_proj": 2},
    },
    "all biases": {"target_modules": ["q_proj", "up_proj"], "bias": "all"},
    "biases of targets": {"target_modules": ["q_proj", "up_proj"], "bias": "lora_only"},
    "tokens": {"target_modules": ["v_proj"], "trainable_token_indices": [7, 3]},
    "tokens of tied embeddings": {"target_modules": ["v_proj"], "trainable_token_indices": [7, 3]},
    "tokens of two modules": {
        "target_modules": r".*\.1\..*(q|k)_proj",
        "trainable_token_indices": {"embed_tokens": [1, 3], "lm_head": [2]},
    },
    "head beside some layers": {
        "target_modules": ["q_proj", "lm_head"],
        "layers_to_transform": [1],
    },
    "layers": {
        "target_modules": ["q_proj", "up_proj"],
        "layers_to_transform": [1],
        "exclude_modules": ["up_proj"],
    },
}


def write_by_peft(folder, base, settings):
    """Write an adapter with PEFT, with random numbers in all its tensors; return them."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    get_peft_model(model, LoraConfig(r=4, lora_alpha=6, **settings)).save_pretrained(folder)
    weights = folder / "adapter_model.safetensors"
    drawn = torch.Generator().manual_seed(5)
    tensors = {
        name: torch.randn(tensor.shape, generator=drawn) for name, tensor in load_file(weights).items()
    }
    save_file(tensors, weights, metadata={"format": "pt"})
    return tensors


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`", "ignore:Adapter 'default'")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "dtype", sampled([torch.float32, torch.bfloat16], every=2), ids=["float32", "bfloat16"]
)
def test_all_that_an_adapter_changes_is_as_in_peft(tmp_path, kind, dtype):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tied = "tied" in kind
    base = tiny.write_model(
        tmp_path / "base", seed=1, model_type="qwen2", dtype=dtype, tie_word_embeddings=tied
    )
    write_by_peft(tmp_path / "adapter", base, KINDS[kind])
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml", {"base": {"folder": "base"}, "tuned": {"adapter": "adapter", "on": "base"}}
    )
    plan = tiny.build(recipe, tmp_path / "results")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload().state_dict()
    ours = AutoModelForCausalLM.from_pretrained(plan.layout.folder(plan.released), dtype=dtype).state_dict()
    assert ours.keys() == expected.keys()
    # PEFT rounds products, sums and norms to the dtype: some units in the last place of the largest number
    allowed = 8 * torch.finfo(dtype).eps
    for name, tensor in expected.items():
        difference = (ours[name].double() - tensor.double()).abs().max()
        assert difference <= allowed * tensor.double().abs().max(), name
    record = read_record(plan.layout.record(plan.released.parts[0]))
    changed = {name for name, entry in record["tensors"].items() if entry["action"] == "adapter"}
    differing = {name for name in expected if not expected[name].equal(before[name])}
    assert changed == differing - ({"lm_head.weight"} if tied else set())


def test_a_change_without_a_value_is_refused(tmp_path):
    # a row of zeros cannot get the norm that DoRA gives it
    base = tiny.write_model(tmp_path / "base", seed=1, dtype=torch.float32)
    tensors = write_by_peft(tmp_path / "adapter", base, KINDS["dora"])
    weights = tmp_path / "adapter/adapter_model.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, weights)
    zeros = {name: tensor * 0 for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(zeros, base / "model.safetensors", metadata={"format": "pt"})
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml", {"base": {"folder": "base"}, "tuned": {"adapter": "adapter", "on": "base"}}
    )
    with pytest.raises(
        CheckpointError, match=r"tensor model\.layers\.0\.mlp\.up_proj\.weight: the adapter makes values"
    ):
        tiny.build(recipe, tmp_path / "results")
