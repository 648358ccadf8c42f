"""Mixtures of Experts: routers against transformers' own hidden states, logits against a closed form."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from herdbook import plan as plans
from herdbook.errors import RecipeError, StepError
from herdbook.inference.forward import CheckpointFolder
from herdbook.steps.moe import states
from herdbook.steps.moe.random_gate import as_bytes, random_rows
from herdbook.steps.moe.router import router_rows
from herdbook.weights.record import read_record
from herdbook.weights.tensors import DTYPES, to_bytes
from support import tiny

PROMPTS = [(["w1 w2 w3", "w4"], []), (["w9 w8"], ["w7 w1"])]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("models") / "base", seed=1, layers=3, shards=2)


def unit(vector):
    return vector / vector.norm()


def ids_of(base, prompt):
    tokenizer = AutoTokenizer.from_pretrained(base)
    return torch.tensor([[1, *(tokenizer.convert_tokens_to_ids(word) for word in prompt.split())]])


def expected_rows(base, pick, layer):
    """Return a layer's rows the long way: the whole model, all hidden states, one prompt at a time."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    rows = []
    for positive, negative in PROMPTS:
        sides = []
        for prompts in (positive, negative):
            with torch.no_grad():
                states = [
                    model(ids_of(base, prompt), output_hidden_states=True).hidden_states[layer][0]
                    for prompt in prompts
                ]
            sides.append(sum(pick(state) for state in states) / max(1, len(states)))
        rows.append(unit(sides[0] - sides[1]))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("gate", "pick"), [("hidden", lambda state: state[-1]), ("hidden_avg", lambda state: state.mean(dim=0))]
)
def test_routers_are_made_of_what_enters_each_layer(base, gate, pick):
    rows = list(router_rows(gate, base, PROMPTS, 3))
    assert len(rows) == 3
    for layer, found in enumerate(rows):
        torch.testing.assert_close(found, expected_rows(base, pick, layer), rtol=0, atol=2e-6)


@pytest.mark.parametrize("gate", ["hidden", "router_input_avg", "ridge"])
def test_states_that_are_kept_give_the_same_bits_and_only_new_prompts_are_read(
    base, gate, tmp_path, monkeypatch
):
    def rows(prompts, kept=tmp_path / "states"):
        return list(router_rows(gate, base, prompts, 3, kept=kept))

    read = []
    for name in ("hidden_states", "mlp_inputs"):
        own = getattr(states, name)
        monkeypatch.setattr(
            states, name, lambda folder, ids, own=own: read.append(len(ids)) or own(folder, ids)
        )
    expected = rows(PROMPTS, None)
    number = read.pop()
    assert all(map(torch.equal, rows(PROMPTS), expected))
    assert read == [number]
    assert all(map(torch.equal, rows(PROMPTS), expected))
    assert read == [number]
    other = [(["w5 w6", *PROMPTS[0][0]], PROMPTS[0][1]), *PROMPTS[1:]]
    assert all(map(torch.equal, rows(other), rows(other, None)))
    assert read == [number, 1, number + 1]
    for path in (tmp_path / "states").glob("*.states"):
        path.write_bytes(path.read_bytes()[:-100] + bytes(100))  # as after a power cut
    assert all(map(torch.equal, rows(other), rows(other, None)))
    assert read[3:] == [number + 1, number + 1]


def test_cheap_embed_is_the_tokens_sum(base):
    rows = list(router_rows("cheap_embed", base, PROMPTS, 3))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    table = model.get_input_embeddings().weight.detach()
    sums = [
        sum(table[i] for prompt in side for i in ids_of(base, prompt)[0])
        for both in PROMPTS
        for side in both
        if side
    ]
    expected = torch.stack([unit(sums[0]), unit(unit(sums[1]) - unit(sums[2]))])
    for found in rows:
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_drawn_rows_depend_on_seed_and_name_only():
    def draw(gate="random", name="a", seed=0, hidden=1000):
        return torch.from_numpy(random_rows(gate, name, (4, hidden), seed))

    first = draw()
    assert first.equal(draw())
    assert not first.equal(draw(name="b"))
    assert not first.equal(draw(seed=1))
    assert abs(first.mean()) < 0.1  # six standard errors
    assert abs(first.std() - 1) < 0.07
    uniform = draw("uniform_random", hidden=10000)
    assert uniform.abs().max() <= 0.01
    assert abs(uniform.std() - 0.01 / 3**0.5) < 1e-4


def test_drawn_rows_are_rounded_as_torch_rounds_them():
    rows = random_rows("random", "a", (4, 1000), 0)
    rows[0, :4] = [0.0, -0.0, 1.00390625, 1.01171875]  # the last two lie between two numbers of bfloat16
    for code, dtype in DTYPES.items():
        if code != "F64":
            assert as_bytes(rows, code) == to_bytes(torch.from_numpy(rows).to(dtype))


@pytest.mark.parametrize(
    ("prompt", "expected"), [("w1 " * 200, "prompt 1 has 201 tokens; the base model reads at most 128")]
)
def test_prompts_that_cannot_be_read(base, prompt, expected):
    with pytest.raises(StepError, match=expected):
        list(router_rows("hidden", base, [([prompt], []), (["w1"], [])], 3))


def recipe_of(folder, experts, **changes):
    models = {
        "base": {"folder": "base"},
        "other": {"folder": "other"},
        "mix": {"moe": {"base": "base", **changes}},
    }
    prompts = ["w1 w2", "w3", "w5 w4", "w9"]
    models["mix"]["moe"]["experts"] = [
        {"model": name, "prompts": [prompt]} for name, prompt in zip(experts, prompts, strict=False)
    ]
    return tiny.write_recipe(folder / "r.yaml", models)


@pytest.mark.parametrize("prompts", [["", ""], ["w1", "w1"]])
def test_equal_prompts_are_refused_and_a_warning_with_mergekit_s_semantics(tmp_path, prompts):
    for seed, name in enumerate(("base", "other")):
        tiny.write_model(tmp_path / name, seed=seed)
    models = {name: {"folder": name} for name in ("base", "other")}
    experts = [{"model": name, "prompts": [prompt]} for name, prompt in zip(models, prompts, strict=True)]
    entry = {"base": "base", "gate": "hidden", "experts": experts}
    recipe = tiny.write_recipe(tmp_path / "r.yaml", {**models, "mix": {"moe": entry}})
    tiny.lock(recipe)
    with pytest.raises(RecipeError, match=r"all have the same prompts.*set `semantics: mergekit-0.1.5`"):
        plans.load(recipe, tmp_path / "results")
    theirs = {**entry, "semantics": "mergekit-0.1.5"}
    plan = tiny.build(
        tiny.write_recipe(tmp_path / "r.yaml", {**models, "mix": {"moe": theirs}}), tmp_path / "results"
    )
    assert any("all have the same prompts" in line for line in plan.warnings)
    one, other = CheckpointFolder(plan.layout.folder(plan.released))[
        "model.layers.0.block_sparse_moe.gate.weight"
    ]
    assert one.equal(other)


@pytest.mark.parametrize("model_type", ["llama", "mistral"])
@pytest.mark.parametrize("gate", ["hidden", "random"])
def test_experts_that_are_all_the_base_give_the_base(tmp_path, gate, model_type):
    """The chosen experts' weights sum to one, so a mixture of equals is the base whatever its router says."""
    tiny.write_model(tmp_path / "base", seed=1, shards=3, model_type=model_type)
    tiny.write_model(tmp_path / "other", seed=2, model_type=model_type)
    plan = tiny.build(recipe_of(tmp_path, ["base"] * 4, gate=gate), tmp_path / "results")
    ids = torch.arange(3, 40).reshape(1, -1)
    mixture = AutoModelForCausalLM.from_pretrained(plan.layout.folder(plan.released), dtype=torch.float32)
    assert type(mixture).__name__ == "MixtralForCausalLM"
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(mixture(ids).logits, base(ids).logits, rtol=0, atol=1e-5)


def test_each_expert_is_reached_where_it_belongs(tmp_path):
    """One expert a token, and always the same: the mixture is then the base with that expert's MLPs."""
    tiny.write_model(tmp_path / "base", seed=1)
    tiny.write_model(tmp_path / "other", seed=2)
    plan = tiny.build(recipe_of(tmp_path, ["base", "other"], experts_per_token=1), tmp_path / "results")
    mixture = AutoModelForCausalLM.from_pretrained(plan.layout.folder(plan.released), dtype=torch.float32)
    expert = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    donor = AutoModelForCausalLM.from_pretrained(tmp_path / "other", dtype=torch.float32).state_dict()
    expert.load_state_dict({name: tensor for name, tensor in donor.items() if ".mlp." in name}, strict=False)
    ids = torch.arange(3, 30).reshape(1, -1)
    for layer in mixture.model.layers:
        layer.mlp.gate.forward = _always(1, layer.mlp.gate.forward)
    with torch.no_grad():
        torch.testing.assert_close(mixture(ids).logits, expert(ids).logits, rtol=0, atol=1e-5)


def _always(place, forward):
    """Return a router that scores all tokens as its own does, but always chooses one expert with weight one."""

    def choose(hidden):
        logits, weights, indices = forward(hidden)
        return logits, torch.ones_like(weights), torch.full_like(indices, place)

    return choose


def test_shards_are_cut_by_parent_and_prove_their_copies(tmp_path):
    tiny.write_model(tmp_path / "base", seed=1, shards=3)
    tiny.write_model(tmp_path / "other", seed=2)
    plan = tiny.build(recipe_of(tmp_path, ["other", "base", "other"]), tmp_path / "results")
    node = plan.released
    assert [part.label for part in node.parts] == ["base-1", "expert1-1", "expert2-1", "expert3-1", "routers"]
    sources = {}
    for folder in ("base", "other"):
        for path in sorted((tmp_path / folder).glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                sources |= {(folder, name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    matrices = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    seen = set()
    for part in node.parts[:-1]:
        with safe_open(plan.layout.shard(part), "pt") as file:
            record = read_record(plan.layout.record(part))["tensors"]
            for name in file.keys():  # noqa: SIM118 - no dict
                if ".experts." in name:
                    layer, expert, matrix = name.split(".")[2], int(name.split(".")[5]), name.split(".")[6]
                    origin = (
                        ["other", "base", "other"][expert],
                        f"model.layers.{layer}.mlp.{matrices[matrix]}.weight",
                    )
                else:
                    origin = "base", name
                assert file.get_tensor(name).equal(sources[origin])
                assert record[name]["action"] == "copy"
                (cited,) = record[name]["from"]
                assert (plan.parts[cited["key"]].model, cited["tensor"]) == origin
                seen.add(name)
    gates = {f"model.layers.{layer}.block_sparse_moe.gate.weight" for layer in range(2)}
    index = json.loads((plan.layout.folder(node) / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == seen | gates


def test_experts_of_another_dtype_are_cast(tmp_path):
    tiny.write_model(tmp_path / "base", seed=1)
    tiny.write_model(tmp_path / "other", seed=2, dtype=torch.float32)
    plan = tiny.build(recipe_of(tmp_path, ["base", "other"]), tmp_path / "results")
    part = next(part for part in plan.released.parts if part.label == "expert2-1")
    name = "model.layers.1.block_sparse_moe.experts.1.w3.weight"
    with (
        safe_open(plan.layout.shard(part), "pt") as file,
        safe_open(tmp_path / "other/model.safetensors", "pt") as source,
    ):
        expected = source.get_tensor("model.layers.1.mlp.up_proj.weight").to(torch.bfloat16)
        assert file.get_tensor(name).equal(expected)
    assert read_record(plan.layout.record(part))["tensors"][name]["action"] == "cast"


def test_configuration_is_read_alike_by_both_lines_of_transformers(tmp_path):
    tiny.write_model(tmp_path / "base", seed=1)
    tiny.write_model(tmp_path / "other", seed=2)
    plan = tiny.build(recipe_of(tmp_path, ["base", "other"]), tmp_path / "results")
    config = json.loads((plan.layout.folder(plan.released) / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5000.0
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert (config["num_local_experts"], config["num_experts_per_tok"]) == (2, 2)


def seen_by_mlps(base, prompt):
    """Return what each layer's MLP sees of a prompt, by hooks on the whole model."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    seen = []
    for layer in model.model.layers:
        layer.post_attention_layernorm.register_forward_hook(lambda *args: seen.append(args[2][0]))
    with torch.no_grad():
        model(ids_of(base, prompt))
    return seen


@pytest.mark.parametrize("gate", ["router_input", "router_input_avg", "centred"])
def test_routers_are_made_of_what_they_will_see(base, gate):
    pick = (lambda one: one[-1]) if gate == "router_input" else (lambda one: one.mean(dim=0))
    for layer, found in enumerate(router_rows(gate, base, PROMPTS, 3)):
        sides = [
            [sum(pick(seen_by_mlps(base, p)[layer]) for p in side) / len(side) for side in both if side]
            for both in PROMPTS
        ]
        rows = torch.stack([side[0] - side[1] if len(side) > 1 else side[0] for side in sides])
        if gate == "centred":
            rows = rows - rows.mean(dim=0)
        torch.testing.assert_close(
            found, torch.nn.functional.normalize(rows, dim=1), rtol=0, atol=5e-6, msg=str(layer)
        )


def test_a_fitted_router_leaves_out_prompts_as_fitting_again_does():
    """The closed form of leaving a prompt out, and the fit itself, against plain least squares."""
    import numpy as np

    from herdbook.steps.moe import ridge as module

    draw = np.random.default_rng(0)
    inputs = [draw.normal(size=(n, 6)) + 2 * (n % 2) for n in (3, 4, 5, 2)]
    x, groups = np.concatenate(inputs), np.repeat(range(4), [3, 4, 5, 2])
    y = draw.normal(size=(14, 2))
    values, vectors = np.linalg.eigh(x @ x.T)
    values = np.maximum(values, 0)
    found = module._held_out(values, vectors, y, groups, 0.7)
    for group in range(4):
        kept = groups != group
        weights = np.linalg.solve(x[kept].T @ x[kept] + 0.7 * np.eye(6), x[kept].T @ y[kept])
        np.testing.assert_allclose(found[~kept], x[~kept] @ weights, atol=1e-10)
    # Prompts that differ are told apart.
    apart = np.array([4.0, 0, 0, 0, 0, 0])
    router = module.ridge_router([one + apart for one in inputs[:2]] + inputs[2:], [0, 0, 1, 1], [1] * 4, 2)
    assert router.shape == (2, 6)
    right = [(one + apart) @ router.T for one in inputs[:2]] + [-(one @ router.T) for one in inputs[2:]]
    assert np.mean([(scores[:, 0] > scores[:, 1]).mean() for scores in right]) > 0.7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_a_source_is_named(tmp_path, dtype, value):
    from safetensors.torch import load_file, save_file

    from herdbook.errors import CheckpointError

    tiny.write_model(tmp_path / "base", seed=1, dtype=dtype)
    tiny.write_model(tmp_path / "other", seed=2, dtype=dtype)
    path = tmp_path / "base/model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(tensors, path)
    with pytest.raises(
        CheckpointError, match=r"tensor model\.layers\.1\.mlp\.up_proj\.weight contains NaN or inf"
    ):
        tiny.build(recipe_of(tmp_path, ["base", "base"]), tmp_path / "results")
    assert not list((tmp_path / "results").rglob("*.safetensors"))
