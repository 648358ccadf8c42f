"""A tiny release in all formats, each in a repository of its own, with their losses: for pictures of its cards."""

import json

from herdbook.quantization.schemes import SCHEMES
from support import quantized, tiny

SIZES = {"head_dim": 32, "hidden": 128, "intermediate": 128}


def write(root):
    """Write the release's inputs and results below a folder; return its plan."""
    models = {}
    for seed, name in enumerate(("base", "tuned")):
        tiny.write_model(root / name, seed=seed, **SIZES)
        models[name] = {"folder": name, "license": "apache-2.0"}
    experts = [{"model": "base", "prompts": ["w1"]}, {"model": "tuned", "prompts": ["w2"]}]
    models["mix"] = {"moe": {"base": "base", "experts": experts}}
    line = json.dumps({"text": " ".join(f"w{number % 9}" for number in range(400))})
    (root / "held.jsonl").write_text(f"{line}\n{line}\n", encoding="utf-8")
    recipe = tiny.write_recipe(
        root / "r.yaml",
        models,
        release={"repo": "owner/Tiny"},
        calibration={"held": {"data": ["held.jsonl"], "split": "validation", "windows": 30, "tokens": 8}},
        quantize={"methods": ["Q8_0", "Q4_0"], "schemes": list(SCHEMES), "loss": {"texts": ["held"]}},
        publish={
            "gguf_repo": "owner/Tiny-GGUF",
            "scheme_repos": {name: f"owner/Tiny-{scheme.ending}" for name, scheme in SCHEMES.items()},
        },
    )
    plan = tiny.build(recipe, root / "results")
    quantized.add_to(plan, quantized.size_label(2, 128, 128))
    return plan
