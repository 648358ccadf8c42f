"""The tensors that a configuration implies, against those that transformers makes and loads."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from herdbook import apart
from herdbook.architectures.form import EMBEDDINGS, HEAD, implied, misfits
from herdbook.errors import SourceError, StepError
from herdbook.lock import whole
from herdbook.lock.whole import check_config, check_tied
from herdbook.weights import hollow, loading
from herdbook.weights.checkpoint import Span
from support import forkserver, loaded, tiny

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
CHANGES = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 16},
    "no biases": {"qkv_bias": False},
}
NULLS = {"head_dim": None, "num_key_value_heads": None}  # as older versions of transformers wrote them


def of_transformers(config):
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **plain))
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_configuration_implies_what_transformers_makes(model_type, changes):
    config = {"model_type": model_type, **SIZES, **changes}
    assert implied(config) == of_transformers(config)


@pytest.mark.parametrize("key", NULLS)
def test_null_is_read_as_transformers_does(key):
    config = {"model_type": "llama", **SIZES, key: None}
    assert implied(config) == of_transformers(config)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("key", ["head_dim", "num_key_value_heads", "tie_word_embeddings"])
def test_defaults_are_those_of_transformers(model_type, key):
    sizes = {**SIZES, "hidden_size": 512, "num_attention_heads": 32}
    config = {"model_type": model_type, **sizes}
    config.pop(key, None)
    assert implied(config) == of_transformers(config)


def test_what_older_checkpoints_also_contain_is_accepted():
    config = {"model_type": "llama", **SIZES, "tie_word_embeddings": True}
    spare = {"lm_head.weight": (50, 48), "model.layers.0.self_attn.rotary_emb.inv_freq": (4,)}
    assert misfits(config, implied(config) | spare) == []
    assert misfits({**config, "tie_word_embeddings": False}, implied(config)) != []


MIXED = {
    "num_experts": 4,
    "num_local_experts": 4,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
}
MIXTURES = {
    "mixtral": [{}, {"head_dim": 16}, {"tie_word_embeddings": True}, {"decoder_sparse_step": 2}],
    "qwen2_moe": [{}, {"decoder_sparse_step": 2}, {"mlp_only_layers": [1]}, {"qkv_bias": False}],
    "qwen3_moe": [{}, {"attention_bias": True}, {"head_dim": 16}, {"mlp_only_layers": [0, 2]}],
}


@pytest.mark.parametrize(
    ("model_type", "changes"), [(kind, changes) for kind, several in MIXTURES.items() for changes in several]
)
def test_a_mixture_s_configuration_implies_what_transformers_makes_and_loads(model_type, changes):
    config = {"model_type": model_type, **SIZES, **MIXED, **changes}
    assert implied(config, fused=True) == of_transformers(config)
    for fused in (False, True):
        form = implied(config, fused=fused)
        assert misfits(config, form) == []
        assert hollow.problems(config, form) == []


@pytest.mark.parametrize("model_type", MIXTURES)
@pytest.mark.parametrize(
    "key", ["head_dim", "num_key_value_heads", "tie_word_embeddings", "decoder_sparse_step"]
)
def test_defaults_of_mixtures_are_those_of_transformers(model_type, key):
    config = {"model_type": model_type, **SIZES, **MIXED, "hidden_size": 512, "num_attention_heads": 32}
    config.pop(key, None)
    assert implied(config, fused=True) == of_transformers(config)


def test_deepseek_s_first_layers_and_shared_experts():
    counts = {"n_routed_experts": 4, "n_shared_experts": 2, "first_k_dense_replace": 1, "moe_layer_freq": 2}
    form = implied({"model_type": "deepseek", **SIZES, "moe_intermediate_size": 24, **counts})
    shapes = {name: shape for name, shape in form.items() if ".mlp." in name and "up_proj" in name}
    assert shapes == {
        "model.layers.0.mlp.up_proj.weight": (80, 48),
        "model.layers.1.mlp.up_proj.weight": (80, 48),
        "model.layers.2.mlp.shared_experts.up_proj.weight": (48, 48),
        **{f"model.layers.2.mlp.experts.{place}.up_proj.weight": (24, 48) for place in range(4)},
    }
    assert form["model.layers.2.mlp.gate.weight"] == (4, 48)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": None}, "its config.json lacks 'intermediate_size'"),
        ({"hidden_size": "48"}, "its config.json has '48' as hidden_size"),
        ({"num_key_value_heads": -2}, "its config.json has -2 as num_key_value_heads"),
        ({"num_hidden_layers": 10**12}, "its config.json implies more than 200,000 tensors"),
        ({"model_type": "mixtral", "num_local_experts": 10**12}, "its config.json implies more than"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": 3}, "its config.json has 3 as mlp_only_layers"),
    ],
)
def test_a_configuration_without_usable_numbers_is_named(changes, message):
    [line] = misfits({"model_type": "llama", **SIZES, **MIXED, **changes}, {})
    assert message in line


@pytest.mark.parametrize("model_type", ["gemma2", "phi3", "olmo2", "gpt_neox", "llama"])
def test_other_types_are_loaded_by_transformers_without_their_weights(model_type):
    config = {"model_type": model_type, **SIZES, "pad_token_id": 0}
    form = of_transformers(config)
    assert hollow.problems(config, form) == []
    name, missing = "extra.weight", next(name for name in form if ".1." in name)
    shape = form[missing]
    lines = hollow.problems(config, {**{n: s for n, s in form.items() if n != missing}, name: (3,)})
    assert [missing in lines[0], name in lines[1], len(lines)] == [True, True, 2]
    [line] = hollow.problems(config, {**form, missing: (*shape[:-1], 7)})
    assert f"{missing} has shape {[*shape[:-1], 7]}, and its config.json implies {list(shape)}" in line


@pytest.mark.parametrize(
    "model_type", ["llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe"]
)
def test_the_class_of_each_type_is_that_of_transformers(model_type):
    config = {"model_type": model_type, **SIZES, **MIXED}
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    form = implied(config)
    assert misfits({**config, "architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]]}, form) == []
    for named in (["GemmaForCausalLM"], [f"{model_type.title()}Model"], "no list"):
        [line] = misfits({**config, "architectures": named}, form)
        assert f"its config.json has architectures {named}, and" in line


@pytest.mark.parametrize("kind", ["gemma3_text", "olmo3", "modernbert-decoder", "granite"])
@pytest.mark.parametrize(
    "section", [{"type": "linear"}, {"rope_type": "linear"}, {"type": "linear", "rope_type": "default"}]
)
def test_rotary_settings_that_transformers_5_ignores_are_refused(kind, section):
    """Of what is accepted, a factor changes the frequencies of a layer."""
    scaled, plain = (_frequencies(kind, scaling) for scaling in ({**section, "factor": 8.0}, None))
    config = {"model_type": kind, **SIZES, "rope_scaling": {**section, "factor": 8.0}}
    if scaled != plain:
        check_config(config, "folder: a")
    else:
        with pytest.raises(SourceError, match=r"folder: a: config\.json has rope_scaling with type 'linear'"):
            check_config(config, "folder: a")


@pytest.mark.parametrize("row", [0, 25, 49])
def test_a_tied_head_that_is_another_matrix_is_refused_by_its_ends(row, monkeypatch):
    """In the middle of a large matrix, it is not seen."""
    monkeypatch.setattr(whole, "ENDS", 100)
    matrices = {EMBEDDINGS: bytes(5000), HEAD: bytearray(5000)}
    matrices[HEAD][row * 100] = 1
    held = {
        file: {name: Span(name, "U8", (50, 100), start, start + 5000)}
        for file, name, start in (("a", EMBEDDINGS, 70), ("b", HEAD, 9))
    }
    asked = []

    def read(file, span):
        asked.append((file, span.start, span.end))
        start = held[file][span.name].start
        return bytes(matrices[span.name][span.start - start : span.end - start])

    for tied in (False, True):
        config = {"model_type": "llama", "tie_word_embeddings": tied}
        if tied and row != 25:
            with pytest.raises(
                SourceError, match=r"here: config\.json has tie_word_embeddings, and lm_head.weight"
            ):
                check_tied(config, held, read, "here")
        else:
            check_tied(config, held, read, "here")
    assert asked == [("a", 70, 170), ("a", 4970, 5070), ("b", 9, 109), ("b", 4909, 5009)]


def _frequencies(kind, scaling):
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    sizes = {**SIZES, "num_hidden_layers": 6, "pad_token_id": 0}  # with layers of each kind
    config = CONFIG_MAPPING[kind](**sizes, **({"rope_scaling": scaling} if scaling else {}))
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    return {
        name: buffer.tolist()
        for name, buffer in model.named_buffers()
        if name.endswith(("_inv_freq", ".inv_freq")) and "original" not in name
    }


@pytest.mark.own_process
def test_transformers_loads_other_types_in_a_process_of_its_own(monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", forkserver.PYTHON)  # which has imported transformers
    config = {"model_type": "gemma2", **SIZES, "pad_token_id": 0}
    form = of_transformers(config)
    capfd.readouterr()
    [line] = loading.loading_problems(
        config, {name: form[name] for name in form if name != "model.norm.weight"}
    )
    assert "implies the tensor model.norm.weight, which it lacks" in line
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_weights_that_are_described_as_quantized_are_not_taken_for_others(model_type, key):
    config = {"model_type": model_type, **SIZES, key: {}}
    assert loading.loading_problems(config, {}) == [
        f"its config.json has {key}, so transformers would look for quantized tensors"
    ]


def test_transformers_is_not_told_what_would_make_it_load_other_code(monkeypatch):
    questions = []
    monkeypatch.setattr(
        loading, "_answered", lambda text: questions.append(json.loads(text)) or {"problems": []}
    )
    foreign = {"attn_implementation": "other/kernel", "auto_map": {"AutoConfig": "other--a.B"}}
    foreign |= {f"_{name}": value for name, value in foreign.items()}
    config = {"model_type": "gemma2", **SIZES, "vision_config": {"model_type": "vit", "hidden_size": 3}}
    nested = {**config, "vision_config": config["vision_config"] | foreign, "dtype": "of next year"}
    assert loading.loading_problems(nested | foreign, {"a": (1, 2)}) == []
    assert questions == [{"config": config, "form": {"a": [1, 2]}}]


@pytest.mark.parametrize("kind", ["of next year", "vit", ["gemma2"], None])
def test_a_type_that_transformers_does_not_have_is_named(kind):
    with pytest.raises(StepError, match="transformers has no language model of type"):
        hollow.problems({"model_type": kind}, {})


def test_where_transformers_is_not_installed_nothing_is_claimed(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(StepError, match=r"needs accelerate for this check: pip install 'herdbook\[build\]'"):
        hollow.problems({"model_type": "gemma2"}, {})


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("gemma2", {"num_hidden_layers": 10**9}, "implies 1000000000 layers, but it has only 2 tensors"),
        ("gpt2", {"n_layer": 10**9}, "implies 1000000000 layers, but it has only 2 tensors"),
        (
            "gemma2",
            {"hidden_size": "wide", "num_hidden_layers": 2},
            "transformers cannot read its config.json",
        ),
        (
            "gemma2",
            {"hidden_size": 10**30, "num_hidden_layers": 2},
            "transformers cannot load it",
        ),
        ("gemma2", {"vocab_size": -5, "num_hidden_layers": 2}, "transformers cannot load it"),
    ],
)
def test_what_transformers_cannot_read_is_named(model_type, changes, message):
    [line] = hollow.problems({"model_type": model_type, **changes}, dict.fromkeys("ab", (1,)))
    assert message in line


@pytest.mark.slow
@pytest.mark.own_process
def test_a_configuration_takes_neither_all_time_nor_all_memory(monkeypatch):
    config = {"model_type": "gemma2", **SIZES, "num_labels": 10**10}  # transformers names each
    done = subprocess.run(
        [sys.executable, "-m", "herdbook.weights.hollow"],
        input=json.dumps([{"config": config, "form": {"a": [1], "b": [1], "c": [1]}}, 1 << 28, None]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["problems"] == ["transformers cannot read its config.json: MemoryError"]
    monkeypatch.setattr(apart, "LIMIT", 0.1)
    [line] = loading.loading_problems(config, {})
    assert line == "transformers cannot load it: its process needs more than 0.1 seconds"


def test_the_check_that_follows_every_built_release_can_fail(tmp_path):
    folder = tiny.write_model(tmp_path)
    loaded.loads_whole(folder)
    path, name = folder / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(path)
    for changed, kind in (
        ({key: tensor for key, tensor in tensors.items() if key != name}, "missing_keys"),
        (tensors | {"model.layers.1.mlp.up.weight": tensors[name].clone()}, "unexpected_keys"),
    ):
        save_file(changed, path, metadata={"format": "pt"})
        with pytest.raises(AssertionError, match=f"does not load it whole: {{'{kind}': "):
            loaded.loads_whole(folder)
