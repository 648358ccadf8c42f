"""Mixtures that are what they say, and mixtures that are not."""

import pytest
import torch
from safetensors.torch import load_file

from herdbook.release.finding import Outcome
from support import tiny
from support.strangers import (
    LAYERS,
    MODELS,
    OLD,
    config_of,
    cut_ranks,
    failed,
    mixture,
    model_config,
    of,
    unproven,
    verify,
)
from support.verification import status

FAMILIES = {
    "qwen2": ("qwen2", "qwen2_moe", "shared_expert", {}),
    "qwen2 of a llama": ("llama", "qwen2_moe", "shared_expert", {}),
    "qwen3": ("qwen3", "qwen3_moe", None, {"head_dim": 8}),
    "deepseek": ("llama", "deepseek", "shared_experts", {"attention_bias": True}),
}


@pytest.mark.parametrize("layout", ["mixtral", "fused"])
@pytest.mark.parametrize("sample", [None, 40_000])
def test_a_true_mixture_is_proven_but_for_its_routers(stage, layout, sample):
    name = stage.merge(mixture(stage.sources, ("tuned", "other"), layout))
    found = verify(name, sample_bytes=sample, seed=1)
    assert not failed(found)
    assert {one.subject: one.outcome for one in of(found, "equal")} == dict.fromkeys(
        ("expert 1", "expert 2", "base"), Outcome.PASSED
    )
    assert unproven(found) == {"routers"}
    assert status(found) == 9
    assert [one.subject for one in of(found, "source", Outcome.PASSED)] == [
        f"herd/{one}" for one in ("base", "tuned", "other")
    ]
    assert all("names no commit" in one.detail for one in of(found, "source"))
    compared = of(found, "sample")[0]
    # all but two routers of 2 x 32 numbers of two bytes
    every = (
        sum(one.numel() * 2 for one in mixture(stage.sources, ("tuned", "other")).values()) - 2 * 2 * 32 * 2
    )
    assert f"of {every:,} bytes" in compared.detail
    if sample is None:
        assert f"{every:,} of {every:,}" in compared.detail


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("altered", [False, True])
def test_other_families(stage, family, altered):
    kind, made, shared, changes = FAMILIES[family]
    names = [f"{family.replace(' ', '-')}-{one}-{altered}" for one in MODELS]
    for seed, one in enumerate(names):
        tiny.write_model(stage.herd / one, seed=seed, model_type=kind, **changes)
    sources = {
        key: load_file(stage.herd / one / "model.safetensors") for key, one in zip(MODELS, names, strict=True)
    }
    tensors = mixture(sources, ("tuned", "other"), "per expert")
    config = config_of(names[1:], f"herd/{names[0]}")
    for layer in range(LAYERS if shared else 0):
        config["shared_experts"] = [{"source_model": f"herd/{names[1]}", "positive_prompts": ["w9"]}]
        block = f"model.layers.{layer}.mlp"
        for matrix in OLD:
            tensors[f"{block}.{shared}.{matrix}.weight"] = sources["tuned"][
                f"{block}.{matrix}.weight"
            ].clone()
        if made == "qwen2_moe":
            tensors[f"{block}.shared_expert_gate.weight"] = torch.ones(1, 32, dtype=torch.bfloat16) / 32**0.5
            for projection, rows in (("q_proj", 32), ("k_proj", 16), ("v_proj", 16)):
                bias = f"model.layers.{layer}.self_attn.{projection}.bias"
                tensors.setdefault(bias, torch.zeros(rows, dtype=torch.bfloat16))
    if altered:
        victim = (
            f"model.layers.1.mlp.{shared}.up_proj.weight"
            if shared
            else "model.layers.1.self_attn.q_norm.weight"
        )
        tensors[victim] = tensors[victim] * 2
    count = {"deepseek": "n_routed_experts"}.get(made, "num_experts")
    model = model_config(stage.herd / names[0], model_type=made, num_local_experts=2, **{count: 2})
    found = verify(stage.write(tensors, config, model, base=names[0]))
    part = "shared expert" if shared else "base"
    assert failed(found) == ([("equal", part)] if altered else [])
    assert len(of(found, "equal", Outcome.PASSED)) == (4 if shared else 3) - altered
    assert unproven(found) == {"routers"}


def test_experts_in_another_order_are_told_from_altered_ones(stage):
    found = verify(stage.merge(mixture(stage.sources, ("other", "tuned"))))
    assert failed(found) == [("equal", "expert 1"), ("equal", "expert 2")]
    first, second = of(found, "equal", Outcome.FAILED)
    assert "equal to herd/other, which the configuration names for expert 2 (swapped)" in first.detail
    assert "equal to herd/tuned, which the configuration names for expert 1 (swapped)" in second.detail


def test_an_expert_that_is_the_base(stage):
    found = verify(stage.write(mixture(stage.sources, ("tuned", "base"))))
    assert failed(found) == [("equal", "expert 2")]
    assert "equal to herd/base" in of(found, "equal", Outcome.FAILED)[0].detail


@pytest.mark.parametrize("layout", ["mixtral", "fused"])
def test_one_altered_bit_is_found_and_placed(stage, layout):
    tensors = mixture(stage.sources, ("tuned", "other"), layout)
    name = f"model.layers.1.{'mlp.experts.down_proj' if layout == 'fused' else 'block_sparse_moe.experts.1.w2.weight'}"
    bits = tensors[name].clone().view(torch.int16)
    bits.reshape(-1)[-1] ^= 1  # of the last expert's down_proj, in both layouts
    tensors[name] = bits.view(torch.bfloat16)
    found = verify(stage.merge(tensors))
    assert failed(found) == [("equal", "expert 2")]
    told = of(found, "equal", Outcome.FAILED)[0]
    assert "1 of 6 blocks differ, in mlp.down_proj of layer 1" in told.detail
    assert told.tensor == name


def test_a_lasered_expert_is_no_copy_of_its_source(stage):
    """All matrices of one expert are cut to half their ranks, as cards say that it was done before merging."""
    sources = stage.sources | {"cut": dict(stage.sources["tuned"])}
    for name, one in sources["cut"].items():
        if ".mlp." in name:
            sources["cut"][name] = cut_ranks(one, 0.5)
    found = verify(stage.write(mixture(sources, ("cut", "other"))))
    assert failed(found) == [("equal", "expert 1")]
    detail = of(found, "equal", Outcome.FAILED)[0].detail
    assert "nor another named model: 6 of 6 blocks differ" in detail
    assert "lasered or trained" in detail


def test_missing_and_surplus_tensors(stage):
    tensors = mixture(stage.sources, ("tuned", "other"))
    del tensors["model.layers.0.block_sparse_moe.experts.0.w1.weight"]
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(32)
    found = of(verify(stage.write(tensors)), "layout", Outcome.FAILED)
    assert [one.tensor for one in found] == [
        "model.layers.0.block_sparse_moe.experts.0.w1.weight",
        "model.layers.0.self_attn.q_proj.bias",
    ]


def test_numbers_of_the_configuration_that_are_others(stage):
    model = model_config(stage.herd / "base", rope_theta=1e6, num_experts_per_tok=1)
    found = verify(stage.write(mixture(stage.sources, ("tuned", "other")), model=model))
    assert failed(found) == [("config", "config.json")] * 2
    assert {(one.expected, one.found) for one in of(found, "config")} == {("5000.0", "1000000.0"), ("2", "1")}


@pytest.mark.parametrize(
    ("said", "made", "explained"),
    [
        ("float16", torch.float16, True),
        ("float32", torch.float32, True),
        (None, torch.float16, False),
        ("bfloat16", torch.float16, False),
    ],
)
def test_casts_are_made_again_if_the_configuration_says_so(stage, said, made, explained):
    tensors = {name: one.to(made) for name, one in mixture(stage.sources, ("tuned", "other")).items()}
    found = verify(stage.write(tensors, config_of(dtype=said)))
    assert failed(found) == ([] if explained else [("dtype", of(found, "dtype")[0].subject)])
    assert len(of(found, "equal", Outcome.PASSED)) == 3
    assert "rounding" in of(found, "dtype")[0].detail or not explained


def test_wide_sources_are_rounded_to_nearest(stage):
    wide = tiny.write_model(stage.herd / "wide", seed=1, dtype=torch.float32)
    stage.add("herd/wide", wide)
    sources = stage.sources | {"wide": load_file(wide / "model.safetensors")}
    tensors = {name: one.to(torch.bfloat16) for name, one in mixture(sources, ("wide", "other")).items()}
    found = verify(stage.write(tensors, config_of(("wide", "other"))))
    assert not failed(found)
    name = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
    cut = (sources["wide"]["model.layers.0.mlp.gate_proj.weight"].view(torch.int32) >> 16).to(torch.int16)
    found = verify(stage.write(tensors | {name: cut.view(torch.bfloat16)}, config_of(("wide", "other"))))
    assert failed(found) == [("equal", "expert 1")]  # cut off instead of rounded


def test_residual_scale_is_made_again_and_noise_is_not(stage):
    config = config_of()
    config["experts"][0]["residual_scale"] = 0.5
    config["experts"][1]["noise_scale"] = 0.1
    tensors = mixture(stage.sources, ("tuned", "other"))
    for layer in range(LAYERS):
        tensors[f"model.layers.{layer}.block_sparse_moe.experts.0.w2.weight"] *= 0.5
        tensors[f"model.layers.{layer}.block_sparse_moe.experts.1.w1.weight"] += 0.1
    found = verify(stage.write(tensors, config))
    assert not failed(found)
    assert [one.subject for one in of(found, "equal")] == ["expert 1", "base"]
    assert unproven(found) == {"routers", "noise"}
