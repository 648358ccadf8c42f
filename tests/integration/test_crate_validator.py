"""Crates by the validator of their profiles, a program of others, without network."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from support import tiny
from support.ro_crate import METADATA, entities, export, ids, typed

TOOL = Path(sys.prefix) / "tools" / "roc-validator"
MINIATURE = Path(__file__).parents[2] / "results/Miniature-4x135M-laser/release"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TOOL.is_dir(), reason="needs roc-validator, which `make` installs"),
]
# The validator resolves the context by the web: its cache is filled with the copy that the package rocrate holds.
FILL_THE_CACHE = """
import importlib.util, io, pathlib, sys
import requests_cache
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

content = pathlib.Path(importlib.util.find_spec("rocrate").origin).with_name("data").joinpath("ro-crate.jsonld").read_bytes()

class Packaged(HTTPAdapter):
    def send(self, request, **options):
        about = {"Content-Type": "application/ld+json"}
        return self.build_response(request, HTTPResponse(io.BytesIO(content), about, 200, preload_content=False))

session = requests_cache.CachedSession(sys.argv[1], backend="sqlite", expire_after=-1)
session.mount("https://w3id.org/", Packaged())
session.get("https://w3id.org/ro/crate/1.1/context").raise_for_status()
"""
VALIDATE = "from rocrate_validator.cli import cli; cli()"
# What the profiles recommend and no record of a build tells.
NOT_TOLD = {
    "The Action SHOULD have an endTime in ISO 8601 format",
    "The Action SHOULD have an agent that is a Person or Organization",
    "The Root Data Entity SHOULD have a link to a Contextual Entity representing the `author` of the RO-Crate",
    "The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`",
    # a profile that asks for a creator and days of making
    "The Main Workflow SHOULD comply with Bioschemas ComputationalWorkflow profile version 1.0 or later",
    # a command, and a recipe in the crate, have no page
    "The Application SHOULD have a url",
    "The SoftwareApplication id SHOULD be an absolute URI",
}
UNREACHABLE = (
    "availability could not be verified"  # of what has no web address: folders, files known by digest
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("validator") / "cache"
    run("-c", FILL_THE_CACHE, str(path)).check_returncode()
    return path


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(TOOL), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def validate(crate, cache, severity="required", report=None):
    """Validate a crate by the profile that it says it conforms to; return whether it does, and what is wrong."""
    options = ["--offline", "--cache-path", str(cache), "--skip-availability-check", "--no-paging"]
    if report:
        options += ["--output-format", "json", "--output-file", str(report)]
    done = run("-c", VALIDATE, "-y", "validate", str(crate), "--requirement-severity", severity, *options)
    assert done.returncode in {0, 1}, done.stderr
    said = json.loads(report.read_text()) if report else {}
    return done.returncode == 0, said


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A release of all that leaves a record and needs no program of others: a guarded search, measurements, routers."""
    from herdbook.steps.card.step import render_card
    from herdbook.steps.evaluate.step import evaluate

    folder = tmp_path_factory.mktemp("built")
    tiny.write_model(folder / "base", seed=0, shards=2)
    tiny.write_model(folder / "tuned", seed=1)
    tiny.write_adapter(folder / "adapter", folder / "base", seed=2)
    rng = random.Random(0)
    texts = [" ".join(f"w{rng.randrange(50)}" for _ in range(40)) for _ in range(53)]
    lines = [json.dumps({"text": text}) for text in texts[3:]]
    (folder / "validation.jsonl").write_text("\n".join(lines))
    tiny.write_task(folder / "task.yaml", texts[:3], data="held out.jsonl")
    models = {
        "base": {"folder": "base"},
        "tuned": {"folder": "tuned"},
        "folded": {"adapter": "adapter", "on": "base", "license": "MIT"},
        "cut": {
            "laser": "tuned",
            "rank": [2, {"svd-llm": {"fraction": 0.9}}],
            "matrices": ["mlp.up_proj"],
            "calibration": "text",
            "guard": {"margin": 0.05},
        },
        "mix": {
            "moe": {
                "base": "base",
                "experts": [{"model": "cut", "prompts": ["w1"]}, {"model": "folded", "prompts": ["w2"]}],
            }
        },
    }
    calibration = {"text": {"data": ["validation.jsonl"], "split": "validation", "windows": 30, "tokens": 16}}
    recipe = tiny.write_recipe(
        folder / "r.yaml",
        models,
        calibration=calibration,
        routing={"texts": ["text"]},
        evaluate={"tasks": ["task.yaml"], "models": ["base", "mix"]},
    )
    plan = tiny.build(recipe, folder / "results")
    for item in plan.evaluations:
        evaluate(plan, item, 1)
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan)


@pytest.fixture(scope="module")
def crate(release, tmp_path_factory):
    place = tmp_path_factory.mktemp("exported") / "crate"
    assert export(release, place) == 0
    return place


def test_it_has_all_that_a_provenance_run_crate_must_have(crate, release, cache, tmp_path):
    good, said = validate(crate, cache, report=tmp_path / "report.json")
    assert (good, said["issues"]) == (True, [])
    assert said["validation_settings"]["profile_identifier"] == "provenance-run-crate-0.5"
    assert export(release, tmp_path / "crate.zip") == 0
    assert validate(tmp_path / "crate.zip", cache)[0]


def test_it_lacks_of_what_is_recommended_only_what_no_record_tells(crate, cache, tmp_path):
    _, said = validate(crate, cache, "recommended", tmp_path / "report.json")
    messages = {issue["message"] for issue in said["issues"]}
    assert {one for one in messages if not one.endswith(UNREACHABLE)} == NOT_TOLD
    assert {one.split("'")[1] for one in messages if one.endswith(UNREACHABLE)} == {"folder", "ni"}
    assert {issue["severity"] for issue in said["issues"]} == {"RECOMMENDED"}


BREAKS = {
    "a workflow without tools": ("recipe.yaml", "hasPart", "orchestrated tools"),
    "a step that nothing carries out": ("#step/mix", "workExample", "corresponding tool"),
    "an action without instrument": ("#run", "instrument", "instrument"),
    "no day of publication": ("./", "datePublished", "datePublished"),
    "no licence": ("./", "license", "license"),
}


def test_a_crate_that_is_broken_is_refused_for_each_of_its_breaks(crate, cache, tmp_path):
    def break_all(found):
        for entity, key, _ in BREAKS.values():
            del found[entity][key]

    said = " ".join(refusals(crate, cache, tmp_path, break_all))
    assert [broken for broken, (_, _, words) in BREAKS.items() if words not in said] == []


def test_a_crate_whose_file_is_gone_is_refused(crate, cache, tmp_path):
    said = refusals(crate, cache, tmp_path, lambda _: (tmp_path / "crate/config.json").unlink())
    assert any("config.json" in one for one in said)


def refusals(crate, cache, folder, change):
    """Return what the validator says of a crate with a change."""
    for path in crate.rglob("*"):
        if path.is_file():
            copy = folder / "crate" / path.relative_to(crate)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    data = json.loads((crate / METADATA).read_text())
    change({entity["@id"]: entity for entity in data["@graph"]})
    (folder / "crate" / METADATA).write_text(json.dumps(data))
    good, said = validate(folder / "crate", cache, report=folder / "report.json")
    assert not good
    return [issue["message"] for issue in said["issues"]]


def test_a_search_and_a_measurement_read_what_they_say(release, crate):
    found = entities(crate)

    def action(folder, name):
        (path,) = (release / "provenance" / folder).glob(f"{name}-*.json")
        one = found[found[f"provenance/{folder}/{path.name}"]["about"]["@id"]]
        assert ids(one, "result") == [f"provenance/{folder}/{path.name}"]
        return json.loads(path.read_text()), [found[used] for used in ids(one, "object")], one

    _, read, search = action("searches", "cut")
    assert found[search["instrument"]["@id"]]["name"] == "herdbook search"
    assert {"validation.jsonl", "tokenizer.json"} <= {one["name"] for one in read}
    (cut,) = [one for one in typed(found, "CreateAction") if one["@id"].startswith("#action/cut.")]
    assert {"validation.jsonl", *ids(search, "result")} <= {found[one]["name"] for one in ids(cut, "object")}
    result, read, _ = action("evaluations", "mix")
    assert set(result["weights"].values()) <= {one.get("sha256") for one in read}
    (task,) = (release / "provenance/inputs").glob("*-task.yaml")
    assert {f"provenance/inputs/{task.name}", "held out.jsonl"} <= {one["name"] for one in read}
    _, read, _ = action("routing", "mix")
    assert "validation.jsonl" in {one["name"] for one in read}


@pytest.mark.skipif(not (MINIATURE / "SHA256SUMS").exists(), reason="needs what `make demo` builds")
def test_the_miniature_with_its_quantized_files(cache, tmp_path):
    assert export(MINIATURE, tmp_path / "crate") == 0
    assert validate(tmp_path / "crate", cache)[0]
    found = entities(tmp_path / "crate")
    records = sorted((MINIATURE / "provenance/records").glob("*.gguf.json"))
    assert records
    for path in records:
        record = json.loads(path.read_text())
        one = found[found[f"provenance/records/{path.name}"]["about"]["@id"]]
        (made,) = ids(one, "result")
        assert found[made]["name"] == record["name"]
        assert found[made]["sha256"] == record["file"]["sha256"]
        used = {found[name].get("name") for name in ids(one, "object")}
        assert {path.name for path in MINIATURE.glob("*.safetensors")} <= used
