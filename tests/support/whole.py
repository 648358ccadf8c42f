"""Small releases that have every part: each operation, measurements, a search, a report on routers, a ranking, a GGUF.

What other programs would do (lm-eval, llama.cpp's converter) is written by hand, in their place and form.
"""

import csv
import io

import torch
import yaml

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook.plan.requests import with_requests
from herdbook.recipe import SECTIONS as SECTIONS_OF_A_CARD
from herdbook.steps.card.step import render_card
from support import lies, measured, quantized, tiny
from support.boards import BOARD
from support.inputs.tokens import add as add_token

PARTS = ["mlp.down_proj"]
MODELS = {
    "base": {"hub": "herd/base"},
    "tuned": {"hub": "herd/tuned"},
    "cut": {"laser": "tuned", "rank": "mp-edge", "matrices": PARTS},
    "searched": {
        "laser": "base",
        "rank": [{"fraction": 0.5}, {"fraction": 0.75}],
        "matrices": PARTS,
        "select": {"by": "snr", "count": 1},
        "calibration": "text",
        "guard": {"margin": 1.0},
    },
    "spread": {"laser": "tuned", "rank": {"budget": 0.5}, "matrices": PARTS},
    "folded": {"adapter": {"hub": "herd/adapter"}, "on": "base", "license": "apache-2.0"},
    "between": {"merge": {"method": "slerp", "base": "cut", "other": "base", "t": 0.25}},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [
                {"model": "cut", "prompts": ["w1"]},
                {"model": "searched", "prompts": ["w2"]},
                {"model": "folded", "prompts": ["w3"]},
                {"model": "between", "prompts": ["w4"]},
                {"model": "base", "prompts": ["w5"], "noise_scale": 0.01},
                {"model": "spread", "prompts": ["w6"]},
            ],
        }
    },
}
# What one mixture cannot be besides: drawn routers, biases of zero, stacked experts, casts, lined-up rows, stacks of layers.
OTHERS = {
    "base": {"hub": "herd/base"},
    "tuned": {"hub": "herd/tuned"},
    "wide": {"hub": "herd/wide"},
    "tall": {
        "merge": {
            "method": "passthrough",
            "slices": [
                {"layers": "0-0", "model": "base"},
                {"layers": "1-1", "model": "tuned", "scale": 0.5},
            ],
        }
    },
    "sparse": {
        "merge": {
            "method": "dare_ties",
            "base": "base",
            "models": [
                {"model": "tuned", "weight": 1, "density": 0.5},
                {"model": "tall", "weight": 0.5, "density": 0.5},
            ],
            "seed": 3,
        }
    },
    "mix": {
        "moe": {
            "base": "base",
            "family": "qwen2",
            "gate": "random",
            "layout": "fused",
            "experts": [{"model": "base"}, {"model": "tall"}, {"model": "sparse"}],
            "shared_experts": [{"model": "wide"}],
            "tokenizer": {"source": "union"},
        }
    },
}
# Stacked experts that are not all copies.
STACKED = {
    **{name: OTHERS[name] for name in ("base", "wide")},
    "mix": {
        "moe": {
            "base": "base",
            "gate": "uniform_random",
            "layout": "fused",
            "experts": [{"model": "base"}, {"model": "wide"}],
        }
    },
}
SECTIONS = {
    "evaluate": {
        "tasks": ["task.yaml", "asked.yaml"],
        "models": ["base", "mix"],
        "limit": 4,
        "compare": {"mix": ["base"]},
        "release_samples": True,
    },
    "quantize": {"methods": ["Q8_0"], "loss": {"texts": ["held"]}},
    "routing": {"texts": ["text"]},
    "calibration": {
        "text": {"data": ["calibration.jsonl"], "split": "train", "windows": 30, "tokens": 8},
        "held": {"data": ["held.jsonl"], "split": "validation", "windows": 30, "tokens": 8},
    },
    "leaderboards": {"board": BOARD},
    "claims": [{"text": "It is small.", "by": "Somebody", "on": "2026-01-03"}],
    "publish": {"tag": "v1.0", "replaces": "herd/tuned"},
    "release": {
        "image": {"file": "herd.png", "alt": "A herd", "license": "cc0-1.0"},
        "uses": {"intended": ["tests"], "unsuitable": ["anything else"]},
        "signer": {"key": lies.KEY.fingerprint},
    },
    "card": {"sections": [*SECTIONS_OF_A_CARD, "thanks"], "templates": "own"},
}
GENERATION = {"temperature": 0.5, "eos_token_id": 2}


def write_sources(root, hub):
    """Write the sources that the recipes name, and put them on a Hub."""
    for seed, name in enumerate(("base", "tuned")):
        files = tiny.write_model(root / name, seed=seed, shards=2, head_dim=8)
        (files / "generation_config.json").write_text(tiny.json.dumps(GENERATION))
        (files / "chat_template.jinja").write_text("{{ messages }}")
        (files / "LICENSE").write_text("Terms.\n")
        add(hub, files, name)
    wide = tiny.write_model(root / "wide", seed=2, head_dim=8, vocab=66, dtype=torch.float32)
    tiny.write_tokenizer(wide, 64)
    for number, token in enumerate(("<|im_start|>", "<|im_end|>"), start=64):
        add_token(wide, token, number)
    add(hub, wide, "wide")
    rows = b'{"text": "w1 w2"}\n'
    hub.add_repo("herd/questions", {"test.jsonl": rows, "README.md": b"# Data\n"}, repo_type="dataset")
    add(hub, tiny.write_adapter(root / "adapter", root / "base", seed=7), "adapter")


def add(hub, folder, name):
    """Put a folder on a Hub."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add_repo(f"herd/{name}", files, license="apache-2.0", base_model=["herd/elder"])


def write_tasks(root, metric=None):
    """Write a task over a file, and one over a data set on the Hub."""
    task = yaml.safe_load(tiny.write_task(root / "task.yaml", metric=metric).read_text(encoding="utf-8"))
    del task["dataset_kwargs"]
    asked = task | {"task": "asked", "dataset_path": "herd/questions"}
    (root / "asked.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")


def board():
    """Return the snapshot of a leaderboard."""
    rows = io.StringIO()
    csv.writer(rows).writerows([("name", "bpb"), ("first", "0.7"), ("second", "0.95")])
    return rows.getvalue()


def evaluated(plan, metric="bits_per_byte"):
    """Measure the models of a plan, and write into the lock what they were asked; return the plan of that lock."""
    for number, item in enumerate(plan.evaluations):
        names = [locked.name for locked in plan.lock.tasks.values()]
        also = [name for name in names if name != "held_out"]
        measured.write(plan, item, [0.75 + number / 16], metric=metric, stderr=0.125, also=also)
    if plan.evaluations:
        locks.write(with_requests(plan), locks.path_for(plan.recipe_path))
    return plans.load(plan.recipe_path, plan.layout.root)


def build(root, key, models=MODELS, **sections):
    """Build a release; return its folder."""
    write_tasks(root)
    lines = [f'{{"text": "{" ".join(f"w{(7 * n + i) % 40}" for i in range(40))}"}}\n' for n in range(40)]
    (root / "calibration.jsonl").write_text("".join(lines))
    (root / "held.jsonl").write_text("".join(line.replace("w1", "w2") for line in lines))
    (root / "own").mkdir(exist_ok=True)
    (root / "own/thanks.md.j2").write_text("## Thanks\n\nTo {{ facts.released.name|code }}.\n\n")
    (root / "herd.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8))
    (root / "board.csv").write_text(board())
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", models, **sections), root / "results")
    if plan.quantized:
        quantized.add_to(plan, quantized.size_label(experts=6))
    plan = evaluated(plan)
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan, key)
