"""Families of mixtures, each against transformers' own class or, where it has none, a naive forward pass."""

import json

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from herdbook import plan as plans
from herdbook.errors import RecipeError
from support import tiny
from support.sampled import sampled

IDS = torch.arange(3, 43).reshape(1, -1)
LOADED = {"mixtral": "MixtralForCausalLM", "qwen2": "Qwen2MoeForCausalLM", "qwen3": "Qwen3MoeForCausalLM"}


def recipe_of(folder, experts, *, shared=None, **changes):
    moe = {"base": "base", "gate": "hidden", **changes}
    prompts = ["w1 w2", "w3", "w5 w4", "w9", "w8 w8"]
    moe["experts"] = [
        {"model": name, "prompts": [prompt]} for name, prompt in zip(experts, prompts, strict=False)
    ]
    if shared:
        moe["shared_experts"] = [{"model": shared, "prompts": ["w7 w6"]}]
    names = {"base", *experts, *([shared] if shared else [])}
    models = {name: {"folder": name} for name in sorted(names)}
    return tiny.write_recipe(folder / "r.yaml", {**models, "mix": {"moe": moe}})


def change(recipe, how):
    content = yaml.safe_load(recipe.read_text())
    how(content["models"]["mix"]["moe"])
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def tensors_of(plan):
    found = {}
    for part in plan.released.parts:
        with safe_open(plan.layout.shard(part), "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    return found


class Mixed(torch.nn.Module):
    """A mixture written out: every expert computed for every token, most of them times zero."""

    def __init__(self, experts, router, top, shared=None, shared_gate=None):
        super().__init__()
        self.experts, self.router, self.top = experts, router.float(), top
        self.shared, self.shared_gate = shared, shared_gate

    def forward(self, x):
        chance = (x @ self.router.T).softmax(dim=-1)
        best = chance.topk(self.top, dim=-1)
        weights = torch.zeros_like(chance).scatter(-1, best.indices, best.values)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        out = sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))
        if self.shared is not None:
            gate = torch.sigmoid(x @ self.shared_gate.float().T) if self.shared_gate is not None else 1
            out = out + gate * self.shared(x)
        return out


def naive(folder, plan, experts, shared=None, block="mlp"):
    """Return logits of the base in which each MLP is a mixture of the sources' own MLPs."""
    base, made = load(folder / "base"), tensors_of(plan)
    sources = {name: load(folder / name) for name in {*experts, *([shared] if shared else [])}}
    for number, layer in enumerate(base.model.layers):
        prefix = f"model.layers.{number}.{block}"
        layer.mlp = Mixed(
            [sources[name].model.layers[number].mlp for name in experts],
            made[f"{prefix}.gate.weight"],
            2,
            sources[shared].model.layers[number].mlp if shared else None,
            made.get(f"{prefix}.shared_expert_gate.weight"),
        )
    return logits(base)


CASES = [
    ("mixtral", "llama", None, {}),
    ("mixtral", "mistral", None, {"sliding_window": 16}),
    ("mixtral", "llama", None, {"tie_word_embeddings": True}),
    ("mixtral", "llama", None, {"head_dim": 16}),
    ("mixtral", "llama", None, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    ("mixtral", "llama", None, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
    ("qwen2", "qwen2", "other", {}),
    ("qwen2", "llama", "base", {}),
    ("qwen3", "qwen3", None, {"head_dim": 16}),
    ("qwen3", "qwen3", None, {"head_dim": 16, "attention_bias": True}),
    (
        "qwen3",
        "qwen3",
        None,
        {"head_dim": 16, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0},
    ),
]


@pytest.mark.parametrize(("family", "kind", "shared", "changes"), sampled(CASES, every=2))
@pytest.mark.parametrize("layout", ["canonical", "fused"])
def test_a_mixture_is_its_base_with_mixed_mlps(tmp_path, family, kind, shared, changes, layout):
    tiny.write_model(tmp_path / "base", seed=1, model_type=kind, **changes)
    tiny.write_model(tmp_path / "other", seed=2, model_type=kind, **changes)
    tiny.write_model(tmp_path / "third", seed=3, model_type=kind, **changes)
    experts = ["other", "base", "third"]
    recipe = recipe_of(tmp_path, experts, shared=shared, family=family, layout=layout)
    plan = tiny.build(recipe, tmp_path / "results")
    mixture = load(plan.layout.folder(plan.released))
    assert type(mixture).__name__ == LOADED[family]
    block = "block_sparse_moe" if family == "mixtral" and layout == "canonical" else "mlp"
    expected = naive(tmp_path, plan, experts, shared, block)
    torch.testing.assert_close(logits(mixture), expected, rtol=0, atol=2e-5)


WINDOW = {"use_sliding_window": True, "sliding_window": 16}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen3", {**WINDOW, "head_dim": 8, "max_window_layers": 1}),
        ("qwen3", {**WINDOW, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]}),
        ("qwen2", {**WINDOW, "max_window_layers": 0}),
    ],
)
def test_a_window_that_a_mixture_would_have_in_other_layers_is_left_out_and_told(tmp_path, kind, changes):
    tiny.write_model(tmp_path / "base", seed=1, model_type=kind, **changes)
    recipe = recipe_of(tmp_path, ["base", "base"], shared="base" if kind == "qwen2" else None)
    tiny.lock(recipe)
    plan = plans.load(recipe, tmp_path / "results")
    assert any(
        "a sliding window of 16 tokens, which the mixture does not keep" in one for one in plan.warnings
    )
    config = plan.released.config
    assert (config["use_sliding_window"], config["sliding_window"]) == (False, None)


@pytest.mark.parametrize("shared", [None, "other"])
def test_deepseek_names_no_code_of_others(tmp_path, shared):
    """transformers has no class for it but by code from the Hub; so it is read back by its tensors' names."""
    for seed, name in enumerate(("base", "other")):
        tiny.write_model(tmp_path / name, seed=seed, attention_bias=True)
    recipe = recipe_of(tmp_path, ["other", "base"], shared=shared, family="deepseek")
    plan = tiny.build(recipe, tmp_path / "results")
    config = json.loads((plan.layout.folder(plan.released) / "config.json").read_text())
    assert "auto_map" not in config
    assert config["architectures"] == ["DeepseekForCausalLM"]
    assert (config["n_routed_experts"], config["n_shared_experts"]) == (2, 1 if shared else None)
    assert config["attention_bias"] is True
    found, sources = tensors_of(plan), {}
    for name in ("base", "other"):
        with safe_open(tmp_path / name / "model.safetensors", "pt") as file:
            sources[name] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
    expected = {k: v for k, v in sources["base"].items() if ".mlp." not in k}
    for layer in range(2):
        for m in ("gate_proj", "up_proj", "down_proj"):
            prefix, old = f"model.layers.{layer}.mlp", f"model.layers.{layer}.mlp.{m}.weight"
            expected[f"{prefix}.experts.0.{m}.weight"] = sources["other"][old]
            expected[f"{prefix}.experts.1.{m}.weight"] = sources["base"][old]
            if shared:
                expected[f"{prefix}.shared_experts.{m}.weight"] = sources[shared][old]
    gates = {f"model.layers.{layer}.mlp.gate.weight" for layer in range(2)}
    assert set(found) == set(expected) | gates
    assert all(found[name].equal(tensor) for name, tensor in expected.items())


def test_the_first_family_that_fits_is_chosen(tmp_path):
    for kind, shared, expected in (
        ("llama", None, "mixtral"),
        ("llama", "base", "deepseek"),
        ("qwen2", "base", "qwen2_moe"),
        ("qwen3", None, "qwen3_moe"),
    ):
        folder = tmp_path / f"{kind}-{shared}"
        tiny.write_model(folder / "base", model_type=kind, head_dim=8)
        recipe = recipe_of(folder, ["base", "base"], shared=shared)
        tiny.lock(recipe)
        assert plans.load(recipe, folder / "results").released.config["model_type"] == expected


def test_noise_and_scale(tmp_path):
    """Noise depends on the seed and the tensor alone; a residual scale reaches the down projection alone."""
    tiny.write_model(tmp_path / "base", seed=1, hidden=64, intermediate=128)
    found = {}
    for layout in ("canonical", "fused"):
        recipe = recipe_of(tmp_path, ["base"] * 3, layout=layout)
        change(recipe, lambda moe: moe["experts"][0].update(noise_scale=0.25))
        change(recipe, lambda moe: moe["experts"][1].update(residual_scale=0.5))
        found[layout] = tensors_of(tiny.build(recipe, tmp_path / layout))
    with safe_open(tmp_path / "base/model.safetensors", "pt") as file:
        source = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
    made, fused = found["canonical"], found["fused"]
    draws = []
    for layer in range(2):
        for new, old in (("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")):
            matrix = source[f"model.layers.{layer}.mlp.{old}.weight"]
            experts = [
                made[f"model.layers.{layer}.block_sparse_moe.experts.{e}.{new}.weight"] for e in range(3)
            ]
            noise = (experts[0].float() - matrix.float()) / 0.25
            assert noise.std().item() == pytest.approx(1, abs=0.05)
            assert abs(noise.mean().item()) < 0.05
            draws.append(noise.flatten()[:100])
            scaled = (matrix.float() * 0.5).to(torch.bfloat16) if new == "w2" else matrix
            assert experts[1].equal(scaled)
            assert experts[2].equal(matrix)
            stacked = fused[
                f"model.layers.{layer}.mlp.experts.{'down_proj' if new == 'w2' else 'gate_up_proj'}"
            ]
            rows = {"w1": slice(0, 128), "w3": slice(128, 256), "w2": slice(0, 64)}[new]
            assert all(stacked[e, rows].equal(experts[e]) for e in range(3))
    assert torch.corrcoef(torch.stack(draws)).fill_diagonal_(0).abs().max() < 0.5


def test_tokenizer_of_a_named_source(tmp_path):
    tiny.write_model(tmp_path / "base", seed=1)
    tiny.write_model(tmp_path / "other", seed=2, eos_token_id=7)
    (tmp_path / "other" / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "other" / "generation_config.json").write_text('{"eos_token_id": 7}')
    recipe = recipe_of(tmp_path, ["base", "other"], tokenizer="other")
    plan = tiny.build(recipe, tmp_path / "results")
    folder = plan.layout.folder(plan.released)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == 7


def refused(tmp_path, other=None, base=None, **changes):
    tiny.write_model(tmp_path / "base", **(base or {}))
    tiny.write_model(tmp_path / "other", **{**(base or {}), **(other or {})})
    recipe = recipe_of(tmp_path, ["base", "other"], **changes)
    tiny.lock(recipe)
    with pytest.raises(RecipeError) as caught:
        plans.load(recipe, tmp_path / "results")
    return str(caught.value)


@pytest.mark.parametrize(
    ("other", "changes", "expected"),
    [
        (
            {"intermediate": 96},
            {},
            "mlp.down_proj.weight is of shape [32, 96], in the base of shape [32, 64]",
        ),
        (
            {"num_key_value_heads": 4},
            {},
            "self_attn.k_proj.weight is of shape [32, 32], in the base of shape [16, 32]",
        ),
        ({"layers": 3}, {}, "has 3 layers, the base 2"),
        ({"vocab": 2000}, {}, "a vocabulary of 2000, the base of 64"),
        ({"rope_theta": 1e6}, {}, "rotary embeddings of base 1e+06, not base 5000 as the base"),
        ({"tie_word_embeddings": True}, {}, "an output head that is tied to its embeddings"),
        ({"model_type": "mixtral"}, {}, "models.other: its config.json lacks 'num_local_experts'"),
        ({"num_local_experts": 4}, {}, "'other' is itself a Mixture of Experts"),
        ({"model_type": "qwen2"}, {}, "is of type 'qwen2', the base of 'llama'"),
        ({}, {"shared": "other"}, ""),
        ({}, {"family": "qwen3"}, "qwen3 needs a base of type qwen3; 'base' is of type 'llama'"),
        ({}, {"family": "qwen2"}, "qwen2 has 1 shared expert, 0 given"),
        ({}, {"family": "deepseek", "layout": "fused"}, "deepseek has no fused layout"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_plan(tmp_path, other, changes, expected):
    if not expected:
        changes = {**changes, "family": "mixtral"}
        expected = "mixtral has no shared experts, 1 given"
    assert expected in refused(tmp_path, other, **changes)


def test_norms_of_another_size(tmp_path):
    message = refused(
        tmp_path, {"head_dim": 16, "num_key_value_heads": 1}, {"model_type": "qwen3", "head_dim": 8}
    )
    assert "self_attn.k_norm.weight is of shape [16], in the base of shape [8]" in message


def test_biases_that_would_be_lost(tmp_path):
    message = refused(tmp_path, base={"attention_bias": True})
    assert (
        "has biases (model.layers.1.self_attn.k_proj.bias) that mixtral cannot represent; deepseek can."
        in message
    )


def test_a_shared_expert_with_a_gate_needs_prompts(tmp_path):
    tiny.write_model(tmp_path / "base", model_type="qwen2")
    recipe = recipe_of(tmp_path, ["base", "base"], shared="base")
    change(recipe, lambda moe: moe["shared_experts"][0].pop("prompts"))
    tiny.lock(recipe)
    with pytest.raises(
        RecipeError, match=r"shared_experts\.0\.prompts: the shared expert of qwen2 has a gate"
    ):
        plans.load(recipe, tmp_path / "results")


@pytest.mark.parametrize(
    ("changes", "section", "expected"),
    [
        (
            {"family": "deepseek"},
            {"quantize": {"methods": ["Q8_0"]}, "evaluate": {"tasks": ["t.yaml"], "models": ["base"]}},
            "quantize: transformers cannot load 'mix' to measure its files, since it has no class for family",
        ),
        ({"layout": "fused"}, {"quantize": {"methods": ["Q8_0"]}}, "does not read `layout: fused`"),
        (
            {"family": "deepseek"},
            {"evaluate": {"tasks": ["t.yaml"], "models": ["mix"]}},
            "evaluate.models.0: transformers cannot load 'mix', since it has no class",
        ),
    ],
)
def test_what_no_program_could_read_is_refused_before_it_is_built(tmp_path, changes, section, expected):
    (tmp_path / "t.yaml").write_text("task: t\ndataset_kwargs: {data_files: d.jsonl}\n")
    (tmp_path / "d.jsonl").write_text('{"text": "w1"}\n')
    tiny.write_model(tmp_path / "base")
    recipe = recipe_of(tmp_path, ["base", "base"], **changes)
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | section, sort_keys=False))
    tiny.lock(recipe)
    with pytest.raises(RecipeError) as caught:
        plans.load(recipe, tmp_path / "results")
    assert expected in str(caught.value)
