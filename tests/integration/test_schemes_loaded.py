"""Formats for GPU servers, loaded by transformers with compressed-tensors: dense models and mixtures, whole, with the logits that follow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from herdbook.layout import CONFIG, WEIGHTS
from herdbook.quantization.compressed_tensors import KEY
from herdbook.quantization.schemes import SCHEMES
from herdbook.steps.compress.decoded import DecodedTensors
from support import tiny

pytestmark = pytest.mark.slow
READER = Path(sys.prefix) / "tools" / "compressed-tensors"
SIZES = {"head_dim": 32, "hidden": 128, "intermediate": 256}
IDS = [[1, *range(3, 34)]]
TWO = [{"model": "a", "prompts": ["w1"]}, {"model": "b", "prompts": ["w9"]}]
# The sources' family and settings, and what is made of them.
SERVED = [name for name, scheme in SCHEMES.items() if scheme.library == "compressed-tensors"]
MODELS = {
    "llama": ("llama", {}, None),
    "qwen3, tied": ("qwen3", {"tie_word_embeddings": True}, None),
    "mixtral": ("llama", {}, {"moe": {"base": "a", "experts": TWO}}),
    "qwen3 moe": ("qwen3", {}, {"moe": {"base": "a", "experts": TWO}}),
}
# In the last, what comes into linear layers is rounded as a server does it; the experts of a mixture are none in transformers.
SCRIPT = """
import json, sys
import torch, transformers
from transformers import AutoModelForCausalLM

def rounded(module, args):
    scale = args[0].abs().amax(-1, keepdim=True) / 448
    return ((args[0] / scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(scale.dtype) * scale,)

def logits(folder, hook=None):
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    for name, module in model.named_modules() if hook else ():
        if ".layers." in name and type(module) is torch.nn.Linear:
            module.register_forward_pre_hook(hook)
    with torch.no_grad():
        found = model.eval()(torch.tensor(ids)).logits.float()
    return found, {key: sorted(map(str, value)) for key, value in report.items() if value}

folders, ids = map(json.loads, sys.argv[1:])
found = {}
for name, (encoded, decoded) in folders.items():
    (ours, report), (plain, _), (served, _) = logits(encoded), logits(decoded), logits(decoded, rounded)
    distances = [float((ours - other).norm() / other.norm()) for other in (plain, served)]
    found[name] = {"report": report, "plain": distances[0], "served": distances[1]}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What transformers finds in each format of each model."""
    if not READER.is_dir():
        pytest.skip("compressed-tensors is not installed; `make` installs it")
    folders = {}
    for name, (kind, changes, mixture) in MODELS.items():
        root = tmp_path_factory.mktemp("model")
        for seed, source in enumerate(("a", "b")):
            tiny.write_model(root / source, seed=seed, model_type=kind, **SIZES, **changes)
        models = {"a": {"folder": "a"}, "b": {"folder": "b"}, **({"mix": mixture} if mixture else {})}
        release = {"model": "mix" if mixture else "a"}
        recipe = tiny.write_recipe(root / "r.yaml", models, release=release, quantize={"schemes": SERVED})
        plan = tiny.build(recipe, root / "results")
        for one in plan.editions[1:]:
            folder = one.layout.folder(one.released)
            folders[f"{name}: {one.edition.scheme}"] = [str(folder), str(decoded(folder, one))]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(folders), json.dumps(IDS)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(READER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def decoded(folder, plan):
    """Write the model that a server computes with, at full width."""
    scheme = SCHEMES[plan.edition.scheme]
    tensors = DecodedTensors(folder, scheme)
    target = folder.with_name(f"{folder.name}-decoded")
    target.mkdir()
    held = {name: tensors.stored(name).to(dtype_of(folder)) for name in tensors.spans}
    save_file(held, target / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    del config[KEY]
    (target / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return target


def dtype_of(folder):
    """The dtype of a folder's norms."""
    return load_file(next(folder.glob("*.safetensors")))["model.norm.weight"].dtype


@pytest.mark.parametrize("scheme", SERVED)
@pytest.mark.parametrize("name", MODELS)
def test_it_loads_whole_and_computes_what_its_decoded_weights_do(loaded, name, scheme):
    found = loaded[f"{name}: {scheme}"]
    assert found["report"] == {}
    if not SCHEMES[scheme].activations:
        assert found["plain"] == 0
        return
    assert found["served"] < 0.1 * found["plain"]
