"""An audit of what the real mergekit makes by every dense method: passed as it is, failed if it is changed."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from herdbook.errors import StepError
from herdbook.importing.methods import ALL
from herdbook.release.finding import Outcome
from support.mergekit import MERGEKIT, merge_all
from support.strangers import failed, of, unproven, verify

pytestmark = pytest.mark.slow
SPARSE = {"weight": [0.5, 0.8], "density": [0.5, 0.7]}
# By method: whether it has a base, the models besides it, their parameters, and those of the merge.
MERGES = {
    "arcee_fusion": (True, ["tuned"], {}, {}),
    "breadcrumbs": (True, ["tuned", "other"], SPARSE, {"gamma": 0.02}),
    "breadcrumbs_ties": (True, ["tuned", "other"], SPARSE, {"rescale": True}),
    "dare_linear": (True, ["tuned", "other"], SPARSE, {}),
    "dare_ties": (True, ["tuned", "other"], SPARSE, {"lambda": 0.9}),
    "della": (True, ["tuned", "other"], SPARSE, {"epsilon": 0.1}),
    "della_linear": (True, ["tuned", "other"], SPARSE, {"epsilon": 0.1}),
    "karcher": (False, ["base", "tuned", "other"], {}, {"max_iter": 5}),
    "linear": (False, ["tuned", "other"], {"weight": [0.3, [0.2, 0.7]]}, {}),
    "model_stock": (True, ["tuned", "other"], {}, {}),
    "multislerp": (False, ["tuned", "other"], {"weight": [0.3, 0.5]}, {}),
    "nearswap": (True, ["tuned"], {}, {"t": 0.1}),
    "nuslerp": (False, ["tuned", "other"], {"weight": [0.3, 0.5]}, {}),
    "passthrough": (False, ["tuned"], {"scale": [0.5]}, {}),
    "ram": (True, ["tuned", "other"], {}, {"epsilon": 0.1}),
    "ramplus_tl": (True, ["tuned", "other"], {}, {"epsilon": 0.1}),
    "sce": (True, ["tuned", "other"], {}, {"select_topk": 0.5}),
    "slerp": (True, ["base", "other"], {}, {"t": [{"filter": "mlp", "value": [0, 1]}, {"value": 0.4}]}),
    "task_arithmetic": (True, ["tuned", "other"], {"weight": [0.4, 0.7]}, {"lambda": 0.9}),
    "ties": (True, ["tuned", "other"], SPARSE, {}),
}
DRAWN = {"dare_linear", "dare_ties", "della", "della_linear"}


def configuration(method, names):
    has_base, models, of_models, parameters = MERGES[method]
    entries = [
        {"model": names(name), "parameters": {key: values[place] for key, values in of_models.items()}}
        for place, name in enumerate(models)
    ]
    return {
        "merge_method": method,
        "models": entries,
        "parameters": parameters,
        "dtype": "bfloat16",
        **({"base_model": names("base")} if has_base else {}),
    }


@pytest.fixture(scope="module")
def merges(stage):
    """The merges, made by mergekit in one process."""
    try:
        MERGEKIT.find()
    except StepError as error:
        pytest.skip(str(error))
    made = {
        stage.root / f"{method}": configuration(method, lambda name: str(stage.herd / name))
        for method in MERGES
    }
    merge_all(made)
    for method in MERGES:
        named = configuration(method, lambda name: f"herd/{name}")
        (stage.root / f"{method}.yml").write_text(yaml.safe_dump(named))
    return stage.root


def test_every_method_is_here():
    assert MERGES.keys() == ALL.keys()


@pytest.mark.parametrize("method", MERGES)
def test_what_mergekit_makes_passes_and_a_change_fails(merges, tmp_path, method):
    found = verify(merges / method)
    assert not failed(found)
    passed = of(found, "made", Outcome.PASSED)
    assert sum(int(one.subject.partition(" ")[0]) for one in passed) == 21
    if method in DRAWN:
        assert "drawn" in unproven(found)
    else:
        # a scaled model is written as a sum of it alone
        title = "linear" if method == "passthrough" else method
        assert [f"{title}: equal in bits" in one.detail for one in passed] == [True]
    # one number of one tensor is another
    weights = next((merges / method).glob("*.safetensors"))
    tensors = load_file(weights)
    name = "model.layers.1.mlp.gate_proj.weight"
    tensors[name] = tensors[name].clone()
    tensors[name][3, 5] += 2
    folder = tmp_path / "altered"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text((merges / method / "config.json").read_text())
    assert ("made", name) in failed(verify(folder, merges / f"{method}.yml"))
    # two models in each other's place
    _, models, _, _ = MERGES[method]
    if len(models) > 1 and method not in {"model_stock", "karcher", "ram", "ramplus_tl", "sce"}:
        config = yaml.safe_load((merges / f"{method}.yml").read_text())
        first, second = config["models"][:2]
        first["model"], second["model"] = second["model"], first["model"]
        if method == "slerp":
            config["base_model"] = "herd/other"
        swapped = merges / f"{method}-swapped.yml"
        swapped.write_text(json.dumps(config))
        assert any(check == "made" for check, _ in failed(verify(merges / method, swapped)))


def test_sums_of_three_models_are_told_from_other_weights(merges, stage):
    """A merge computed in float32 on other hardware differs by roundings; with another weight it does not pass."""
    config = configuration("task_arithmetic", lambda name: f"herd/{name}")
    for weight, passes in ((0.4, True), (0.38, False)):
        tensors = {}
        for name, base in stage.sources["base"].items():
            one, other = (stage.sources[model][name].double() - base.double() for model in ("tuned", "other"))
            tensors[name] = (base.double() + 0.9 * (weight * one + 0.7 * other)).to(torch.bfloat16)
        model = json.loads((stage.herd / "base/config.json").read_text())
        found = verify(stage.merge(tensors, config, model))
        assert (not failed(found)) is passes
