"""What strangers write that is not a configuration, a model or a shape: it ends with a message."""

import json
import re

import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Kind

from herdbook.release.finding import Outcome
from support.gguf_files import write_gguf
from support.strangers import failed, mixture, model_config, unproven, verify
from support.verification import status

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BOMB + "base_model: *z\nexperts: *l\n", "undefined alias"),
        (BOMB + "base_model: *l\nexperts: *l\n", "expands to more than"),
        ("experts: " + "[" * 1500 + "]" * 1500, "nested too deeply"),
        ("experts: &x [*x]\nbase_model: a/b", "expands to more than"),
        ("experts: [1, 2]\nbase_model: herd/base", "is not a mergekit configuration"),
        ("experts: {}\nbase_model: herd/base", "a list"),
        ("experts: [{source_model: 3}]\nbase_model: herd/base", "does not name a model"),
        (
            "experts: [{source_model: 'a/b\\x1b[2J'}]\nbase_model: !!python/object/apply:os.system ['id']",
            "YAML|constructor",
        ),
        ("experts: [{}]\nbase_model: herd/base", "source_model"),
        ("experts: [{source_model: a/b}]\nbase_model: herd/base\ndtype: int4", "dtype"),
        (
            "merge_method: passthrough\nslices: [{sources: [{model: a/b, layer_range: [0, 9999999]}]}]",
            "is not a range of layers",
        ),
        ("merge_method: [x]\nmodels: [{model: a/b}]", "is not a text"),
        ("merge_method: a b\nmodels: [{model: a/b}]", "plain word"),
        ("x: 2024-99-99\nexperts: []", "not YAML"),
        ("nothing: here", "contains no configuration"),
        ("`" * 150_000 + "\n" + "x\n" * 150_000, "contains no configuration"),
        ("\0", "YAML|special characters"),
        ("x" * 1_000_001, "more than the 1000000 bytes"),
    ],
)
def test_a_configuration_that_is_none_ends_with_one_message(stage, text, word):
    name = stage.merge({"model.norm.weight": torch.ones(4)}, files={"mergekit_moe_config.yml": text.encode()})
    found = verify(name)
    said = [one for one in found if one.outcome is not Outcome.PASSED and one.check != "unproven"]
    assert len(said) == 1
    assert re.search(word, said[0].detail), said[0].detail
    assert len(said[0].detail) < 600
    assert status(found) == 9


@pytest.mark.parametrize("shape", [(10**9, 0, 5), (2, 0, 32), (3, 7, 4)])
def test_fused_tensors_of_impossible_shapes(stage, shape):
    size = int(np.prod([float(one) for one in shape])) * 2
    head = json.dumps(
        {
            "model.layers.0.mlp.experts.gate_up_proj": {
                "dtype": "BF16",
                "shape": shape,
                "data_offsets": [0, size],
            }
        }
    ).encode()
    content = len(head).to_bytes(8, "little") + head + bytes(size)
    found = verify(stage.write({}, files={"model.safetensors": content}))
    assert failed(found) == [("merge", found[0].subject)]
    assert "is not a shape of fused experts" in found[0].detail


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "2"},
        {"num_local_experts": 10**9},
        {"num_attention_heads": [4]},
        {"rope_parameters": "none"},
        {"architectures": {"x": 1}},
        {"architectures": ["NewForCausalLM"]},
        {"model_type": ["mixtral"]},
        {"torch_dtype": {"x": []}, "dtype": [], "head_dim": {}},
    ],
)
def test_configurations_of_models_that_are_none(stage, wide, tmp_path, wrong):
    tensors, _, config = wide
    good = model_config(stage.herd / "wide-base")
    path = write_gguf(tmp_path / "x.gguf", tensors, Kind.Q4_0, good)
    model = good | wrong
    found = verify(stage.write(tensors, config, model, files={"x.gguf": path.read_bytes()}, base="wide-base"))
    assert not [one for one in found if one.outcome is Outcome.BROKEN]
    assert status(found) in {8, 9}


def test_files_with_other_weights_are_told(stage):
    files = {"pytorch_model.bin": b"x", "consolidated.safetensors": b"y"}
    found = verify(stage.merge(mixture(stage.sources, ("tuned", "other")), files=files))
    assert not failed(found)
    assert unproven(found) == {"routers", "other files"}
