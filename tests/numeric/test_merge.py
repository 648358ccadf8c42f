"""Dense merges, against naive loops over single numbers, closed forms, and the real mergekit (in tests/integration)."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from herdbook.architectures.layers import Depths
from herdbook.errors import CheckpointError, RecipeError
from herdbook.inference.forward import CheckpointFolder
from herdbook.plan import load
from herdbook.plan.merge_values import value_at
from herdbook.plan.whole import check_nodes
from herdbook.recipe import Filtered, parse
from herdbook.steps.merge import methods
from herdbook.weights.record import read_record
from support import tiny


def draw(count, size=40, seed=0):
    return list(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)))


def naive_ties(base, models, weights, densities, scale, normalize):
    """TIES for one number after another, in Python's floats."""
    deltas = [[float(x) - float(b) for x, b in zip(model, base, strict=True)] for model in models]
    for delta, density in zip(deltas, densities, strict=True):
        keep = sorted(range(len(delta)), key=lambda i: -abs(delta[i]))[: round(density * len(delta))]
        delta[:] = [value if i in keep else 0.0 for i, value in enumerate(delta)]
    merged = []
    for i, b in enumerate(base):
        parts = [w * delta[i] for w, delta in zip(weights, deltas, strict=True)]
        positive = sum(parts) > 0
        agreeing = [(p, w) for p, w in zip(parts, weights, strict=True) if p and (p > 0) == positive]
        total = sum(p for p, _ in agreeing)
        if normalize and agreeing:
            total /= sum(w for _, w in agreeing)
        merged.append(float(b) + scale * total)
    return torch.tensor(merged)


def test_linear():
    a, b = draw(2)
    torch.testing.assert_close(methods.linear([a, b], [1, 3], normalize=True), 0.25 * a + 0.75 * b)
    torch.testing.assert_close(methods.linear([a, b], [1, 3], normalize=False), a + 3 * b)


def test_slerp_keeps_the_length_of_unit_vectors_and_halves_the_angle():
    a, b = (one / one.norm() for one in draw(2))
    angle = math.acos(float(a @ b))
    for t in (0.0, 0.25, 0.5, 1.0):
        found = methods.slerp(a, b, t)
        assert float(found.norm()) == pytest.approx(1, abs=1e-6)
        assert math.acos(min(1.0, float(a @ found))) == pytest.approx(t * angle, abs=1e-3)


def test_slerp_of_parallel_or_empty_tensors_is_the_line():
    a = draw(1)[0]
    torch.testing.assert_close(methods.slerp(a, 3 * a, 0.5), 2 * a)
    torch.testing.assert_close(methods.slerp(torch.zeros(4), torch.ones(4), 0.25), torch.full((4,), 0.25))


@pytest.mark.parametrize("normalize", [True, False])
def test_ties_is_the_naive_loop(normalize):
    base, *models = draw(4)
    weights, densities = [1.0, 0.5, 2.0], [0.5, 0.25, 1.0]
    found = methods.merge_tensors(
        "ties",
        [base, *models],
        "x",
        {"weights": weights, "densities": densities, "scale": 0.7},
        {"normalize": normalize},
    )
    torch.testing.assert_close(found, naive_ties(base, models, weights, densities, 0.7, normalize))


def test_task_arithmetic():
    base, a, b = draw(3)
    values = {"weights": [0.5, -1.0], "scale": 2.0}
    found = methods.merge_tensors("task_arithmetic", [base, a, b], "x", values, {"normalize": False})
    torch.testing.assert_close(found, base + 2 * (0.5 * (a - base) - (b - base)))


def test_model_stock_is_the_foot_of_the_perpendicular():
    # Fine-tunes of one length and mutual angle: the paper's figure. The result is then the point of the segment from the
    # base to the mean that is nearest to the true centre if noise is orthogonal: share N c / (1 + (N - 1) c).
    base = torch.zeros(4)
    common, noise = torch.tensor([2.0, 0, 0, 0]), torch.eye(4)[1:]
    models = [common + one for one in noise]
    cosine = 4 / 5
    share = 3 * cosine / (1 + 2 * cosine)
    torch.testing.assert_close(methods.model_stock(base, models), share * torch.stack(models).mean(0))
    opposed = [torch.tensor([1.0, 0, 0, 0]), torch.tensor([-1.0, 0, 0, 0])]
    assert methods.model_stock(base, opposed).equal(base)  # the share has no value


def test_dare_keeps_the_share_and_the_mean():
    delta = torch.ones(100_000)
    kept = methods.drop(delta, 0.3, "a", 1, rescale=True)
    assert float((kept != 0).float().mean()) == pytest.approx(0.3, abs=0.01)  # 7 standard deviations
    assert kept.unique().tolist() == [0.0, pytest.approx(1 / 0.3)]
    assert methods.drop(delta, 0.3, "a", 1, rescale=False).max() == 1
    assert methods.drop(delta, 0.3, "a", 1, rescale=True).equal(kept)
    assert not methods.drop(delta, 0.3, "b", 1, rescale=True).equal(kept)
    assert not methods.drop(delta, 0.3, "a", 2, rescale=True).equal(kept)


def test_values():
    assert value_at(0.3, "x", 0.7) == 0.3
    assert value_at([0, 1, 0], "x", 0.25) == pytest.approx(0.5)
    assert value_at([0, 1], "x", 1.0) == 1
    filters = [Filtered(filter="mlp", value=[1, 2]), Filtered(value=5)]
    assert value_at(filters, "model.layers.1.mlp.up_proj.weight", 0.5) == 1.5
    assert value_at(filters, "model.norm.weight", 0.5) == 5
    assert value_at(filters[:1], "model.norm.weight", 0.5) is None


@pytest.mark.parametrize(
    "layers", ["model.layers", "gpt_neox.layers", "transformer.h", "h", "bert.encoder.layer"]
)
def test_depth_in_layers_of_any_name(layers):
    inside = [f"{layers}.{number}.mlp.experts.{expert}.weight" for number in range(5) for expert in (0, 7)]
    depths = Depths(["embed.weight", *inside, "norm.weight"], {})
    assert [depths.of(name) for name in inside] == [number / 4 for number in range(5) for _ in (0, 7)]
    assert depths.of("embed.weight") == depths.of("norm.weight") == 0
    assert Depths([inside[0]], {}).of(inside[0]) == 1  # a layer that is alone


def test_depth_in_several_lists_of_layers_and_beyond_the_stated_ones():
    encoder, decoder = (
        [f"{part}.block.{n}.w" for n in range(count)] for part, count in (("encoder", 3), ("decoder", 2))
    )
    depths = Depths(encoder + decoder, {"num_layers": 3})
    assert [depths.of(name) for name in encoder + decoder] == [0, 0.5, 1, 0, 1]
    more = [f"model.layers.{number}.w" for number in range(4)]
    assert [Depths(more, {"n_layer": 3}).of(name) for name in more] == [0, 0.5, 1, 1]


HERD = {name: {"folder": name} for name in ("a", "b", "c")}
MERGES = {
    "linear": {"models": [{"model": "a"}, {"model": "b", "weight": [0, 1]}]},
    "slerp": {"base": "a", "other": "b", "t": [{"filter": "mlp", "value": [0, 1]}, {"value": 0.3}]},
    "task_arithmetic": {
        "base": "a",
        "models": [{"model": "b"}, {"model": "c", "weight": 0.5}],
        "lambda": 0.8,
    },
    "ties": {"base": "a", "models": [{"model": "b", "density": 0.5}, {"model": "c", "density": 0.7}]},
    "dare_linear": {"base": "a", "models": [{"model": "b", "density": 0.5}, {"model": "c"}]},
    "dare_ties": {"base": "a", "models": [{"model": "b", "density": 0.5}, {"model": "c"}], "seed": 3},
    "model_stock": {"base": "a", "models": ["b", "c"]},
}


def herd(tmp_path, **changes):
    for seed, name in enumerate(HERD):
        tiny.write_model(tmp_path / name, seed=seed, **({} if name == "a" else changes))


def made(tmp_path, method, settings, results="results", **sections):
    models = {**HERD, "merged": {"merge": {"method": method, **settings}}}
    recipe = tiny.write_recipe(tmp_path / "r.yaml", models, **sections)
    plan = tiny.build(recipe, tmp_path / results)
    return plan, CheckpointFolder(plan.layout.folder(plan.released))


@pytest.mark.parametrize("method", MERGES)
def test_a_merge_is_the_same_bytes_for_any_thread_count_and_cut(tmp_path, method, monkeypatch):
    herd(tmp_path)
    _, once = made(tmp_path, method, MERGES[method])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    torch.set_num_threads(2)
    plan, again = made(tmp_path, method, MERGES[method], "again", shard_size="10KB")
    assert len(plan.released.parts) > 1
    assert once.spans.keys() == again.spans.keys()
    for name in once.spans:
        assert once.stored(name).equal(again.stored(name)), name


def test_linear_by_layer(tmp_path):
    herd(tmp_path)
    _, found = made(tmp_path, "linear", MERGES["linear"])
    a, b = CheckpointFolder(tmp_path / "a"), CheckpointFolder(tmp_path / "b")
    for name in found.spans:  # weight of b: 1 in layer 1, 0 in layer 0 and outside the layers
        share = 0.5 if "layers.1" in name else 0
        assert found.stored(name).equal(((1 - share) * a[name] + share * b[name]).bfloat16()), name


OTHERS = {
    "gpt_neox": (
        "gpt_neox.layers",
        {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64},
    ),
    "gpt2": ("transformer.h", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "mamba": ("backbone.layers", {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 4}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_models_of_any_type_are_merged_and_lists_spread_over_their_layers(tmp_path, kind):
    from transformers import AutoModelForCausalLM

    layers, sizes = OTHERS[kind]
    for seed, name in enumerate("ab"):
        tiny.write_other_model(tmp_path / name, kind, seed=seed, **sizes)
    weighted = [{"model": "a"}, {"model": "b", "weight": [0, 1, 3]}]
    models = {
        "a": {"folder": "a"},
        "b": {"folder": "b"},
        "m": {"merge": {"method": "linear", "models": weighted}},
    }
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", models), tmp_path / "results")
    check_nodes(plan)
    folder = plan.layout.folder(plan.released)
    a, b, found = (CheckpointFolder(path) for path in (tmp_path / "a", tmp_path / "b", folder))
    for name in found.spans:
        share = next((s for number, s in enumerate((0, 1 / 2, 3 / 4)) if f"{layers}.{number}." in name), 0)
        torch.testing.assert_close(found[name], (1 - share) * a[name] + share * b[name])
    assert any(f"{layers}.2." in name for name in found.spans)
    AutoModelForCausalLM.from_pretrained(folder)


def test_masks_that_old_versions_stored_are_not_merged(tmp_path):
    layers, sizes = OTHERS["gpt_neox"]
    for seed, name in enumerate("ab"):
        path = tiny.write_other_model(tmp_path / name, "gpt_neox", seed=seed, **sizes) / "model.safetensors"
        tensors = load_file(path)
        for number in range(3):
            inside = f"{layers}.{number}.attention"
            tensors[f"{inside}.bias"] = torch.ones(1, 1, 8, 8).tril().bool()
            tensors[f"{inside}.masked_bias"] = torch.tensor(-1e9)
            tensors[f"{inside}.rotary_emb.inv_freq"] = torch.ones(4)
        save_file(tensors, path, metadata={"format": "pt"})
    entry = {"method": "linear", "models": [{"model": "a"}, {"model": "b"}], "dtype": "float16"}
    models = {"a": {"folder": "a"}, "b": {"folder": "b"}, "m": {"merge": entry}}
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", models), tmp_path / "results")
    check_nodes(plan)
    found = CheckpointFolder(plan.layout.folder(plan.released))
    assert not [name for name in found.spans if name.endswith((".attention.bias", "masked_bias", "inv_freq"))]


def test_the_record_says_what_each_tensor_was_computed_with(tmp_path):
    herd(tmp_path)
    plan, _ = made(tmp_path, "slerp", MERGES["slerp"])
    entries = read_record(plan.layout.record(plan.released.parts[0]))["tensors"]
    assert entries["model.layers.1.mlp.up_proj.weight"]["t"] == 1
    assert entries["model.layers.1.self_attn.q_proj.weight"]["t"] == 0.3
    assert len(entries["model.norm.weight"]["from"]) == 2


def test_passthrough_stacks_layers(tmp_path):
    from transformers import AutoModelForCausalLM

    herd(tmp_path)
    slices = [
        {"model": "a", "layers": "0-1"},
        {"model": "b", "layers": "1-1", "scale": [{"filter": "down_proj", "value": 0.5}]},
        {"model": "c", "layers": "0-1"},
    ]
    plan, found = made(tmp_path, "passthrough", {"slices": slices})
    a, b, c = (CheckpointFolder(tmp_path / name) for name in "abc")
    down = "mlp.down_proj.weight"
    assert found[f"model.layers.2.{down}"].equal(b[f"model.layers.1.{down}"] / 2)
    assert found["model.layers.2.mlp.up_proj.weight"].equal(b["model.layers.1.mlp.up_proj.weight"])
    assert found[f"model.layers.4.{down}"].equal(c[f"model.layers.1.{down}"])
    assert found["model.embed_tokens.weight"].equal(a["model.embed_tokens.weight"])
    assert found["lm_head.weight"].equal(c["lm_head.weight"])
    copied = [t for part in plan.released.parts for t in part.tensors if t.action == "copy"]
    assert len(copied) == len(found.spans) - 1  # all but the scaled one
    model = AutoModelForCausalLM.from_pretrained(plan.layout.folder(plan.released))
    assert len(model.model.layers) == 5


@pytest.mark.parametrize("lists", ["ab", "a", "b", ""])
def test_stacked_layers_keep_the_settings_that_are_listed_for_each(tmp_path, lists):
    full = {"layer_types": ["full_attention"] * 2}
    for seed, name in enumerate("ab"):
        tiny.write_model(tmp_path / name, seed=seed, model_type="qwen2", **full if name in lists else {})
    slices = [{"model": "a", "layers": "0-1"}, {"model": "b", "layers": "1-1"}]
    models = {
        **{name: {"folder": name} for name in "ab"},
        "made": {"merge": {"method": "passthrough", "slices": slices}},
    }
    path = tiny.write_recipe(tmp_path / "r.yaml", models)
    tiny.lock(path)
    plan = load(path)
    listed = plan.released.config.get("layer_types")
    assert listed == (["full_attention"] * 3 if lists == "ab" else None)


def test_a_merge_can_be_an_expert(tmp_path):
    herd(tmp_path)
    experts = [{"model": "merged", "prompts": ["w1"]}, {"model": "c", "prompts": ["w2"]}]
    models = {
        **HERD,
        "merged": {"merge": {"method": "slerp", "base": "a", "other": "b"}},
        "herd": {"moe": {"base": "a", "experts": experts}},
    }
    recipe = tiny.write_recipe(tmp_path / "r.yaml", models)
    plan = tiny.build(recipe, tmp_path / "results")
    found, merged = (CheckpointFolder(plan.layout.folder(plan.nodes[name])) for name in ("herd", "merged"))
    assert found["model.layers.0.block_sparse_moe.experts.0.w1.weight"].equal(
        merged["model.layers.0.mlp.gate_proj.weight"]
    )


def test_dtype_and_configuration(tmp_path):
    herd(tmp_path)
    plan, found = made(tmp_path, "linear", {**MERGES["linear"], "dtype": "float32"})
    assert {span.dtype for _, span in found.spans.values()} == {"F32"}
    config = json.loads((plan.layout.folder(plan.released) / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "float32"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab": 70}, "their vocabularies differ"),
        ({"intermediate": 96}, "mlp.down_proj.weight is [32, 96] in 'b'"),
        ({"layers": 3}, "more tensors differ"),
        ({"rope_theta": 10000.0}, "rotary"),
        ({"tie_word_embeddings": True}, "the other ties it"),
        ({"model_type": "qwen2"}, "of type 'qwen2'"),
    ],
)
def test_models_that_do_not_fit_are_refused(tmp_path, changes, said):
    herd(tmp_path, **changes)
    with pytest.raises(RecipeError) as error:
        made(tmp_path, "linear", {"models": [{"model": "a"}, {"model": "b"}]})
    assert said in str(error.value)


def test_what_overflows_is_named(tmp_path):
    herd(tmp_path)
    with pytest.raises(CheckpointError, match="tensor lm_head.weight: the merge has values that F16"):
        settings = {"models": [{"model": "a", "weight": 1e9}], "normalize": False, "dtype": "float16"}
        made(tmp_path, "linear", settings)


@pytest.mark.parametrize(
    ("merge", "said"),
    [
        ("{method: linear, models: [{model: a, density: 0.5}]}", "density: unknown key"),
        ("{method: ties, base: a, models: [{model: b, density: 0}]}", "density: 0 is not above 0"),
        ("{method: slerp, base: a, other: b, t: 1.5}", "t: 1.5 is not between 0 and 1"),
        ("{method: passthrough, slices: [{model: a, layers: 3-1}]}", "the range 3-1 is empty"),
        ("{method: tise, base: a, models: []}", "merge"),
        ("{method: linear, models: [{model: z}]}", "no model is named 'z'"),
        ("{method: linear, models: [{model: a, weight: .nan}]}", "weight"),
        ("{method: ties, base: a, models: [{model: b, densty: 1}]}", "did you mean 'density'"),
        ("{method: task_arithmetic, base: a, models: [{model: b}], lamda: 1}", "did you mean 'lambda'"),
        ("{method: linear, models: [{model: a}], normalise: true}", "did you mean 'normalize'"),
    ],
)
def test_recipes_that_are_wrong(merge, said):
    text = f"""
models:
  a: {{folder: a}}
  b: {{folder: b}}
  m: {{merge: {merge}}}
release: {{model: m, name: M, license: mit}}
"""
    with pytest.raises(RecipeError, match=said) as error:
        parse(text)
    print(error.value)


def test_a_layer_that_does_not_exist(tmp_path):
    herd(tmp_path)
    with pytest.raises(RecipeError, match="layer 2 does not exist in 'b'; the last is 1"):
        made(tmp_path, "passthrough", {"slices": [{"model": "b", "layers": "0-2"}]})
