"""Code in keys against what steps really import, one step after another on small models."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from support import imported, loaded, tiny
from support.boards import BOARD

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[1] / "data" / "quantize"
PROMPTS = ("w1 w2", "w9 w8")


def mixture(base, **entry):
    experts = entry.pop("experts", [{}, {}])
    given = [
        {
            "model": model,
            **({} if str(entry.get("gate", "")).startswith(("random", "uniform")) else {"prompts": [p]}),
            **more,
        }
        for model, p, more in zip(("base", "other"), PROMPTS, experts, strict=True)
    ]
    return {"moe": {"base": base, "experts": given, **entry}}


def laser(rank, **entry):
    return {"laser": "base", "rank": rank, "matrices": ["mlp.down_proj"], **entry}


SVD_LLM = {"svd-llm": {"fraction": 0.5}}
MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "tuned": {"adapter": "adapter", "on": "base"},
    "cut": laser({"fraction": 0.5}),
    "whitened": laser(SVD_LLM, calibration="c"),
    "searched": laser({"fraction": 0.9}, calibration="c", guard={}),
    "selected": laser({"fraction": 0.9}, calibration="c", select={"count": 1, "by": "gradient"}),
    "linear": {
        "merge": {
            "method": "linear",
            "models": [{"model": "base", "weight": 1}, {"model": "other", "weight": 1}],
        }
    },
    "dare": {
        "merge": {
            "method": "dare_ties",
            "base": "base",
            "models": [{"model": "other", "weight": 1, "density": 0.5}],
        }
    },
    "stacked": {
        "merge": {"method": "passthrough", "slices": [{"model": "base", "layers": "0-1", "scale": 0.5}]}
    },
    "theirs": {"merge": {"method": "karcher", "models": [{"model": "base"}, {"model": "other"}]}},
    "della": {
        "merge": {
            "method": "della",
            "base": "base",
            "models": [{"model": "other", "parameters": {"weight": 1, "density": 0.5}}],
        }
    },
    "hidden": mixture("cut", gate="hidden"),
    "templated": mixture("base", gate="cheap_embed"),
    "ridge": mixture("base", gate="ridge"),
    "random": mixture("base", gate="random"),
    "bits": mixture("base", gate="hidden", semantics="mergekit-0.1.5"),
    "noisy": mixture("base", gate="random", experts=[{"noise_scale": 0.1}, {"residual_scale": 0.5}]),
    "wide": mixture("base", gate="random", dtype="float32"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Make models in every way, a release with all that belongs to one, and a GGUF file; return what was imported."""
    folder = tmp_path_factory.mktemp("imported")
    spec = importlib.util.spec_from_file_location("small_models", DATA / "small_models.py")
    small_models = importlib.util.module_from_spec(spec)
    sys.modules["small_models"] = small_models  # its dataclass looks itself up
    spec.loader.exec_module(small_models)
    tiny.write_model(folder / "base", seed=1)
    tiny.write_model(folder / "other", seed=2, shards=2)
    tiny.write_adapter(folder / "adapter", folder / "base", seed=3)
    lines = [json.dumps({"text": " ".join(f"w{(7 * n + k) % 60}" for k in range(100))}) for n in range(80)]
    (folder / "calibration.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    held = [line.replace("w1", "w2") for line in lines]
    (folder / "held.jsonl").write_text("\n".join(held) + "\n", encoding="utf-8")
    tiny.write_task(folder / "task.yaml")
    (folder / "board.csv").write_text("name,score\nother,9.5\n", encoding="utf-8")
    (folder / "recipes").mkdir()
    text = {"c": {"data": ["../calibration.jsonl"], "split": "validation", "windows": 30, "tokens": 16}}
    held_out = {"held": {**text["c"], "data": ["../held.jsonl"]}}
    measured = {"tasks": ["../task.yaml"], "limit": 1}

    def write(name, models, **sections):
        path = tiny.write_recipe(folder / "recipes" / f"{name}.yaml", models, **sections)
        tiny.lock(path)

    def beside(entry):
        return {key: f"../{value}" if key in {"folder", "adapter"} else value for key, value in entry.items()}

    models = {name: beside(entry) for name, entry in MODELS.items()}
    measurements = {**measured, "models": list(models)}
    write(
        "models",
        models,
        calibration=text,
        evaluate=measurements,
        quantize={"schemes": ["FP8_DYNAMIC"]},
    )
    some = {name: models[name] for name in ("base", "other", "cut", "hidden")}
    write(
        "release",
        some,
        calibration=text,
        routing={"texts": ["c"]},
        evaluate={**measured, "models": ["base", "hidden"]},
        leaderboards={"board": {**BOARD, "snapshot": "../board.csv", "score_column": "score"}},
    )
    tiny.write_model(folder / "broad", seed=5, hidden=64)
    write(
        "macs",
        {"broad": {"folder": "../broad"}},
        calibration=held_out,
        quantize={"schemes": ["MLX_6BIT"], "loss": {"texts": ["held"]}},
    )
    odd = small_models.MODELS["odd"]
    small_models.write_folder(odd, folder / "odd")
    small_models.write_gguf(odd, folder / "full.gguf")
    tiny.write_tokenizer(folder / "odd", small_models.config(odd)["vocab_size"])
    write(
        "gguf",
        {"odd": {"folder": "../odd"}},
        release={"name": "Small"},
        quantize={
            "methods": ["Q8_0"],
            "evaluate": True,
            "imatrix": {"texts": ["c"]},
            "loss": {"texts": ["held"]},
        },
        calibration=text | held_out,
        evaluate={**measured, "models": ["odd"]},
    )
    seen = imported.run(folder)
    for sums in folder.rglob("release/SHA256SUMS"):
        loaded.check(sums.parent)
    return seen


def test_a_step_imports_nothing_that_its_key_lacks(found):
    assert {rule for rule, _, _ in (name.partition(": ")[2].partition(" ") for name in found)} == {
        "fetch", "files", "assemble", "adapter", "laser", "search", "merge", "moe", "compress", "routing", "evaluate", "convert",
        "imatrix", "quantize", "reference", "loss", "card", "release", "attest", "verify",
    }  # fmt: skip
    lacking = {
        name: sorted(set(made["imported"]) - set(made["key"]))
        for name, made in found.items()
        if made["key"] and set(made["imported"]) - set(made["key"])
    }
    assert lacking == {}


def test_what_is_fetched_or_linked_alone_depends_on_no_code(found):
    without = {name.partition(": ")[2] for name, made in found.items() if not made["key"]}
    assert {name.partition(" ")[0] for name in without} == {"fetch", "files", "assemble"}
