"""Routers: what they cannot be, by what the configuration says of them."""

import pytest
import torch

from herdbook.release.finding import Outcome
from support.strangers import config_of, mixture, of, verify


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("equal", "all rows are equal"),
        ("zero", "all rows are zero"),
        ("long", "`gate_mode: hidden` makes 0.98 to 1.02"),
    ],
)
def test_routers_that_cannot_be_what_is_said(stage, how, word):
    tensors = mixture(stage.sources, ("tuned", "other"))
    for name in [one for one in tensors if one.endswith(".gate.weight")]:
        rows = tensors[name]
        tensors[name] = {"equal": rows[:1].repeat(2, 1), "zero": rows * 0, "long": rows * 2}[how]
    found = verify(stage.write(tensors))
    assert {one.check for one in found if one.outcome is Outcome.FAILED} == {
        "gate" if how == "long" else "routers"
    }
    assert any(word in one.detail for one in found if one.outcome is Outcome.FAILED)


@pytest.mark.parametrize(
    ("gate", "draw"),
    [
        ("random", torch.randn),
        ("uniform_random", lambda shape: (torch.rand(shape) * 2 - 1) / 32**0.5),
    ],
)
def test_drawn_routers(stage, gate, draw):
    torch.manual_seed(3)
    for seeming, outcome in ((gate, Outcome.PASSED), ("hidden", Outcome.FAILED)):
        tensors = mixture(stage.sources, ("tuned", "other"))
        routers = [one for one in tensors if one.endswith(".gate.weight")]
        tensors |= {name: draw((2, 32)).to(torch.bfloat16) for name in routers}
        found = verify(stage.write(tensors, config_of(gate_mode=seeming)))
        assert [one.outcome for one in of(found, "gate")] == [outcome]
        assert ("draws them at random" in of(found, "unproven")[0].detail) == (seeming == gate)


def test_the_same_router_in_every_layer(stage):
    tensors = mixture(stage.sources, ("tuned", "other"))
    first = tensors["model.layers.0.block_sparse_moe.gate.weight"]
    same = tensors | {"model.layers.1.block_sparse_moe.gate.weight": first.clone()}
    for gate, held, wrong in (
        ("cheap_embed", same, False),
        ("cheap_embed", tensors, True),
        ("hidden", same, True),
        ("hidden", tensors, False),
    ):
        found = verify(stage.write(held, config_of(gate_mode=gate)))
        assert bool(of(found, "routers", Outcome.FAILED)) is wrong, gate
