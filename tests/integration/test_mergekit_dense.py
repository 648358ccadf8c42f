"""Dense merges beside the real mergekit, and its own methods as a step of ours."""

import json

import pytest
import torch
import yaml
from pydantic import TypeAdapter

from herdbook.errors import StepError
from herdbook.inference.forward import CheckpointFolder
from herdbook.plan.merge_values import value_at
from herdbook.recipe.merge import Value
from herdbook.recipe.mergekit_methods import METHODS
from support import tiny, tools
from support.mergekit import MERGEKIT, merge_all

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mergekit", "same_draw")]
HERD = {name: {"folder": name} for name in ("a", "b", "c")}


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


# -- the same bits -----------------------------------------------------------------------------------------------------------

LIST = [0.2, 0.9, 0.35]
MIXED = [{"filter": "mlp", "value": LIST}, {"value": 0.4}]
SPARSE = {"weight": [0.5, LIST], "density": [0.5, [0.9, 0.3]]}
MIXED_SPREAD = [{"filter": "mlp", "value": [0.1, 0.05]}, {"value": 0.02}]
RANDOM = {"weight": [0.5, LIST], "density": [[0.8, 1.0], [0.7, 0.3]]}
DTYPES = {
    "as stored": {},
    "bfloat16": {"dtype": "bfloat16"},
    "float32 to bfloat16": {"dtype": "float32", "out_dtype": "bfloat16"},
    "bfloat16 to float16": {"dtype": "bfloat16", "out_dtype": "float16"},
}


def flat(names="bc", **parameters):
    """Return entries of a method of ours."""
    return [
        {"model": name, **{key: values[index] for key, values in parameters.items()}}
        for index, name in enumerate(names)
    ]


def nested(names="bc", **parameters):
    """Return entries of a method with mergekit's names."""
    return [{"model": entry.pop("model"), "parameters": entry} for entry in flat(names, **parameters)]


# Merges by name: our entry without semantics, and mergekit's models and parameters.
BITS = {
    "linear": ({"models": flat(weight=[0.3, LIST])}, nested(weight=[0.3, LIST]), {}),
    "linear, a sum": (
        {"models": flat(weight=[0.3, MIXED]), "normalize": False},
        nested(weight=[0.3, MIXED]),
        {"normalize": False},
    ),
    "slerp": ({"base": "a", "other": "b", "t": MIXED}, nested("ab"), {"t": MIXED}),
    "task_arithmetic, the base listed": (
        {"base": "a", "models": flat("abc")[:1] + flat(weight=[0.4, LIST]), "lambda": 0.9, "normalize": True},
        nested("a") + nested(weight=[0.4, LIST]),
        {"lambda": 0.9, "normalize": True},
    ),
    "ties": ({"base": "a", "models": flat(**SPARSE)}, nested(**SPARSE), {}),
    "ties, rescaled": (
        {
            "base": "a",
            "models": flat(weight=[1.0, -0.5], density=[0.5, LIST]),
            "rescale": True,
            "normalize": False,
            "lambda": [0.5, 1.5],
        },
        nested(weight=[1.0, -0.5], density=[0.5, LIST]),
        {"rescale": True, "normalize": False, "lambda": [0.5, 1.5]},
    ),
    "model_stock, the base listed": ({"base": "a", "models": ["b", "a", "c"]}, nested("bac"), {}),
    "model_stock, by row": (
        {"base": "a", "models": ["b", "c"], "filter_wise": True},
        nested("bc"),
        {"filter_wise": True},
    ),
    "breadcrumbs": (None, nested(**SPARSE), {"gamma": 0.02, "lambda": 0.8}),
    "breadcrumbs_ties": (None, nested(**SPARSE), {"normalize": True, "rescale": True, "int8_mask": True}),
    "dare_linear": (
        {"base": "a", "models": flat(**SPARSE), "normalize": True},
        nested(**SPARSE),
        {"normalize": True},
    ),
    "dare_ties, not rescaled": (
        {"base": "a", "models": flat(**SPARSE), "rescale": False, "lambda": 0.7},
        nested(**SPARSE),
        {"rescale": False, "lambda": 0.7},
    ),
    "della": (None, nested(**RANDOM), {"epsilon": MIXED_SPREAD}),
    "della_linear": (None, nested(epsilon=[0.05, [0.1, 0.2]], **RANDOM), {"lambda": 0.8, "rescale": False}),
    "arcee_fusion": (None, nested("b"), {}),
    "nuslerp": (None, nested(weight=[0.5, LIST]), {}),
    "nuslerp, by column": (None, nested(weight=[0.5, LIST]), {"nuslerp_flatten": False}),
    "nuslerp, by row": (
        None,
        nested(weight=[0.5, LIST]),
        {"nuslerp_flatten": False, "nuslerp_row_wise": True},
    ),
    "nearswap": (None, nested("b"), {"t": [0.01, 0.3]}),
    "karcher": (None, nested("abc"), {"max_iter": 5, "tol": "1e-9"}),
    "multislerp": (None, nested("abc", weight=[0.3, 0.5, LIST]), {"normalize_weights": False}),
    "ram": (None, nested(), {"epsilon": 0.1}),
    "ramplus_tl": (None, nested(), {"r": 0.5, "epsilon": "1e-1"}),
    "sce": (None, nested(), {"select_topk": [0.3, 0.8]}),
}
# mergekit leaves these in float32, whatever their configuration states.
LEFT_WIDE = {("ramplus_tl", "bfloat16"), ("arcee_fusion", "bfloat16"), ("arcee_fusion", "as stored")}
WITHOUT_BASE = ("linear", "karcher", "multislerp")


def method_of(merge):
    return merge.split(",", maxsplit=1)[0]


def as_ours(merge):
    """Return our entry of one of these merges."""
    own, models, parameters = BITS[merge]
    method = method_of(merge)
    if own is not None:
        return {"method": method, "semantics": "mergekit-0.1.5", **own}
    base = {} if method in WITHOUT_BASE else {"base": "a"}
    return {"method": method, **base, "models": models, "parameters": parameters}


def as_theirs(merge, root):
    """Return mergekit's configuration of one of these merges."""
    _, models, parameters = BITS[merge]
    return {
        "merge_method": method_of(merge),
        "models": [of(root, entry["model"], **entry.get("parameters", {})) for entry in models],
        "parameters": parameters,
        **({} if method_of(merge) in WITHOUT_BASE else {"base_model": str(root / "a")}),
    }


def same_bits(found, expected):
    assert found.spans.keys() == expected.spans.keys()
    for name in found.spans:
        assert found.spans[name][1].dtype == expected.spans[name][1].dtype, name
        assert found.stored(name).equal(expected.stored(name)), name


@pytest.fixture(scope="module")
def mixed_herd(tmp_path_factory):
    """Three models of which one is of another dtype, and all merges of them by mergekit."""
    try:
        MERGEKIT.find()
    except StepError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("mixed")
    for seed, name in enumerate(HERD):
        dtype = torch.float32 if name == "c" else torch.bfloat16
        tiny.write_model(root / name, seed=seed, layers=3, dtype=dtype)
    merge_all(
        {
            root / f"{merge} {dtype}": {**as_theirs(merge, root), **settings}
            for merge in BITS
            for dtype, settings in DTYPES.items()
        }
    )
    return root


def build_as(root, results, merge):
    recipe = tiny.write_recipe(root / "r.yaml", {**HERD, "merged": {"merge": merge}})
    plan = tiny.build(recipe, root / results)
    return CheckpointFolder(plan.layout.folder(plan.released))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("merge", BITS)
def test_the_bits_are_those_of_mergekit(mixed_herd, merge, dtype):
    found = build_as(mixed_herd, "results", {**as_ours(merge), **DTYPES[dtype]})
    expected = CheckpointFolder(mixed_herd / f"{merge} {dtype}")
    if (merge, dtype) in LEFT_WIDE:
        assert {span.dtype for _, span in expected.spans.values()} == {"F32"}
        for name in found.spans:
            assert found.stored(name).equal(expected.stored(name).bfloat16()), name
        return
    same_bits(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scaled_slices_have_the_bits_of_mergekit(mixed_herd, tmp_path, dtype):
    root = mixed_herd
    scales = {"a": 0.5, "c": [{"filter": "o_proj", "value": 0.0}, {"value": LIST}]}
    slices = {"a": (0, 1), "c": (0, 2)}
    mine = [
        {"model": name, "layers": f"{first}-{last}", "scale": scales[name]}
        for name, (first, last) in slices.items()
    ]
    sources = [
        {"sources": [{**of(root, name, scale=scales[name]), "layer_range": [first, last + 1]}]}
        for name, (first, last) in slices.items()
    ]
    config = {"merge_method": "passthrough", "slices": sources, **DTYPES[dtype]}
    merge_all({tmp_path / "theirs": config})
    entry = {"method": "passthrough", "semantics": "mergekit-0.1.5", "slices": mine, **DTYPES[dtype]}
    same_bits(build_as(root, "stacks", entry), CheckpointFolder(tmp_path / "theirs"))


# Types with files of architectures in mergekit, and two (gpt_neo, opt) whose layers it infers. Of GPT-NeoX it wants tensors that
# transformers no longer writes.
OTHERS = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "stablelm": {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64},
    "falcon": {
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "new_decoder_architecture": True,
        "tie_word_embeddings": False,
    },
    "gpt_neo": {
        "num_layers": 3,
        "num_heads": 4,
        "attention_types": [[["global"], 3]],
        "intermediate_size": 64,
    },
    "opt": {"num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 32},
}


def test_lists_are_spread_as_by_mergekit_over_layers_of_any_name(tmp_path):
    for kind, sizes in OTHERS.items():
        for seed, name in enumerate(HERD):
            tiny.write_other_model(tmp_path / kind / name, kind, seed=seed, **{"hidden_size": 32, **sizes})
    ties = {"method": "ties", "base": "a", "models": flat(**SPARSE), "semantics": "mergekit-0.1.5"}
    merge_all(
        {
            tmp_path / kind / "theirs": {
                "merge_method": "ties",
                "base_model": str(tmp_path / kind / "a"),
                "models": [
                    of(tmp_path / kind, entry["model"], **entry["parameters"]) for entry in nested(**SPARSE)
                ],
            }
            for kind in OTHERS
        }
    )
    for kind in OTHERS:
        found = build_as(tmp_path / kind, "results", ties)
        expected = CheckpointFolder(tmp_path / kind / "theirs")
        assert found.spans.keys() >= expected.spans.keys(), kind
        for name in expected.spans:
            assert found.stored(name).equal(expected.stored(name)), (kind, name)
        print(kind, len(expected.spans), sorted(found.spans.keys() - expected.spans.keys()))


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
        "defaults": {p.name: p.default for p in spec.parameters if not p.required and p.name != "scale"},
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
    return json.loads(tools.with_mergekit(ASK, settings).splitlines()[-1])


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
        assert ours.defaults == theirs["defaults"], name
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
        assert found == value, (form, tensor, depth)
