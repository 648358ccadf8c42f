"""Formats for Macs, loaded and run by mlx-lm on a processor: dense models and mixtures, with the logits of their decoded weights.

And against what mlx-lm's own converter makes of the same models.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from herdbook.layout import CONFIG, WEIGHTS
from herdbook.quantization.schemes import SCHEMES
from herdbook.steps.compress.decoded import DecodedTensors
from herdbook.steps.compress.mlx import encode
from support import tiny

pytestmark = pytest.mark.slow
TOOL = Path(sys.prefix) / "tools" / "mlx"
SIZES = {"hidden": 128, "intermediate": 192}
IDS = [1, *range(3, 50)]
TWO = [{"model": "a", "prompts": ["w1"]}, {"model": "b", "prompts": ["w9"]}]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
# As transformers 5 writes it: the base of rotary embeddings is nowhere else.
NESTED = {"rope_theta": None, "rope_parameters": {"rope_theta": 300.0, "rope_type": "default"}}
# The sources' type and settings, what is made of them, and the scheme.
MODELS = {
    "llama": ("llama", {"dtype": torch.bfloat16}, None, "MLX_4BIT"),
    "llama, base nested": ("llama", NESTED, None, "MLX_6BIT"),
    "llama, scaled as in llama3": ("llama", {"rope_scaling": LLAMA3}, None, "MLX_8BIT"),
    "llama, scaled linearly, biases": (
        "llama",
        {"rope_scaling": LINEAR, "attention_bias": True},
        None,
        "MLX_4BIT",
    ),
    "mistral": ("mistral", {"head_dim": 64, "sliding_window": None}, None, "MLX_4BIT"),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}, None, "MLX_8BIT"),
    "qwen3, tied": ("qwen3", {"head_dim": 64, "tie_word_embeddings": True}, None, "MLX_4BIT"),
    "mixtral": ("llama", NESTED, {"moe": {"base": "a", "experts": TWO}}, "MLX_4BIT"),
    "mixtral in float16": (
        "mistral",
        {"dtype": torch.float16, "sliding_window": None},
        {"moe": {"base": "a", "experts": TWO}},
        "MLX_6BIT",
    ),
    "qwen3 moe": ("qwen3", {"head_dim": 32}, {"moe": {"base": "a", "experts": TWO}}, "MLX_4BIT"),
    "qwen2 moe": ("qwen2_moe", {}, None, "MLX_4BIT"),
}
# It casts what was loaded to float32, in which mlx and torch agree to the last digits; then it runs as it was loaded.
SCRIPT = """
import json, sys
import mlx.core as mx
from mlx_lm import convert, generate, load
from mlx_lm.utils import load_model
from pathlib import Path

mx.set_default_device(mx.cpu)

def tensors(folder):
    found = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        found |= mx.load(str(path))
    return found

def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and bool(mx.all(one.view(mx.uint8) == other.view(mx.uint8)))

ids, found = json.loads(sys.argv[2]), {}
for name, (encoded, full, bits) in json.loads(sys.argv[1]).items():
    model, tokenizer = load(encoded)
    text = generate(model, tokenizer, prompt=ids[:5], max_tokens=8)
    model.set_dtype(mx.float32)
    logits = model(mx.array([ids])).tolist()
    made = Path(encoded).parent / f"{Path(encoded).name}-converted"
    convert(full, str(made), quantize=True, q_bits=bits)
    theirs, ours = tensors(made), tensors(encoded)
    found[name] = {
        "text": text,
        "logits": logits,
        "theirs alone": sorted(theirs.keys() - ours.keys()),
        "ours alone": sorted(ours.keys() - theirs.keys()),
        "others": sorted(key for key in ours.keys() & theirs.keys() if not same(ours[key], theirs[key])),
    }
print(json.dumps(found))
"""
# Matrices of all kinds, and what mlx makes of them.
DRAWN = """
import sys
import mlx.core as mx

mx.set_default_device(mx.cpu)
made = {}
for name, matrix in mx.load(sys.argv[1]).items():
    for bits in (4, 6, 8):
        parts = zip(("weight", "scales", "biases"), mx.quantize(matrix, group_size=64, bits=bits))
        made |= {f"{name}.{bits}.{part}": tensor for part, tensor in parts}
mx.save_safetensors(sys.argv[2], made)
"""


def ran(script, *words):
    """The output of a script in mlx-lm's environment."""
    if not TOOL.is_dir():
        pytest.skip("mlx-lm is not installed; `make` installs it")
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(TOOL)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def write_source(folder, kind, seed, changes):
    """Write a source; values of None are left out of its configuration."""
    changes = {"dtype": torch.float32, **SIZES, **changes}
    if kind == "qwen2_moe":
        settings = {
            "hidden_size": 128,
            "intermediate_size": 192,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_experts": 4,
            "num_experts_per_tok": 2,
        }
        tiny.write_other_model(folder, kind, seed, **settings)
        return
    tiny.write_model(folder, seed=seed, model_type=kind, **changes)
    path = folder / CONFIG
    config = {key: value for key, value in json.loads(path.read_text()).items() if value is not None}
    path.write_text(json.dumps(config))


def decoded_logits(folder, scheme):
    """The logits of the decoded weights, by transformers in float32."""
    tensors = DecodedTensors(folder, scheme)
    target = folder.with_name(f"{folder.name}-decoded")
    target.mkdir()
    save_file(
        {name: tensors[name].contiguous() for name in tensors.spans},
        target / WEIGHTS,
        metadata={"format": "pt"},
    )
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    plain = {key: value for key, value in config.items() if key not in scheme.keys}
    (target / CONFIG).write_text(json.dumps(plain), encoding="utf-8")
    model, report = AutoModelForCausalLM.from_pretrained(
        target, dtype=torch.float32, output_loading_info=True
    )
    assert not {key: value for key, value in report.items() if value}
    with torch.no_grad():
        return model.eval()(torch.tensor([IDS])).logits


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What mlx-lm finds in each model, and the logits of its decoded weights."""
    if not TOOL.is_dir():
        pytest.skip("mlx-lm is not installed; `make` installs it")
    folders, logits = {}, {}
    for name, (kind, changes, mixture, scheme) in MODELS.items():
        root = tmp_path_factory.mktemp("model")
        for seed, source in enumerate(("a", "b")):
            write_source(root / source, kind, seed, changes)
        models = {"a": {"folder": "a"}, "b": {"folder": "b"}, **({"mix": mixture} if mixture else {})}
        recipe = tiny.write_recipe(
            root / "r.yaml",
            models,
            release={"model": "mix" if mixture else "a"},
            quantize={"schemes": [scheme]},
        )
        plan = tiny.build(recipe, root / "results")
        encoded = plan.editions[1].layout.folder(plan.editions[1].released)
        full = plan.layout.folder(plan.released)
        folders[name] = [str(encoded), str(full), SCHEMES[scheme].bits]
        logits[name] = decoded_logits(encoded, SCHEMES[scheme])
    found = json.loads(ran(SCRIPT, json.dumps(folders), json.dumps(IDS)).splitlines()[-1])
    return found, logits


@pytest.mark.parametrize("name", MODELS)
def test_mlx_lm_loads_and_runs_it_and_computes_what_its_decoded_weights_do(loaded, name):
    found, logits = loaded
    ours = torch.tensor(found[name]["logits"])
    assert float((ours - logits[name]).norm() / logits[name].norm()) < 1e-5
    assert found[name]["text"]


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_bit_by_bit_that_of_mlx_lm_s_converter_except_routers(loaded, name):
    found = loaded[0][name]
    assert found["ours alone"] == []
    modules = [
        tensor.rpartition(".")[0].rpartition(".")[2] for tensor in (*found["theirs alone"], *found["others"])
    ]
    is_mixture = MODELS[name][2] is not None or "moe" in name
    routers = {"gate", "shared_expert_gate"} if name == "qwen2 moe" else {"gate"}
    assert {*modules} == (routers if is_mixture else set())
    if is_mixture:
        assert {tensor.rpartition(".")[2] for tensor in found["theirs alone"]} == {"scales", "biases"}


def test_every_bit_is_that_of_mlx_for_matrices_of_all_kinds(tmp_path):
    drawn = torch.Generator().manual_seed(11)
    matrices = {}
    for short, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32)):
        values = torch.randn(256, 512, generator=drawn)
        values *= 10 ** torch.empty(256, 1).uniform_(-7, 4, generator=drawn)
        values[:16] = torch.randint(-3, 4, (16, 512), generator=drawn)  # many that are equal, and ties
        values[16:24] = values[16:24].abs()
        values[24:32] = -values[24:32].abs()
        values[32, ::2] = -0.0
        values[33] = 65504.0
        values[33, ::3] = -65504.0
        matrices[short] = values.to(dtype).clamp(-65504, 65504)
    save_file(matrices, tmp_path / "matrices.safetensors")
    ran(DRAWN, str(tmp_path / "matrices.safetensors"), str(tmp_path / "made.safetensors"))
    theirs = load_file(tmp_path / "made.safetensors")
    for short, matrix in matrices.items():
        for scheme in (one for one in SCHEMES.values() if one.library == "mlx"):
            for part, tensor in encode(matrix, scheme).items():
                bits = [each.view(torch.uint8) for each in (tensor, theirs[f"{short}.{scheme.bits}.{part}"])]
                assert torch.equal(*bits), (short, scheme.name, part)
