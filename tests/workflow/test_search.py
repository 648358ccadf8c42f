"""A guarded search under Snakemake: made once, and made again by what it follows from alone."""

import json
import random

import pytest
import yaml

from support import tiny
from support.project import Project, shards_made

MODELS = {
    "base": {"folder": "base"},
    "cut": {
        "laser": "base",
        "rank": [2, {"svd-llm": {"fraction": 0.9}}],
        "matrices": ["mlp.up_proj"],
        "calibration": "text",
        "guard": {"margin": 0.05},
    },
}


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project")
    folder = project.recipe.parent
    tiny.write_model(folder / "base")
    rng = random.Random(0)
    lines = [json.dumps({"text": " ".join(f"w{rng.randrange(50)}" for _ in range(40))}) for _ in range(50)]
    (folder / "validation.jsonl").write_text("\n".join(lines))
    calibration = {"text": {"data": ["validation.jsonl"], "split": "validation", "windows": 30, "tokens": 16}}
    tiny.write_recipe(project.recipe, MODELS, calibration=calibration)
    tiny.lock(project.recipe)
    return project


@pytest.mark.slow
def test_a_search_is_made_once_and_again_for_another_rule(project):
    made = project.run()
    assert "search" in {rule for rule, _ in made}
    assert shards_made(made) == {"base.1", "cut.1"}
    (result,) = (project.results / "searches").glob("*.json")
    released = project.results / "Tiny/release/provenance/searches" / result.name
    assert released.read_bytes() == result.read_bytes()
    assert project.run() == set()

    recipe = yaml.safe_load(project.recipe.read_text(encoding="utf-8"))
    recipe["models"]["cut"]["guard"]["margin"] = 0.06
    project.recipe.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    kept = sorted((project.results / "decompositions").rglob("*.safetensors"))
    times = [path.stat().st_mtime_ns for path in kept]
    made = project.run()
    assert {"search", "laser"} <= {rule for rule, _ in made}
    assert shards_made(made) == {"cut.1"}
    assert sorted((project.results / "decompositions").rglob("*.safetensors")) == kept
    assert [path.stat().st_mtime_ns for path in kept] == times
