"""Which quantized file copies from which: small cases by hand, and every ladder without a cycle."""

import dataclasses
import random
from graphlib import TopologicalSorter
from types import SimpleNamespace

import pytest

from herdbook import needs
from herdbook import plan as plans
from herdbook.needs import SLOW
from herdbook.plan.job import find
from herdbook.plan.jobs import result_jobs
from herdbook.plan.quantize import Quantized
from herdbook.plan.siblings import LONGEST, effort, left_to_encode, siblings
from herdbook.quantization.effort import speed
from herdbook.quantization.methods import METHODS
from herdbook.quantization.mixture import Choices, Traits, choose_types
from herdbook.quantization.tensor import Typed
from herdbook.quantization.types import TYPES, encoding
from support import tiny

MATRIX = SimpleNamespace(key="m")


def file(name, types, imatrix=None, budget=None):
    """Return a file whose tensors a, b, c, ... have 2560 weights each."""
    tensors = tuple(
        Typed(letter, (10, 256), kind) for letter, kind in zip("abcdefghijkl", types, strict=False)
    )
    return Quantized(name, name, f"{name}.gguf", 0, "", tensors, {}, imatrix=imatrix, budget=budget)


def chosen(*files):
    found = siblings(files)
    return {item.method: tuple(other.method for other in found[item.id]) for item in files}


def test_a_mixture_copies_from_files_of_one_type_and_first_from_the_one_that_saves_it_most():
    small, mixed, wide = (
        file("small", ["Q4_K"] * 4),
        file("mixed", ["Q4_K", "Q4_K", "Q4_K", "Q6_K"]),
        file("wide", ["Q6_K"] * 4),
    )
    # of the work 3 + 1/1.2 of the mixture, the first saves 3 and the second 1/1.2; they have no tensor in common
    expected = {"mixed": ("small", "wide"), "small": (), "wide": ()}
    assert chosen(mixed, wide, small) == chosen(small, mixed, wide) == expected
    found = siblings([small, mixed, wide])
    assert left_to_encode(mixed, found[mixed.id]) == []
    assert [one.name for one in left_to_encode(mixed, [small])] == ["d"]


def test_a_file_waits_for_none_that_saves_little_of_its_work_or_of_the_others():
    # in units of a tensor's weights: Q6_K costs 1/1.2, Q5_K 1, Q3_K 1/5
    whole = file("whole", ["Q6_K"] * 12)
    assert effort(whole, whole.tensors[0]) == pytest.approx(2560 / 1.2)
    one, two = (file("few", ["Q6_K"] * count + ["Q4_0"] * (12 - count)) for count in (1, 2))
    assert chosen(whole, one)["few"] == ()  # most of its own work, but 0.83 of the 10 of the other
    assert chosen(whole, two)["few"] == ("whole",)  # 1.67 of these 10
    cheap = file("cheap", ["Q3_K"] * 12)
    one, two = (file("most", ["Q3_K"] * count + ["Q5_K"] * (12 - count)) for count in (3, 6))
    assert chosen(cheap, one)["most"] == ()  # 0.6 of the 9.6 that it takes
    assert chosen(cheap, two)["most"] == ("cheap",)  # 1.2 of the 7.2


def test_nobody_waits_so_long_that_the_ladder_is_much_slower_on_many_machines():
    wide = file("wide", ["Q6_K"] * 12)
    mixed = file("mixed", ["Q6_K"] * 4 + ["Q5_K"] * 8)
    # it would be finished after 10 + 8, and alone after 8 + 4/1.2
    assert chosen(wide, mixed) == {"wide": (), "mixed": ()}
    # with the other file of which it is made, it is finished as soon as this one is
    assert chosen(wide, mixed, file("small", ["Q5_K"] * 12)) == {
        "wide": (),
        "small": (),
        "mixed": ("small", "wide"),
    }


def test_what_is_encoded_as_fast_as_it_is_copied_is_not_waited_for():
    for kind in ("Q8_0", "F16", "BF16", "F32", "Q4_0"):
        assert chosen(file("one", [kind] * 4), file("two", [kind] * 4)) == {"one": (), "two": ()}
    # with an importance matrix, scales of legacy types are searched for
    assert chosen(file("one", ["Q4_0"] * 4, MATRIX), file("two", ["Q4_0"] * 4, MATRIX)) == {
        "one": (),
        "two": ("one",),
    }


def test_bytes_are_shared_only_with_the_same_importance_matrix_unless_the_type_ignores_it():
    weighed, plain = file("weighed", ["Q4_K"] * 4, MATRIX), file("plain", ["Q4_K"] * 4)
    assert chosen(weighed, plain) == {"weighed": (), "plain": ()}
    assert left_to_encode(plain, [weighed]) == list(plain.tensors)
    assert encoding("Q8_0", "m") == encoding("Q8_0", None) == encoding("Q8_0", "other")
    assert len({encoding("Q4_K", "m"), encoding("Q4_K", None), encoding("Q4_K", "other")}) == 3


def test_types_within_a_budget_are_not_known_so_that_nobody_waits_for_them():
    exact, within = file("exact", ["Q4_K"] * 4), file("within", ["Q4_K"] * 4, budget=4.5)
    assert chosen(within, exact) == {"within": (), "exact": ()}
    assert left_to_encode(within, [exact]) == list(within.tensors)


def ladder(matrix, methods=tuple(METHODS)):
    """Return files of a model of Llama's kind with these methods."""
    shapes = {"token_embd.weight": (4096, 1024), "output.weight": (4096, 1024), "output_norm.weight": (1024,)}
    for layer in range(16):
        for name, shape in (
            ("attn_q", (1024, 1024)),
            ("attn_k", (256, 1024)),
            ("attn_v", (256, 1024)),
            ("ffn_down", (1024, 2816)),
            ("ffn_up", (2816, 1024)),
            ("ffn_gate", (2816, 1024)),
        ):
            shapes[f"blk.{layer}.{name}.weight"] = shape
    traits = Traits("llama", 16, 0, 16, 4)
    return [
        Quantized(
            name,
            name,
            f"{name}.gguf",
            0,
            "",
            choose_types(shapes, traits, METHODS[name], Choices(matrix=matrix)),
            {},
            imatrix=MATRIX if matrix else None,
            budget=4.5 if name == "Q3_K_L" else None,
        )
        for name in methods
    ]


@pytest.mark.parametrize("matrix", [True, False])
def test_in_every_order_and_choice_of_methods_nobody_waits_in_a_circle_or_long(matrix):
    generator = random.Random(7)
    files = ladder(matrix)
    first = siblings(files)
    assert sum(map(len, first.values())) > 10
    for _ in range(20):
        some = generator.sample(files, generator.randint(1, len(files)))
        found = siblings(some)
        names = {item.id for item in some}
        assert found.keys() == names
        if len(some) == len(files):
            assert found == first
        graph = {item: {other.id for other in others} for item, others in found.items()}
        assert all(others <= names - {item} for item, others in graph.items())
        depth = {}
        for item in TopologicalSorter(graph).static_order():  # raises CycleError
            depth[item] = 1 + max((depth[other] for other in graph[item]), default=-1)
        assert max(depth.values()) <= LONGEST
    shuffled = generator.sample(files, len(files))
    assert siblings(shuffled) == first


def test_every_type_has_a_speed_and_an_importance_matrix_makes_none_faster():
    for kind in TYPES:
        assert 0 < speed(kind, matrix=True) <= speed(kind, matrix=False)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    tiny.write_model(folder / "base", hidden=256, intermediate=512)
    methods = ["Q6_K", "Q4_K_M", "Q4_K_S"]
    recipe = tiny.write_recipe(
        folder / "recipe.yaml", {"base": {"folder": "base"}}, quantize={"methods": methods}
    )
    tiny.lock(recipe)
    return plans.load(recipe)


def test_neither_keys_nor_the_inputs_of_a_job_depend_on_what_it_copies(plan):
    jobs = result_jobs(plan)
    mixed = find(jobs, "quantize", "Tiny.Q4_K_M")
    assert mixed.copied[:2] == find(jobs, "quantize", "Tiny.Q4_K_S").outputs
    assert not set(mixed.copied) & set(mixed.inputs)
    (file,) = [one for one in plan.recipe.quantize.methods if one == "Q4_K_M"]
    alone = plan.recipe.model_copy(
        update={"quantize": plan.recipe.quantize.model_copy(update={"methods": [file]})}
    )
    (same,) = [job for job in result_jobs(dataclasses.replace(plan, recipe=alone)) if job.rule == "quantize"]
    assert same.copied == ()
    assert (same.key, same.id, same.inputs, same.outputs) == (
        mixed.key,
        mixed.id,
        mixed.inputs,
        mixed.outputs,
    )


def test_what_is_copied_costs_no_encoding_unless_the_job_is_alone(plan):
    still = dataclasses.replace(SLOW, start=0, disk=float("inf"))
    _, mixed, small = plan.quantized
    assert needs.seconds(plan, small, rates=still) == needs.seconds(plan, small, rates=still, alone=True) > 0
    left = left_to_encode(mixed, plan.siblings[mixed.id])
    assert len(left) < len(mixed.tensors)
    found = needs.seconds(plan, mixed, rates=still)
    assert found == pytest.approx(sum(effort(mixed, one) for one in left) / SLOW.quantized)
    assert found < needs.seconds(plan, mixed, rates=still, alone=True)
