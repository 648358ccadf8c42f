"""A budget of rank, and clusters, at the level `recomputed`: honest ones are proven, and those that were bent are named."""

import numpy as np
import pytest
from pytest_local_hub import LocalHub, client

from herdbook.signing import keys
from herdbook.steps.card.step import render_card
from herdbook.steps.laser import budget, clusters, search
from support import tiny
from support.verification import findings, status

KEY = keys.PrivateKey(keys.ec.generate_private_key(keys.ec.SECP256R1()))
MODELS = {
    "base": {"hub": "herd/base"},
    "cut": {"laser": "base", "rank": {"budget": 0.5}, "matrices": ["mlp.down_proj", "self_attn.k_proj"]},
    "clustered": {
        "laser": "cut",
        "rank": {"clustered": {"clusters": 2, "keep": 4}},
        "matrices": ["mlp.up_proj"],
    },
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("budget")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        tiny.write_model(root / "base")
        files = {path.relative_to(root / "base").as_posix(): path for path in (root / "base").rglob("*")}
        content = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
        hub.add_repo("herd/base", content, license="apache-2.0")
        yield hub


def build(root):
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", MODELS), root / "results")
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan, KEY)


def told(folder):
    return [one for one in findings(folder, "recomputed", sample_bytes=None) if one.check == "budget"]


def test_an_honest_budget_is_proven(hub, tmp_path):
    folder = build(tmp_path)
    assert status(findings(folder, "recomputed", sample_bytes=None)) == 0
    (one,) = told(folder)
    assert one.outcome.name == "PASSED"
    assert "add up to the budget" in one.detail


def test_clusters_that_nobody_looked_for_are_named(hub, tmp_path, monkeypatch):
    """Runs of rows are passed off as what the rounds found."""
    monkeypatch.setattr(clusters, "_nearest", lambda *given: given[2])
    folder = build(tmp_path)
    monkeypatch.undo()
    client.use(hub, tmp_path / "home", monkeypatch)
    found = findings(folder, "recomputed", sample_bytes=None)
    assert status(found) == 8
    wrong = [one for one in found if one.outcome.name == "FAILED"]
    names = {f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(2)}
    assert {one.tensor for one in wrong if one.check == "made"} == names
    evidence = [one.detail for one in wrong if one.check == "evidence"]
    assert any("clusters.places_sha256" in detail for detail in evidence)


def moved(spectra, share):
    """One matrix gets a value more than its due, another one less."""
    found = budget.spread(spectra, share)
    fewest, most = (pick(found.ranks, key=found.ranks.get) for pick in (min, max))
    return budget.Spread(
        {**found.ranks, fewest: found.ranks[fewest] + 1, most: found.ranks[most] - 1}, found.level
    )


def more(spectra, share):
    """One matrix gets a value more than the budget has."""
    found = budget.spread(spectra, share)
    name = min(found.ranks, key=found.ranks.get)
    return budget.Spread({**found.ranks, name: found.ranks[name] + 1}, found.level)


def alike(spectra, share):
    """Each matrix gets the same share, whatever the budget gives it."""
    ranks = {name: int(share * len(values)) for name, values in spectra.items()}
    return budget.Spread(ranks, float(np.median(budget.energy_shares(next(iter(spectra.values()))))))


@pytest.mark.parametrize(
    ("lie", "details"),
    [
        (moved, {"its rank does not follow from the level"}),
        (more, {"its ranks do not add up to the budget", "its rank does not follow from the level"}),
        (alike, {"its rank does not follow from the level"}),
    ],
)
def test_a_budget_that_was_bent_is_named(hub, tmp_path, monkeypatch, lie, details):
    monkeypatch.setattr(search, "spread", lie)
    folder = build(tmp_path)
    monkeypatch.undo()
    client.use(hub, tmp_path / "home", monkeypatch)
    wrong = told(folder)
    assert {one.outcome.name for one in wrong} == {"FAILED"}
    assert {
        one.detail.partition(" level")[0] + " level" * (" level" in one.detail) for one in wrong
    } == details
    assert status(findings(folder, "recomputed", sample_bytes=None)) == 8
