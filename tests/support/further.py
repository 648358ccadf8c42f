"""Small releases with what those of ``whole`` have not: a searched merge, formats for GPU servers, a model's name on the Hub, a predecessor.

The numbers of its search are found by ``herdbook tune``'s own code, from measurements in closed form.
"""

import json
import shutil

import yaml

from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.files import dump_json
from herdbook.layout import EVALUATIONS, LOCK, RECIPE
from herdbook.lock import Lock
from herdbook.steps.card.step import render_card
from herdbook.tuning.tune import Tuning
from support import quantized, tiny, tuned
from support.boards import BOARD
from support.inputs.tokens import add as add_token
from support.whole import add, board, evaluated, write_tasks

METRIC = "exact_match"  # of right answers, which leaderboards of the Hub show
SIZES = {"head_dim": 32, "hidden": 128, "intermediate": 128}  # which the formats for GPU servers take
# The folder `copied` has the weights of `one`, so that levels which read no local folders read those.
MODELS = {
    "one": {"hub": "herd/one"},
    "two": {"hub": "herd/two"},
    "copied": {"folder": "copied", "hub_id": "herd/one"},
    "folded": {"adapter": {"hub": "herd/further-adapter"}, "on": "one", "license": "apache-2.0"},
    "sum": {
        "merge": {
            "method": "linear",
            "normalize": False,
            "models": [{"model": "one", "weight": 0.5}, {"model": "two", "weight": 0.5}],
        },
        "search": {**tuned.SEARCH, "generations": 2, "population": 4},
    },
    "mix": {
        "moe": {
            "base": "one",
            "experts": [
                {"model": "sum", "prompts": ["w1"]},
                {"model": "copied", "prompts": ["w2"]},
                {"model": "folded", "prompts": ["w3"]},
            ],
        }
    },
}
SECTIONS = {
    "release": {"repo": "keeper/Tiny"},
    "quantize": {
        "methods": ["Q8_0"],
        "imatrix": {"texts": ["text"]},
        "schemes": ["FP8_DYNAMIC", "W4A16"],
        "loss": {"texts": ["held"]},
    },
    "calibration": {
        "text": {"data": ["calibration.jsonl"], "split": "train", "windows": 30, "tokens": 8},
        "held": {"data": ["held.jsonl"], "split": "validation", "windows": 30, "tokens": 8},
    },
    "evaluate": {"tasks": ["task.yaml", "asked.yaml"], "models": ["one", "mix"], "compare": {"mix": ["one"]}},
    "leaderboards": {
        "board": BOARD
        | {"metric": METRIC, "direction": "higher", "fetch": {"dataset": "herd/boards", "file": "board.csv"}}
    },
    "benchmarks": [
        {"task": "asked", "metric": METRIC, "dataset": "herd/questions", "id": "asked", "scale": 1}
    ],
    "publish": {
        "replaces": "keeper/Before",
        "scheme_repos": {"FP8_DYNAMIC": "keeper/Tiny-FP8", "W4A16": "keeper/Tiny-W4A16"},
    },
    "shard_size": "400KB",
}
# What does not pass, since nobody but the author has the folder; and, where it is, the text of the importance matrix.
UNVERIFIED = [("pinned", "copied", "unverified"), ("lock", "token_differences", "unverified")]
OF_FULL_WIDTH = [("importance matrix", "Tiny.imatrix.gguf", "unverified")]


def write_sources(root, hub):
    """Write the sources that the recipe names, and put them and the predecessor on a Hub."""
    for seed, name in enumerate(("one", "two"), start=7):
        folder = tiny.write_model(root / name, seed=seed, **SIZES)
        card = {"license": "apache-2.0", "datasets": ["herd/text"]}
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
        hub.add_repo(f"herd/{name}", {path.name: path.read_bytes() for path in folder.iterdir()})
    shutil.copytree(root / "one", root / "copied")
    adapter = tiny.write_adapter(root / "further-adapter", root / "one", seed=9)
    (adapter / "LICENSE").write_text("Terms.\n")
    tiny.write_tokenizer(adapter, 64)
    add_token(adapter, "<pad>", 64)
    settings = json.loads((adapter / "tokenizer_config.json").read_text())
    (adapter / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "<pad>"}))
    add(hub, adapter, "further-adapter")
    hub.add_repo("keeper/Before", predecessor())
    hub.add_repo("herd/boards", {"board.csv": board().encode()}, repo_type="dataset")


def predecessor():
    """Return the files of a predecessor that a lock pins anything of: recipe, lock, a measurement, weights."""
    recipe = {"models": {"two": MODELS["two"]}, "release": {"model": "two"}}
    source = {"asked": MODELS["two"], "uri": "pkg:huggingface/herd/two@" + "0" * 40, "revision": "0" * 40}
    source |= {"weights": "safetensors", "files": [], "members": [], "tensors": [], "config": {}}
    score = {"requests": "0" * 64, "metrics": {METRIC: {"value": 0.5}}}
    return {
        RECIPE: yaml.safe_dump(recipe).encode(),
        LOCK: locks.render(Lock.model_validate({"sources": {"two": source}})).encode(),
        f"{EVALUATIONS}/two.json": dump_json({"name": "two", "tasks": {"held_out": score}}).encode(),
        "model.safetensors": b"weights",
    }


def build(root, key):
    """Build the releases; return the folder of each: that of full width, then one of each format."""
    write_tasks(root, {"metric": METRIC, "aggregation": "mean", "higher_is_better": True})
    tuned.write_tasks(root)
    line = json.dumps({"text": " ".join(f"w{n % 9}" for n in range(400))})
    (root / "held.jsonl").write_text(f"{line}\n{line}\n")
    other = line.replace("w1", "w2")
    (root / "calibration.jsonl").write_text(f"{other}\n{other}\n")
    recipe = tiny.write_recipe(root / "r.yaml", MODELS, **SECTIONS)
    lock = tiny.lock(recipe)
    tried = tuned.ClosedForm(
        lambda x, y, split, number: tuned.bowl(x, y) + tuned.noise(split, number) * (1 + x / 10)
    )
    found = Tuning("sum", recipes.load(recipe), lock, recipe, root / "trials", tried, lambda _: None).run()
    searches = {"sum": lock.tuned["sum"].model_copy(update={"result": found})}
    locks.write(lock.model_copy(update={"tuned": searches}), locks.path_for(recipe))
    plan = tiny.build_locked(recipe, root / "results")
    quantized.add_to(plan, quantized.size_label(experts=3, hidden=128, intermediate=128))
    plan = evaluated(plan, METRIC)
    for one in plan.editions:
        render_card(one, one.layout.card_folder)
    return [tiny.release(one, key) for one in plan.editions]
