"""Mixtures in the older line of transformers, which many programs still pin: it loads them and computes the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from support import tiny

pytestmark = pytest.mark.slow
OVERLAY = Path(sys.prefix) / "tools" / "transformers-4"
IDS = [[1, *range(3, 40)]]
SCRIPT = """
import json, sys, torch, transformers
from transformers import AutoModelForCausalLM
folder, ids = sys.argv[1], json.loads(sys.argv[2])
model, said = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
with torch.no_grad():
    logits = model.eval()(torch.tensor(ids)).logits
print(json.dumps({"version": transformers.__version__, "logits": logits.tolist(), "theta": model.config.rope_theta,
    "missing": sorted(said["missing_keys"]), "unexpected": sorted(said["unexpected_keys"])}))
"""


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_mixture_loads_and_computes_the_same(tmp_path, kind):
    if not OVERLAY.is_dir():
        pytest.skip("transformers 4 is not installed; `make` installs it")
    names = ["base", "b", *(["s"] if kind == "qwen2" else [])]
    for seed, name in enumerate(names):
        extra = {"head_dim": 8} if kind == "qwen3" else {}
        tiny.write_model(tmp_path / name, seed=seed, model_type=kind, rope_theta=777.0, **extra)
    moe = {
        "base": "base",
        "experts": [{"model": "base", "prompts": ["w1"]}, {"model": "b", "prompts": ["w9"]}],
    }
    if kind == "qwen2":
        moe["shared_experts"] = [{"model": "s", "prompts": ["w7"]}]
    models = {**{name: {"folder": name} for name in names}, "mix": {"moe": moe}}
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", models), tmp_path / "results")
    folder = plan.layout.folder(plan.released)
    environment = {**os.environ, "PYTHONPATH": str(OVERLAY), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, str(folder), json.dumps(IDS)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["version"].startswith("4.")
    assert found["missing"] == found["unexpected"] == []
    assert found["theta"] == 777.0
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(torch.tensor(IDS)).logits
    torch.testing.assert_close(torch.tensor(found["logits"]), expected, rtol=1e-4, atol=1e-5)
