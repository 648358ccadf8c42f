"""Time limits: from what a job moves and computes, and not from anything else."""

import dataclasses

import pytest

from herdbook import needs
from herdbook import plan as plans
from herdbook.needs import SLOW, Rates, time
from herdbook.needs.process import TORCH_BYTES
from herdbook.quantization.tensor import Typed
from herdbook.recipe.quantize import Quantize
from support import tiny


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    tiny.write_model(folder / "base")
    tiny.write_adapter(folder / "adapter", folder / "base", rank=4)
    models = {
        "base": {"folder": "base"},
        "tuned": {"adapter": "adapter", "on": "base"},
        "lasered": {"laser": "tuned", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
        "mix": {
            "moe": {
                "base": "lasered",
                "experts": [{"model": "lasered", "prompts": ["w1"]}, {"model": "base", "prompts": ["w2"]}],
            }
        },
    }
    recipe = tiny.write_recipe(folder / "recipe.yaml", models)
    tiny.lock(recipe)
    return plans.load(recipe)


def quantized(plan, *methods):
    """Return the plan with quantized files."""
    recipe = plan.recipe.model_copy(update={"quantize": Quantize(methods=list(methods))})
    return dataclasses.replace(plan, recipe=recipe)


def bigger(part, factor):
    """Return a part whose matrices have so many times the rows and columns."""
    tensors = tuple(
        dataclasses.replace(t, shape=tuple(factor * side for side in t.shape)) for t in part.tensors
    )
    return dataclasses.replace(part, tensors=tensors)


def test_a_matrix_of_mistral_s_mlp_takes_what_the_table_of_laser_says():
    """Of docs/laser.md: 241 GFLOP for the Gram matrix, 321 for its vectors, and twice the first for rank 2048."""
    found = needs.decomposition_operations((4096, 14336)) / 1e9
    assert found == pytest.approx(241 + 321 + 2 * 241, rel=2e-3)
    assert needs.decomposition_operations((14336, 4096)) / 1e9 == found


def test_a_copy_takes_the_reading_and_the_writing(plan):
    part = next(part for part in plan.nodes["mix"].parts if part.label == "expert1-1")
    # three matrices of 32 x 64 in each of two layers, two bytes an element
    assert needs.seconds(plan, part) == pytest.approx(SLOW.start + 2 * (2 * 3 * 32 * 64 * 2) / SLOW.disk)


def test_reduced_matrices_are_shared_among_threads_and_copying_is_not(plan):
    (part,) = plan.nodes["lasered"].parts
    part = bigger(part, 64)
    one, four = (needs.seconds(plan, part, threads) for threads in (1, 4))
    m, n = 64 * 32, 64 * 64
    work = 2 * (3 * n * m**2 + 14 / 3 * m**3) / SLOW.float64
    assert one - four == pytest.approx(work * 3 / 4)


def test_folding_an_adapter_takes_two_operations_an_element_and_rank(plan):
    (part,) = plan.nodes["tuned"].parts
    folded = 2 * 3 * 32 * 64
    moved = sum(2 * tensor.size_bytes for tensor in part.tensors)
    expected = SLOW.start + moved / SLOW.disk + 2 * 4 * folded / SLOW.float32
    assert needs.seconds(plan, part) == pytest.approx(expected)


def test_routers_take_a_pass_of_the_prompts_through_the_base(plan):
    routers = next(part for part in plan.nodes["mix"].parts if part.label == "routers")
    long = dataclasses.replace(
        routers, operation=dataclasses.replace(routers.operation, prompts=((("w" * 10**6,), ()),))
    )
    more = needs.seconds(plan, long) - needs.seconds(plan, routers)
    # two prompts of two bytes each before; what is around each of them is there twice, then once
    tokens = 10**6 - 2 * 2 - time.PROMPT_BYTES
    assert more == pytest.approx(2 * plan.nodes["lasered"].parameters * tokens / SLOW.float32)


def test_a_token_of_four_bytes_makes_a_quarter_of_the_reading(plan):
    routers = next(part for part in plan.nodes["mix"].parts if part.label == "routers")
    still = needs.seconds(plan, routers, rates=dataclasses.replace(SLOW, token_bytes=float("inf")))
    one, four = (
        needs.seconds(plan, routers, rates=dataclasses.replace(SLOW, token_bytes=size)) - still
        for size in (1, 4)
    )
    assert one > four > 0
    assert one == pytest.approx(4 * four, rel=1e-3)


def test_of_a_mixture_text_meets_the_chosen_experts_alone(plan):
    node = plan.nodes["mix"]
    assert node.recipe.moe.experts_per_token == 2
    one = node.recipe.model_copy(update={"moe": node.recipe.moe.model_copy(update={"experts_per_token": 1})})
    both, single = (
        time._forward_operations(dataclasses.replace(node, recipe=recipe), 1) for recipe in (node.recipe, one)
    )
    assert both == 2 * node.parameters
    assert both - single == 2 * (2 * 3 * 32 * 64)


def test_a_machine_that_is_twice_as_fast_in_everything_takes_half_the_time(plan):
    fast = Rates(SLOW.start / 2, *(2 * getattr(SLOW, field.name) for field in dataclasses.fields(SLOW)[1:-1]))
    assert fast.token_bytes == SLOW.token_bytes
    for part in plan.parts.values():
        taken = needs.seconds(plan, part, 2, fast)
        assert taken == pytest.approx(needs.seconds(plan, part, 2) / 2)
    assert needs.seconds(plan, plan.report, rates=fast) == pytest.approx(needs.seconds(plan, plan.report) / 2)
    for item in (plan.conversion, plan.released, None):
        assert needs.seconds(quantized(plan, "Q8_0"), item, rates=fast) == pytest.approx(
            needs.seconds(quantized(plan, "Q8_0"), item) / 2
        )


def test_quantizing_is_shared_among_threads_and_takes_longest_where_scales_are_searched_for(plan):
    plan = quantized(plan, "Q4_K_M", "Q8_0")
    still = dataclasses.replace(SLOW, start=0, disk=float("inf"))
    # rows of 32 hold no blocks of 256, so the plan's own types are not those of the methods
    searched, plain = (
        needs.seconds(plan, dataclasses.replace(item, tensors=(Typed("a", (4, 256), kind),)), 4, still)
        for item, kind in zip(plan.quantized, ("Q4_K", "Q8_0"), strict=True)
    )
    assert searched == pytest.approx(1024 / 4 / SLOW.quantized)
    # by `benchmarks/rates.py` 8e6 elements a second and 2e8; a limit is not to come too near
    assert searched / 17 < plain < searched / 5


def test_of_a_gguf_a_piece_is_in_memory_and_of_its_header_no_tensor(plan):
    plan = quantized(plan, "Q8_0")
    assert needs.memory_bytes(plan, plan.conversion) == TORCH_BYTES
    assert needs.memory_bytes(plan, plan.quantized[0]) < TORCH_BYTES


def test_memory_of_the_release_grows_with_the_tensors_and_not_with_their_sizes(plan):
    tensors = sum(len(part.tensors) for part in plan.parts.values())
    assert needs.memory_bytes(plan, None) == 150_000_000 + 20_000 * tensors
