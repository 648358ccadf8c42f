"""Dense merges beside the real mergekit, and its own methods as a step of ours."""

import json
import subprocess
import sys

import pytest
import torch
import yaml
from pydantic import TypeAdapter

from herdbook.errors import StepError
from herdbook.inference.forward import CheckpointFolder
from herdbook.plan.merge import value_at
from herdbook.recipe.merge import Value
from herdbook.recipe.mergekit_methods import METHODS
from herdbook.tools.mergekit import MERGEKIT
from support import tiny

pytestmark = pytest.mark.slow
HERD = {name: {"folder": name} for name in ("a", "b", "c")}


@pytest.fixture(autouse=True)
def _installed():
    try:
        MERGEKIT.find()
    except StepError as error:
        pytest.skip(str(error))


@pytest.fixture
def herd(tmp_path):
    for seed, name in enumerate(HERD):
        tiny.write_model(tmp_path / name, seed=seed, layers=3)
    return tmp_path


def ours(root, merge, results="results", dtype="float32"):
    recipe = tiny.write_recipe(root / "r.yaml", {**HERD, "merged": {"merge": {**merge, "dtype": dtype}}})
    plan = tiny.build(recipe, root / results)
    return CheckpointFolder(plan.layout.folder(plan.released))


def theirs(root, config):
    (root / "config.yml").write_text(yaml.safe_dump({"dtype": "float32", **config}), encoding="utf-8")
    MERGEKIT.run([str(root / "config.yml"), str(root / "theirs")], root)
    return CheckpointFolder(root / "theirs")


def of(root, name, **parameters):
    return {"model": str(root / name), "parameters": parameters}


def pairs(root):
    """The same merges, as ours and as mergekit's."""
    a = str(root / "a")
    return {
        "linear": (
            {
                "method": "linear",
                "models": [{"model": "a", "weight": 0.3}, {"model": "b", "weight": [0.2, 0.9]}],
            },
            {
                "merge_method": "linear",
                "models": [of(root, "a", weight=0.3), of(root, "b", weight=[0.2, 0.9])],
            },
        ),
        "slerp": (
            {
                "method": "slerp",
                "base": "a",
                "other": "b",
                "t": [{"filter": "mlp", "value": [0, 1]}, {"value": 0.4}],
            },
            {
                "merge_method": "slerp",
                "base_model": a,
                "models": [{"model": a}, {"model": str(root / "b")}],
                "parameters": {"t": [{"filter": "mlp", "value": [0, 1]}, {"value": 0.4}]},
            },
        ),
        "task_arithmetic": (
            {
                "method": "task_arithmetic",
                "base": "a",
                "models": [{"model": "b", "weight": 0.4}, {"model": "c", "weight": 0.7}],
                "lambda": 0.9,
            },
            {
                "merge_method": "task_arithmetic",
                "base_model": a,
                "models": [of(root, "b", weight=0.4), of(root, "c", weight=0.7)],
                "parameters": {"lambda": 0.9},
            },
        ),
        "ties": (
            {
                "method": "ties",
                "base": "a",
                "models": [{"model": "b", "density": 0.5}, {"model": "c", "weight": 0.7, "density": 0.25}],
            },
            {
                "merge_method": "ties",
                "base_model": a,
                "models": [of(root, "b", weight=1.0, density=0.5), of(root, "c", weight=0.7, density=0.25)],
            },
        ),
        "model_stock": (
            {"method": "model_stock", "base": "a", "models": ["b", "c"]},
            {"merge_method": "model_stock", "base_model": a, "models": [of(root, "b"), of(root, "c")]},
        ),
        "passthrough": (
            {
                "method": "passthrough",
                "slices": [{"model": "a", "layers": "0-1"}, {"model": "b", "layers": "1-2"}],
            },
            {
                "merge_method": "passthrough",
                "slices": [
                    {"sources": [{"model": a, "layer_range": [0, 2]}]},
                    {"sources": [{"model": str(root / "b"), "layer_range": [1, 3]}]},
                ],
            },
        ),
    }


@pytest.mark.parametrize(
    "method", ["linear", "slerp", "task_arithmetic", "ties", "model_stock", "passthrough"]
)
def test_our_formulas_are_those_of_mergekit(herd, method):
    mine, config = pairs(herd)[method]
    found, expected = ours(herd, mine), theirs(herd, config)
    assert found.spans.keys() == expected.spans.keys()
    close = total = 0
    for name in found.spans:
        assert found.spans[name][1].dtype == expected.spans[name][1].dtype == "F32"
        close += int(torch.isclose(found[name], expected[name], rtol=1e-5, atol=1e-6).sum())
        total += found[name].numel()
    print(f"{method}: {total - close} of {total} numbers differ")
    # TIES keeps one element more or less of a tensor: mergekit rounds their number down
    assert total - close <= (2 * len(found.spans) if method == "ties" else 0)


@pytest.mark.parametrize("method", ["breadcrumbs", "della", "nuslerp"])
def test_other_methods_are_made_by_mergekit(herd, method):
    parameters = {"breadcrumbs": {"density": 0.5, "weight": 0.5}, "della": {"density": 0.5, "weight": 0.5}}
    models = [{"model": name, "parameters": parameters.get(method, {"weight": 0.5})} for name in "bc"]
    merge = {"method": method, "base": "a", "models": models, "seed": 5}
    found, again = ours(herd, merge), ours(herd, merge, "again")
    for name in found.spans:
        assert torch.isfinite(found[name]).all()
        assert found.stored(name).equal(again.stored(name)), name
    a = CheckpointFolder(herd / "a")
    assert not found["model.layers.0.mlp.up_proj.weight"].equal(a["model.layers.0.mlp.up_proj.weight"])


# Prints mergekit's description of its methods, and the values of parameters that come as JSON from standard input.
ASK = """
import json, sys
from pydantic import TypeAdapter
from mergekit.config import ParameterSetting, evaluate_setting
from mergekit.merge_methods.registry import registered_methods

methods = {}
for method in registered_methods():
    spec = method.spec
    methods[spec.name] = {
        "parameters": [[p.name, p.value_type.__name__, p.scope.value] for p in spec.parameters if p.name != "scale"],
        "required": [p.name for p in spec.parameters if p.required],
        "base": spec.contract.base.value,
        "inputs": [spec.contract.min_inputs, spec.contract.max_inputs],
        "others": [spec.contract.min_non_base, spec.contract.max_non_base],
    }
read = TypeAdapter(ParameterSetting).validate_python
values = [
    evaluate_setting(name, read(setting), depth, validate=TypeAdapter(float).validate_python)
    for setting, name, depth in json.load(sys.stdin)
]
print(json.dumps([methods, values]))
"""


def ask(settings=()):
    """Return mergekit's description of its methods, and its values of (setting, tensor, depth)."""
    _, environment = MERGEKIT.find()
    command = [sys.executable, "-P", "-c", ASK]
    answer = subprocess.run(
        command, env=environment, input=json.dumps(settings), capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def test_methods_are_described_as_in_mergekit():
    methods, _ = ask()
    kinds = {"float": "number", "int": "integer", "bool": "boolean"}
    for name, ours in METHODS.items():
        theirs = methods[name]
        parameters = {key: (kinds[kind], scope) for key, kind, scope in theirs["parameters"]}
        assert {key: (kind, "shared") for key, kind in ours.shared.items()} | {
            key: (kind, "non_base") for key, kind in ours.of_models.items()
        } == parameters, name
        assert list(ours.required) == theirs["required"], name
        assert ours.base == theirs["base"], name
        (fewest, most), others = theirs["inputs"], theirs["others"]
        if ours.models is None:
            assert most is None, name
            assert others[1] is None, name
        elif ours.base == "required":
            assert fewest == most == 1 + ours.models, name
        else:
            assert others == [ours.models] * 2, name


FORMS = [
    0.3,
    -2,
    "1e-3",
    [0.25],
    [0, 1],
    [0.1, 0.9, 0.4],
    [{"value": 0.7}],
    [{"filter": "*", "value": [0, 1]}],
    [{"filter": "mlp", "value": 0.5}],
    [{"filter": "mlp", "value": [0, 1, 3]}, {"filter": "up_proj", "value": 9}, {"value": 0.2}],
    [{"value": 0.2}, {"filter": "mlp", "value": 9}],
    [{"filter": "self_attn", "value": [1, 0]}, {"filter": "norm", "value": 4}],
]


def test_values_are_those_of_mergekit():
    tensors = [
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.norm.weight",
    ]
    asked = [
        (form, tensor, depth) for form in FORMS for tensor in tensors for depth in (0.0, 1 / 3, 0.5, 0.9, 1.0)
    ]
    _, expected = ask(asked)
    read = TypeAdapter(Value).validate_python
    for (form, tensor, depth), value in zip(asked, expected, strict=True):
        found = value_at(read(form), tensor, depth)
        assert found == (value if value is None else pytest.approx(value, abs=1e-12)), (form, tensor, depth)
