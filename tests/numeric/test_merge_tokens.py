"""Merges and mixtures of models with other tokens: rows of embeddings and heads in closed form, and the tokenizers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.errors import LockError, RecipeError
from herdbook.inference.forward import CheckpointFolder
from support import tiny
from support.inputs.tokens import add

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Beyond the 64 tokens that all have: of `b`, and of `c`.
START, END, PAD, TOOL = "<|im_start|>", "<|im_end|>", "<pad>", "<tool>"
MORE = {"a": [], "b": [START, END], "c": [PAD, END, TOOL]}
HERD = {name: {"folder": name} for name in MORE}
LINEAR = {
    "method": "linear",
    "models": [{"model": "a", "weight": 1}, {"model": "b", "weight": 1}, {"model": "c", "weight": 2}],
}


def write(folder, seed, tokens, **settings):
    tiny.write_model(folder, seed=seed, vocab=64 + len(tokens), **settings)
    tiny.write_tokenizer(folder, 64, settings.get("model_type", "llama"))
    for number, token in enumerate(tokens, start=64):
        add(folder, token, number)


@pytest.fixture(scope="module")
def herd(tmp_path_factory):
    root = tmp_path_factory.mktemp("herd")
    for seed, (name, tokens) in enumerate(MORE.items()):
        write(root / name, seed, tokens)
    return root


class Made:
    """A built model, and the models that it is made from."""

    def __init__(self, herd, results, entry, models=None):
        recipe = tiny.write_recipe(herd / f"{results.name}.yaml", {**HERD, **(models or {}), "made": entry})
        self.plan = tiny.build(recipe, results)
        self.folder = self.plan.layout.folder(self.plan.released)
        self.weights = CheckpointFolder(self.folder)
        self.sources = {name: CheckpointFolder(herd / name) for name in MORE}
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))

    def row(self, token, tensor=EMBEDDINGS):
        return self.weights[tensor][self.tokenizer.convert_tokens_to_ids(token)]

    def source(self, name, token, tensor=EMBEDDINGS):
        number = 64 + MORE[name].index(token) if token in MORE[name] else self.tokenizer.get_vocab()[token]
        return self.sources[name][tensor][number]


def test_union_has_the_tokens_of_all_models_and_means_of_those_that_have_one(herd, tmp_path):
    made = Made(herd, tmp_path, {"merge": {**LINEAR, "dtype": "float32", "tokenizer": {"source": "union"}}})
    tokens = [START, END, PAD, TOOL]
    assert [made.tokenizer.convert_tokens_to_ids(token) for token in tokens] == [64, 65, 66, 67]
    assert made.config["vocab_size"] == len(made.tokenizer) == 68 == len(made.weights[EMBEDDINGS])
    for tensor in (EMBEDDINGS, HEAD):
        a, b, c = (made.source(name, "w5", tensor) for name in "abc")
        assert torch.allclose(made.row("w5", tensor), (a + b + 2 * c) / 4, atol=1e-7)
        assert torch.allclose(made.row(START, tensor), made.source("b", START, tensor), atol=1e-7)
        assert torch.allclose(made.row(PAD, tensor), made.source("c", PAD, tensor), atol=1e-7)
        b, c = (made.source(name, END, tensor) for name in "bc")  # `a` gets their mean
        assert torch.allclose(made.row(END, tensor), ((b + c) / 2 + b + 2 * c) / 4, atol=1e-7)
    assert made.tokenizer.tokenize(f"w1{START}w2{TOOL}") == ["w1", START, "w2", TOOL]
    assert {START, TOOL} <= set(made.tokenizer.added_tokens_encoder)


def test_a_base_gives_its_rows_to_models_that_lack_them(herd, tmp_path):
    merge = {
        "method": "task_arithmetic",
        "base": "b",
        "models": [{"model": "a"}, {"model": "c"}],
        "dtype": "float32",
        "tokenizer": {"source": "base", "pad_to_multiple_of": 32},
    }
    made = Made(herd, tmp_path, {"merge": merge})
    assert set(made.tokenizer.get_vocab()) & set(MORE["c"]) == {END}
    assert len(made.tokenizer) == 66
    assert made.config["vocab_size"] == len(made.weights[HEAD]) == 96
    assert torch.allclose(made.row(START), made.source("b", START), atol=1e-6)
    # `a` has the base's row, so that its task vector is zero
    assert torch.allclose(made.row(END), made.source("c", END), atol=1e-6)
    mean = made.sources["b"][EMBEDDINGS].mean(0)
    rows = {name: made.sources[name][EMBEDDINGS] for name in "abc"}
    lacking = torch.stack([rows["b"][64], rows["c"][65]])
    of_c = torch.cat([rows["c"][:64], lacking]).mean(0)
    of_a = torch.cat([rows["a"], rows["b"][64:]]).mean(0)
    expected = mean + (of_a - mean) + (of_c - mean)
    assert torch.allclose(made.weights[EMBEDDINGS][66:], expected.expand(30, -1), atol=1e-6)


def test_the_vocabulary_of_a_model_and_its_special_tokens(tmp_path):
    herd = tmp_path / "herd"
    write(herd / "a", 0, [], pad_token_id=3)
    write(herd / "b", 1, MORE["b"], bos_token_id=64, eos_token_id=[65])
    write(herd / "c", 2, MORE["c"])
    models = [{"model": "a"}, {"model": "b"}]
    merge = {"method": "linear", "models": models, "dtype": "float32", "tokenizer": {"source": "b"}}
    made = Made(herd, tmp_path / "results", {"merge": merge})
    assert (made.folder / "tokenizer.json").read_bytes() == (herd / "b/tokenizer.json").read_bytes()
    assert made.config["vocab_size"] == 66
    special = {key: value for key, value in made.config.items() if key.endswith("_token_id")}
    assert special == {"bos_token_id": 64, "eos_token_id": [65]}
    assert torch.allclose(made.row(START), made.source("b", START), atol=1e-7)


CHOSEN = {
    START: {"source": {"kind": "model_token", "model": "a", "token": "</s>"}, "force": True},
    END: {"source": "c"},
    TOOL: {"source": {"kind": "zero"}},
    "<new>": {"source": {"kind": "model_token", "model": "b", "token_id": 5}},
}


def test_chosen_rows(herd, tmp_path):
    tokenizer = {"source": "union", "tokens": CHOSEN}
    made = Made(herd, tmp_path, {"merge": {**LINEAR, "dtype": "float32", "tokenizer": tokenizer}})
    assert torch.allclose(made.row(START), made.sources["a"][EMBEDDINGS][2], atol=1e-7)
    b, c = (made.source(name, END) for name in "bc")
    assert torch.allclose(made.row(END), (c + b + 2 * c) / 4, atol=1e-7)
    assert torch.allclose(made.row(TOOL), 2 * made.source("c", TOOL) / 4, atol=1e-7)
    assert torch.allclose(made.row("<new>"), made.sources["b"][EMBEDDINGS][5], atol=1e-7)
    assert made.tokenizer.convert_tokens_to_ids("<new>") == 68


# By their types: what transformers calls their embeddings and heads.
OTHERS = {
    "gpt2": (
        {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 16},
        ["transformer.wte.weight"],
    ),
    "gpt_neox": (
        {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64},
        ["gpt_neox.embed_in.weight", "embed_out.weight"],
    ),
    "phi": (
        {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64},
        ["model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"],
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_embeddings_and_heads_of_other_names(tmp_path, kind):
    sizes, names = OTHERS[kind]
    for seed, name in enumerate("ab"):
        tokens = MORE[name]
        folder = tiny.write_other_model(
            tmp_path / name, kind, seed=seed, **sizes, vocab_size=64 + len(tokens)
        )
        for number, token in enumerate(tokens, start=64):
            add(folder, token, number)
    entry = {
        "method": "linear",
        "models": [{"model": "a", "weight": 1}, {"model": "b", "weight": 3}],
        "tokenizer": {"source": "union"},
    }
    models = {name: {"folder": name} for name in "ab"}
    recipe = tiny.write_recipe(tmp_path / "r.yaml", {**models, "made": {"merge": entry}})
    plan = tiny.build(recipe, tmp_path / "results")
    folder = plan.layout.folder(plan.released)
    a, b, made = map(CheckpointFolder, (tmp_path / "a", tmp_path / "b", folder))
    for name in names:
        assert torch.allclose(made[name][:64], (a[name] + 3 * b[name][:64]) / 4, atol=1e-6), name
        assert torch.allclose(made[name][64:], b[name][64:], atol=1e-6), name
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert len(model.get_input_embeddings().weight) == 66


@pytest.mark.parametrize("semantics", ["native-1", "mergekit-0.1.5"])
def test_rows_that_not_all_models_have_are_cropped(tmp_path, semantics):
    for seed, name in enumerate("abc"):
        write(tmp_path / name, seed, [])
    tiny.write_model(tmp_path / "b", seed=1, vocab=70)
    tiny.write_tokenizer(tmp_path / "b", 64)
    entry = {
        "method": "ties",
        "base": "a",
        "models": [{"model": "b", "density": 0.5}, {"model": "c"}],
        "dtype": "float32",
        "semantics": semantics,
    }
    made = Made(tmp_path, tmp_path / "made", {"merge": {**entry, "vocabulary": "crop"}})
    assert any("the last 6 rows of the embeddings of 'b' are left out" in line for line in made.plan.warnings)
    # the same merge with a model that never had these rows
    path = tmp_path / "b/model.safetensors"
    tensors = load_file(path)
    save_file(
        {name: tensor[:64].clone() if len(tensor) == 70 else tensor for name, tensor in tensors.items()}, path
    )
    config = json.loads((tmp_path / "b/config.json").read_text(encoding="utf-8"))
    (tmp_path / "b/config.json").write_text(json.dumps({**config, "vocab_size": 64}), encoding="utf-8")
    expected = Made(tmp_path, tmp_path / "expected", {"merge": entry})
    assert made.config == expected.config
    for name in expected.weights.spans:
        assert made.weights.stored(name).equal(expected.weights.stored(name)), name


def test_stacked_layers_take_rows_of_one_model(herd, tmp_path):
    slices = [{"model": "a", "layers": "0-0"}, {"model": "c", "layers": "1-1"}]
    merge = {
        "method": "passthrough",
        "slices": slices,
        "tokenizer": {"source": "union", "pad_to_multiple_of": 8},
    }
    made = Made(herd, tmp_path, {"merge": merge})
    stored = {name: made.weights.stored(name) for name in (EMBEDDINGS, HEAD)}
    a, c = made.sources["a"].stored(EMBEDDINGS), made.sources["c"].stored(HEAD)
    assert torch.equal(stored[EMBEDDINGS][:64], a)
    assert not stored[EMBEDDINGS][64:67].any()
    assert torch.equal(stored[HEAD][:67], c)
    mean = torch.cat([a, torch.zeros(3, 32)]).float().mean(0).bfloat16()
    assert torch.equal(stored[EMBEDDINGS][67:], mean.expand(5, -1))
    lines = [line for line in made.plan.warnings if "zeros" in line]
    assert lines == ["models.made.merge: 3 tokens have rows of zeros, since 'a' has none"]


def test_rows_of_stacked_layers_are_scaled_as_the_layers_are(herd, tmp_path):
    slices = [{"model": "a", "layers": "0-0"}, {"model": "c", "layers": "1-1", "scale": 0.5}]
    merge = {
        "method": "passthrough",
        "slices": slices,
        "semantics": "mergekit-0.1.5",  # head and last norm have the scale of the last slice
        "tokenizer": {"source": "union"},
    }
    made = Made(herd, tmp_path, {"merge": merge})
    assert torch.equal(made.weights[HEAD], made.sources["c"][HEAD] / 2)
    assert torch.equal(made.weights[EMBEDDINGS][:64], made.sources["a"][EMBEDDINGS])


def test_a_mixture_has_the_base_s_rows_and_those_of_experts_for_tokens_of_theirs(herd, tmp_path):
    experts = [{"model": "b", "prompts": ["w1"]}, {"model": "c-laser", "prompts": ["w9"]}]
    laser = {"laser": "c", "rank": 8, "matrices": ["mlp.up_proj"]}
    moe = {"base": "a", "experts": experts, "tokenizer": {"source": "union", "chat_template": "chatml"}}
    made = Made(herd, tmp_path, {"moe": moe}, {"c-laser": laser})
    assert made.config["vocab_size"] == len(made.tokenizer) == 68
    for tensor in (EMBEDDINGS, HEAD):
        rows = made.weights.stored(tensor)
        assert torch.equal(rows[:64], made.sources["a"].stored(tensor))
        assert torch.equal(rows[64], made.sources["b"].stored(tensor)[64])
        assert torch.equal(rows[66:], made.sources["c"].stored(tensor)[[64, 66]])
        both = made.sources["b"][tensor][65] + made.sources["c"][tensor][65]
        assert torch.equal(rows[65], (both / 2).bfloat16())
    assert made.tokenizer.apply_chat_template([{"role": "user", "content": "w1"}], tokenize=False) == (
        "<|im_start|>user\nw1<|im_end|>\n"
    )


def test_a_merge_of_a_merge_has_all_tokens(herd, tmp_path):
    inner = {
        "merge": {
            "method": "slerp",
            "base": "a",
            "other": "b",
            "t": 0,
            "tokenizer": {"source": "union"},
        }
    }
    outer = {
        "method": "linear",
        "models": [{"model": "inner"}, {"model": "c"}],
        "dtype": "float32",
        "tokenizer": {"source": "union"},
    }
    made = Made(herd, tmp_path, {"merge": outer}, {"inner": inner})
    assert [made.tokenizer.convert_tokens_to_ids(token) for token in (START, END, PAD, TOOL)] == [
        64,
        65,
        66,
        67,
    ]
    assert torch.allclose(made.row(START), made.source("b", START), atol=1e-3)
    assert torch.allclose(made.row(END), (made.source("b", END) + made.source("c", END)) / 2, atol=1e-3)
    settings = json.loads((made.folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert list(settings["added_tokens_decoder"]) == ["0", "1", "2", "64", "65", "66", "67"]


def test_tokens_that_were_added_to_a_tokenizer_alone_have_no_row_there(tmp_path):
    """Neither ``a`` nor ``b`` has a row for its last token; ``c`` has one for that of ``a``."""
    herd = tmp_path / "herd"
    for seed, name in enumerate(MORE):
        write(herd / name, seed, MORE[name])
    for name, token, number in (("a", "<pad>", 64), ("b", "<only-b>", 66)):
        add(herd / name, token, number)
    entry = {"merge": {**LINEAR, "dtype": "float32", "tokenizer": {"source": "union"}}}
    made = Made(herd, tmp_path / "results", entry)
    assert "<only-b>" not in made.tokenizer.get_vocab()
    assert made.tokenizer.convert_tokens_to_ids("<pad>") == 64
    assert torch.allclose(made.row("<pad>"), made.source("c", PAD), atol=1e-7)
    assert not [line for line in made.plan.warnings if "zeros" in line]
    models = [{"model": "a"}, {"model": "b"}]
    entry = {"merge": {"method": "linear", "models": models, "tokenizer": {"source": "base"}}}
    made = Made(herd, tmp_path / "others", entry)
    assert not made.row("<pad>").any()
    assert [line for line in made.plan.warnings if "zeros" in line] == [
        "models.made.merge: a token has a row of zeros, since none of 'a' and 'b' has one"
    ]


def test_tied_embeddings_have_one_tensor_of_rows(tmp_path):
    herd = tmp_path / "herd"
    for seed, name in enumerate(MORE):
        write(herd / name, seed, MORE[name], tie_word_embeddings=True)
    models = [{"model": "a", "density": 1.0}, {"model": "c", "density": 1.0}]
    merge = {"method": "ties", "base": "b", "models": models, "dtype": "float32"}
    made = Made(herd, tmp_path / "results", {"merge": {**merge, "tokenizer": {"source": "union"}}})
    assert HEAD not in made.weights.spans
    # of tokens that the base has and others do not, their task vectors are zero; of others, it has the row that they have
    assert torch.allclose(made.row(START), made.source("b", START), atol=1e-6)
    assert torch.allclose(made.row(TOOL), made.source("c", TOOL), atol=1e-6)
    assert torch.allclose(made.row(END), made.source("c", END), atol=1e-6)


def test_a_vocabulary_that_the_recipe_no_longer_asks_for_makes_the_lock_stale(herd, tmp_path):
    merge = {**LINEAR, "tokenizer": {"source": "union"}}
    recipe = tiny.write_recipe(tmp_path / "r.yaml", {**HERD, "made": {"merge": merge}})
    for name in HERD:
        (tmp_path / name).symlink_to(herd / name)
    tiny.lock(recipe)
    text = recipe.read_text(encoding="utf-8")
    assert "source: union" in text
    recipe.write_text(text.replace("source: union", "source: base"), encoding="utf-8")
    with pytest.raises(LockError, match=r"does not match the recipe at models.made.tokenizer"):
        plans.load(recipe, tmp_path)
    tiny.write_recipe(tmp_path / "r.yaml", {**HERD, "made": {"merge": LINEAR}})
    with pytest.raises(LockError, match=r"does not match the recipe at models.made.tokenizer"):
        plans.load(recipe, tmp_path)


def test_a_lock_of_other_tokenizers_is_refused(herd, tmp_path):
    merge = {"method": "slerp", "base": "a", "other": "x", "tokenizer": {"source": "union"}}
    reduced = {"laser": "b", "rank": 8, "matrices": ["mlp.up_proj"]}
    recipe = tiny.write_recipe(herd / "stale.yaml", {**HERD, "x": reduced, "made": {"merge": merge}})
    lock = tiny.lock(recipe)
    text = recipe.read_text(encoding="utf-8").replace("laser: b", "laser: c")
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match="locked with other tokenizers"):
        plans.make(recipes.load(recipe), lock, recipe, tmp_path)


def test_models_of_the_same_tokens_are_merged_row_by_row_by_any_method(tmp_path):
    for seed, name in enumerate(("a", "b")):
        tiny.write_model(tmp_path / name, seed=seed)
    merges = {
        "mean": {"method": "linear", "models": [{"model": "a"}, {"model": "b"}]},
        "drawn": {
            "method": "della_linear",
            "base": "a",
            "models": [{"model": "b", "parameters": {"weight": 1}}],
        },
    }
    for merge in merges.values():
        merge["tokenizer"] = {"source": "union"}
        models = {"a": {"folder": "a"}, "b": {"folder": "b"}, "made": {"merge": merge}}
        recipe = tiny.write_recipe(tmp_path / "recipe.yaml", models)
        tiny.lock(recipe)
        plan = plans.load(recipe, tmp_path / "results")
        assert plan.released.form == plan.nodes["a"].form
        assert not any("rows" in str(part.operation.parameters) for part in plan.released.parts)
