"""Methods in mergekit's bits, against loops over single numbers and closed forms; the bits themselves: tests/integration."""

import math

import pytest
import torch

from herdbook.errors import RecipeError
from herdbook.inference.forward import CheckpointFolder
from herdbook.plan import load
from herdbook.plan.merge_values import values_of
from herdbook.recipe.merge import Mergekit
from herdbook.steps.merge.as_mergekit import merge_as_mergekit
from support import tiny

NAME = "model.layers.0.mlp.up_proj.weight"
PLAIN = {"normalize": False, "scale": 1.0}


def draw(count, size=40, seed=0):
    return list(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)))


def unit(tensor):
    return tensor / tensor.norm()


def sign(number):
    return (number > 0) - (number < 0)


def test_task_vectors_are_computed_in_the_dtype_of_the_inputs():
    base, one, other = (tensor.bfloat16() for tensor in draw(3))
    values = {"weights": [0.3, 0.7], "normalize": False, "scale": 1.0}
    found = merge_as_mergekit("task_arithmetic", [base, one, other], NAME, values)
    rounded = [float(torch.tensor(weight).bfloat16()) for weight in values["weights"]]
    expected = []
    for b, x, y in zip(base.tolist(), one.tolist(), other.tolist(), strict=True):
        parts = [
            torch.tensor(torch.tensor(number - b).bfloat16().item() * weight).bfloat16().item()
            for number, weight in zip((x, y), rounded, strict=True)
        ]
        expected.append(torch.tensor(b + torch.tensor(sum(parts)).bfloat16().item()).bfloat16().item())
    assert found.tolist() == expected
    assert not found.float().equal(
        base.float() + 0.3 * (one.float() - base.float()) + 0.7 * (other.float() - base.float())
    )


@pytest.mark.parametrize("rescale", [False, True])
def test_breadcrumbs_drop_the_largest_and_the_smallest(rescale):
    base, model = draw(2)
    values = {**PLAIN, "weights": [0.5], "densities": [0.5], "gammas": [0.1], "rescale": rescale}
    found = merge_as_mergekit("breadcrumbs", [base, model], NAME, values)
    delta = [x - b for x, b in zip(model.tolist(), base.tolist(), strict=True)]
    order = sorted(range(40), key=lambda i: abs(delta[i]))
    kept = set(order[16:36])  # 4 of 40 are the largest, 20 are kept
    factor = sum(map(abs, delta)) / sum(abs(delta[i]) for i in kept) if rescale else 1
    expected = [
        b + (0.5 * factor * d if i in kept else 0)
        for i, (b, d) in enumerate(zip(base.tolist(), delta, strict=True))
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_consensus_takes_the_sign_of_the_sum():
    base = torch.zeros(3)
    models = [torch.tensor([1.0, -3.0, 2.0]), torch.tensor([-2.0, 1.0, 4.0])]
    values = {
        "normalize": True,
        "scale": 1.0,
        "weights": [1.0, 3.0],
        "densities": [1.0, 1.0],
        "gammas": [0.0, 0.0],
    }
    found = merge_as_mergekit("breadcrumbs_ties", [base, *models], NAME, values)
    assert found.tolist() == [-2.0, 1.0, 3.5]  # -6 beats 1; -3 + 3 counts as positive; both, by their weights


def test_dare_drops_by_the_tensor_s_name_and_keeps_the_sum_of_magnitudes():
    base, model = draw(2, size=4000)
    values = {**PLAIN, "weights": [1.0], "densities": [0.3], "rescale": True, "seed": 0}
    found = merge_as_mergekit("dare_linear", [base, model], NAME, values) - base
    delta = model - base
    kept = found.abs() > 1e-6
    assert abs(int(kept.sum()) - 1200) < 100
    assert float(found.abs().sum()) == pytest.approx(float(delta.abs().sum()), rel=1e-4)
    ratio = float(delta.abs().sum() / delta[kept].abs().sum())
    torch.testing.assert_close(found[kept], ratio * delta[kept], rtol=1e-3, atol=1e-5)
    again, other, seeded = (
        merge_as_mergekit("dare_linear", [base, model], name, {**values, "seed": seed}) - base
        for name, seed in ((NAME, 0), ("another", 0), (NAME, 1))
    )
    assert again.equal(found)
    assert not other.equal(found)
    assert not seeded.equal(found)


def test_della_keeps_large_elements_of_a_row_more_often():
    base = torch.zeros(2000, 5)
    model = torch.tensor([0.1, -5.0, 2.0, -0.3, 1.0]).repeat(2000, 1)
    values = {**PLAIN, "weights": [1.0], "densities": [0.5], "epsilons": [0.4], "rescale": False, "seed": 3}
    found = merge_as_mergekit("della_linear", [base, model], NAME, values)
    shares = (found != 0).float().mean(dim=0).tolist()
    # from 0.1 for the smallest of five to 0.9 for the largest, in even steps
    assert shares == pytest.approx([0.1, 0.9, 0.7, 0.3, 0.5], abs=0.04)
    assert found[found != 0].unique().tolist() == model[0].sort().values.tolist()
    with pytest.raises(ArithmeticError, match="rows of a single number"):
        merge_as_mergekit("della", [base[:, :1], model[:, :1]], NAME, values)


def test_arcee_fusion_takes_elements_that_matter_far_more_than_the_median():
    base, change = (tensor.reshape(5, 8) for tensor in draw(2))
    model = base + 0.1 * change
    scores = []
    for b, m in zip(base.tolist(), model.tolist(), strict=True):
        old, new = ([math.exp(x) / sum(map(math.exp, row)) + 1e-8 for x in row] for row in (b, m))
        divergence = sum(p * math.log(p / q) for p, q in zip(new, old, strict=True))
        scores += [abs(y - x) * divergence for x, y in zip(b, m, strict=True)]
    ordered = sorted(scores)
    low, middle, high = (ordered[int(share * 39)] for share in (0.25, 0.5, 0.75))
    taken = [score >= middle + 1.5 * (high - low) for score in scores]
    assert 0 < sum(taken) < 20
    found = merge_as_mergekit("arcee_fusion", [base, model], NAME, {})
    expected = torch.where(torch.tensor(taken).reshape(5, 8), model, base)
    torch.testing.assert_close(found, expected)


def test_nearswap_moves_by_at_most_t():
    base, other = draw(2)
    found = merge_as_mergekit("nearswap", [base, other], NAME, {"t": 0.5})
    expected = [
        b + sign(o - b) * min(abs(o - b), 0.5) for b, o in zip(base.tolist(), other.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("with_base", [False, True])
def test_nuslerp_is_on_the_arc(with_base):
    base, one, other = (unit(tensor) for tensor in draw(3))
    origin = base if with_base else torch.zeros(40)
    values = {"weights": [1.0, 3.0], "nuslerp_flatten": True, "nuslerp_row_wise": False}
    bases = [base] if with_base else []
    found = merge_as_mergekit("nuslerp", [*bases, origin + one, origin + other], NAME, values) - origin
    angle = math.acos(float(one @ other))
    assert math.acos(float(unit(found) @ one)) == pytest.approx(0.75 * angle, abs=1e-3)
    assert float(found.norm()) == pytest.approx(1, abs=1e-5)


def test_nuslerp_by_row_and_by_column():
    one, other = (tensor.reshape(5, 8) for tensor in draw(2))
    values = {"weights": [1.0, 1.0], "nuslerp_flatten": False}
    columns = merge_as_mergekit("nuslerp", [one, other], NAME, {**values, "nuslerp_row_wise": True})
    rows = merge_as_mergekit("nuslerp", [one, other], NAME, {**values, "nuslerp_row_wise": False})
    torch.testing.assert_close(
        rows,
        torch.stack(
            [
                merge_as_mergekit("nuslerp", list(pair), NAME, {**values, "nuslerp_row_wise": False})
                for pair in zip(one, other, strict=True)
            ]
        ),
    )
    torch.testing.assert_close(
        columns, merge_as_mergekit("nuslerp", [one.T, other.T], NAME, {**values, "nuslerp_row_wise": False}).T
    )


def test_the_karcher_mean_of_two_is_the_middle_of_the_arc():
    one, other = draw(2)
    found = merge_as_mergekit("karcher", [one, other], NAME, {"max_iter": 100, "tol": 1e-7})
    expected = unit(unit(one) + unit(other)) * (one.norm() + other.norm()) / 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    twice = merge_as_mergekit("karcher", [one, other, one], NAME, {"max_iter": 100, "tol": 1e-7})
    angle = math.acos(float(unit(one) @ unit(other)))
    assert math.acos(float(unit(twice) @ unit(one))) == pytest.approx(angle / 3, abs=1e-3)


def test_multislerp_of_equal_weights_is_the_middle_and_opposites_have_none():
    one, other = draw(2)
    values = {"weights": [2.0, 2.0], "normalize_weights": True, "eps": 1e-8}
    found = merge_as_mergekit("multislerp", [one, other], NAME, values)
    expected = unit(unit(one) + unit(other)) * (one.norm() + other.norm()) / 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    corners = [
        torch.tensor([math.cos(a), math.sin(a)], dtype=torch.float64)
        for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)
    ]
    with pytest.raises(ArithmeticError, match="sum to zero"):
        merge_as_mergekit("multislerp", corners, NAME, {**values, "weights": [1.0] * 3})


@pytest.mark.parametrize("method", ["ram", "ramplus_tl"])
def test_ram_takes_what_one_model_changed_and_averages_what_several_did(method):
    base, *models = draw(4)
    limit = 1.0
    deltas = [[x - b for x, b in zip(model.tolist(), base.tolist(), strict=True)] for model in models]
    changed = [[i for i in range(3) if abs(deltas[i][n]) > limit] for n in range(40)]
    factors = []
    for i in range(3):
        shared = sum(i in who and len(who) > 1 for who in changed)
        alone = sum(who == [i] for who in changed)
        factors.append(1 + 0.5 * min(0.2, shared / alone) if method == "ramplus_tl" else 1)
    expected = [
        b
        + (
            factors[who[0]] * deltas[who[0]][n]
            if len(who) == 1
            else sum(deltas[i][n] for i in who) / max(1, len(who))
        )
        for n, (b, who) in enumerate(zip(base.tolist(), changed, strict=True))
    ]
    found = merge_as_mergekit(method, [base, *models], NAME, {"epsilon": limit, "r": 0.5, "alpha": 0.2})
    torch.testing.assert_close(found, torch.tensor(expected))


def test_sce_selects_by_variance_weighs_by_size_and_erases_the_minority():
    base, *models = draw(4)
    deltas = [[x - b for x, b in zip(model.tolist(), base.tolist(), strict=True)] for model in models]
    means = [sum(d[n] for d in deltas) / 3 for n in range(40)]
    spread = [sum((d[n] - means[n]) ** 2 for d in deltas) for n in range(40)]
    kept = set(sorted(range(40), key=lambda n: -spread[n])[:10])
    deltas = [[x if n in kept else 0.0 for n, x in enumerate(d)] for d in deltas]
    sizes = [sum(x * x for x in d) for d in deltas]
    weights = [size / sum(sizes) for size in sizes]
    expected = []
    for n, b in enumerate(base.tolist()):
        majority = 1 if sum(d[n] for d in deltas) >= 0 else -1
        agreeing = [i for i in range(3) if sign(deltas[i][n]) == majority]
        total = sum(weights[i] * deltas[i][n] for i in agreeing)
        expected.append(b + total / max(1e-6, sum(weights[i] for i in agreeing)))
    found = merge_as_mergekit("sce", [base, *models], NAME, {"select_topk": 0.25})
    torch.testing.assert_close(found, torch.tensor(expected))


# -- whole merges ------------------------------------------------------------------------------------------------------------


HERD = {name: {"folder": name} for name in ("a", "b", "c")}


@pytest.fixture
def herd(tmp_path):
    for seed, name in enumerate(HERD):
        tiny.write_model(tmp_path / name, seed=seed, layers=1)
    return tmp_path


def planned(root, merge):
    path = tiny.write_recipe(root / "r.yaml", {**HERD, "merged": {"merge": merge}})
    tiny.lock(path)
    return load(path, root / "results")


def made(root, merge):
    plan = tiny.build(
        tiny.write_recipe(root / "r.yaml", {**HERD, "merged": {"merge": merge}}), root / "results"
    )
    return CheckpointFolder(plan.layout.folder(plan.released))


def test_a_model_that_is_listed_twice_counts_twice(herd):
    found = made(
        herd, {"method": "linear", "models": [{"model": name} for name in "aba"], "dtype": "float32"}
    )
    a, b = CheckpointFolder(herd / "a"), CheckpointFolder(herd / "b")
    for name in found.spans:
        torch.testing.assert_close(found[name], (2 * a[name] + b[name]) / 3)


def test_dare_drops_other_elements_for_each_entry_of_a_model(herd):
    entries = [{"model": "b", "density": 0.5}] * 2
    found = made(herd, {"method": "dare_linear", "base": "a", "models": entries, "dtype": "float32"})
    a, b = CheckpointFolder(herd / "a"), CheckpointFolder(herd / "b")
    name = "model.layers.0.mlp.up_proj.weight"
    times = ((found[name] - a[name]) / (b[name] - a[name])).round()  # 0, 2 or 4 times the task vector
    assert set(times.unique().tolist()) == {0.0, 2.0, 4.0}


@pytest.mark.parametrize(
    "merge",
    [
        {"method": "ties", "normalize": True},
        {"method": "task_arithmetic", "normalize": True, "semantics": "mergekit-0.1.5"},
        {"method": "dare_linear", "normalize": True},
        {"method": "model_stock"},
        {"method": "breadcrumbs", "parameters": {"weight": 0.5}},
    ],
)
def test_the_base_among_the_models_takes_no_part(herd, merge):
    def keys(names):
        models = list(names) if merge["method"] == "model_stock" else [{"model": name} for name in names]
        return [part.key for part in planned(herd, {**merge, "base": "a", "models": models}).released.parts]

    assert keys("bac") == keys("bc") != keys("cb")


def test_what_is_computed_with_and_what_is_written(herd):
    entry = {"method": "linear", "models": [{"model": "a"}, {"model": "b"}]}
    wide = made(herd, {**entry, "dtype": "float32"})
    narrow = made(herd, {**entry, "dtype": "float32", "out_dtype": "float16"})
    for name in wide.spans:
        assert narrow.spans[name][1].dtype == "F16"
        assert narrow.stored(name).equal(wide.stored(name).half()), name
    plan = planned(herd, {**entry, "out_dtype": "float16"})
    assert plan.released.config["dtype"] == plan.released.config["torch_dtype"] == "float16"


def test_what_is_rounded_before_it_is_merged_is_a_warning(herd):
    tiny.write_model(herd / "a", seed=0, layers=1, dtype=torch.float32)
    entry = {"method": "linear", "models": [{"model": "a"}, {"model": "b"}], "semantics": "mergekit-0.1.5"}
    plan = planned(herd, {**entry, "dtype": "bfloat16", "out_dtype": "float32"})
    assert any("'a' has numbers in F32, which are rounded to BF16" in line for line in plan.warnings)
    assert not any("rounded" in line for line in planned(herd, entry).warnings)
    assert {tensor.dtype for part in planned(herd, entry).released.parts for tensor in part.tensors} == {
        "F32"
    }


def test_a_copy_of_the_base_is_a_warning(herd):
    tiny.write_model(herd / "c", seed=0, layers=1)
    plan = planned(herd, {"method": "ties", "base": "a", "models": [{"model": "b"}, {"model": "c"}]})
    assert any("'c' is equal to the base 'a'" in line for line in plan.warnings)


def test_an_integer_is_not_interpolated():
    merge = Mergekit.model_validate(
        {"method": "karcher", "models": [{"model": "a"}, {"model": "b"}], "parameters": {"max_iter": [1, 4]}}
    )
    assert values_of("m", merge, "x", 1.0)["max_iter"] == 4
    with pytest.raises(RecipeError, match=r"m.parameters.max_iter: is 2.5 for x, which is not an integer"):
        values_of("m", merge, "x", 0.5)
