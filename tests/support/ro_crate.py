"""A small release with all kinds of origins, its export as an RO-Crate, and reading what was exported."""

import json

from herdbook.cli.main import main
from support import tiny

DAY = "2026-01-02"
# One that the Hub does not list.
LICENSE = {"license": "other", "license_name": "herd-1.0", "license_link": "https://example.org/herd-1.0"}
METADATA = "ro-crate-metadata.json"


def release(folder, hub, key=None):
    """Make a mixture of two models of a Hub, one lasered, one with an adapter folded in; return its release's folder."""
    from herdbook.steps.card.step import render_card

    for seed, name in enumerate(("base", "tuned")):
        made = tiny.write_model(folder / name, seed=seed, shards=2)
        files = {path.name: path.read_bytes() for path in made.iterdir()}
        hub.add_repo(f"herd/{name}", files, license="apache-2.0")
    tiny.write_adapter(folder / "adapter", folder / "base", seed=2)
    models = {
        "base": {"hub": "herd/base"},
        "tuned": {"hub": "herd/tuned"},
        "folded": {"adapter": "adapter", "on": "base", "license": "MIT"},
        "cut": {"laser": "tuned", "layers": [1], "matrices": ["mlp.down_proj"], "rank": {"fraction": 0.5}},
        "mix": {
            "moe": {
                "base": "base",
                "experts": [{"model": "cut", "prompts": ["w1"]}, {"model": "folded", "prompts": ["w2"]}],
            }
        },
    }
    recipe = tiny.write_recipe(folder / "r.yaml", models, release=LICENSE)
    plan = tiny.build(recipe, folder / "results")
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan, key)


def export(release, to):
    """Export as the command does; return its exit status."""
    return main(["export", "ro-crate", str(release), "--to", str(to), "--published", DAY])


def entities(folder):
    """Return a crate's entities by ``@id``, each of which names one."""
    graph = json.loads((folder / METADATA).read_text(encoding="utf-8"))["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph)
    return found


def many(value):
    """Return what a property holds as a list, as JSON-LD means it."""
    return [] if value is None else value if isinstance(value, list) else [value]


def ids(entity, name):
    return [one["@id"] for one in many(entity.get(name))]


def typed(found, kind):
    return [entity for entity in found.values() if kind in many(entity["@type"])]
