"""Claims and bills of materials: valid by the formats' own libraries, and about what was really built."""

import base64
import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from packageurl import PackageURL
from pytest_local_hub import LocalHub, client

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.files import git_blob_id, sha256_file
from herdbook.key import digest
from herdbook.layout import BOMS, CARD, CLAIMS, INPUTS, LINEAGE, OUTSIDE_SUMS, RECIPE, SUMS
from herdbook.plan.code import RecordedCode, as_recorded
from herdbook.plan.release import contents
from herdbook.provenance.bom import bom
from herdbook.provenance.claims import canonical, statements
from herdbook.provenance.license import spdx
from herdbook.provenance.lineage import parse
from herdbook.provenance.slsa import BUILD_TYPE, PROVENANCE_TYPE, codes
from herdbook.recipe.hub_values import LICENSES
from support import tiny
from support.verification import failures

TEXT = "w1 w2 w3 w4\n"


def write_task(folder):
    """Write an lm-eval task with its data, and a board on which its result has a place."""
    tiny.write_task(folder / "task.yaml", [TEXT, "w9"])
    (folder / "board.csv").write_text("name,score\nother,9.5\n")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A release of a mixture of two repositories on a Hub and an adapter, measured; what is not ours to make is made up."""
    from herdbook.steps.card.step import render_card
    from herdbook.steps.evaluate.step import evaluate

    folder = tmp_path_factory.mktemp("claims")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, folder / "home", patch)
        for seed, (name, license_) in enumerate({"base": "apache-2.0", "tuned": "llama3.1"}.items()):
            made = tiny.write_model(folder / name, seed=seed, shards=2)
            files = {path.name: path.read_bytes() for path in made.iterdir()}
            hub.add_repo(f"herd/{name}", files, license=license_)
        tiny.write_adapter(folder / "adapter", folder / "base", seed=2)
        write_task(folder / "beside")
        models = {
            "base": {"hub": "herd/base"},
            "tuned": {"hub": "herd/tuned"},
            "folded": {"adapter": "adapter", "on": "base", "license": "MIT"},
            "mix": {
                "moe": {
                    "base": "base",
                    "experts": [
                        {"model": "tuned", "prompts": ["w1"]},
                        {"model": "folded", "prompts": ["w2"]},
                    ],
                }
            },
        }
        board = {
            "snapshot": "beside/board.csv",
            "title": "Board",
            "as_of": "2026-01-02",
            "source": "https://example.org",
            "model_column": "name",
            "score_column": "score",
            "direction": "lower",
            "task": "held_out",
            "metric": "bits_per_byte",
        }
        recipe = tiny.write_recipe(
            folder / "r.yaml",
            models,
            release={
                "model": "mix",
                "repo": "herd/Tiny",
                "summary": "A small one.",
                "license": "apache-2.0",
                "waivers": [
                    {"source": "tuned", "obligation": kind, "by": "us", "because": "nothing is published"}
                    for kind in ("same-license", "name-prefix")
                ],
            },
            evaluate={"tasks": ["beside/task.yaml"], "models": ["base", "mix"], "limit": 2},
            leaderboards={"board": board},
            claims=[{"text": "Good at nothing.", "by": "us", "on": "2026-01-02"}],
        )
        plan = tiny.build(recipe, folder / "results")
        for item in plan.evaluations:
            evaluate(plan, item, 1)
        render_card(plan, plan.layout.card_folder)
        tiny.release(plan)
    return plan


def claims_of(plan):
    return [json.loads(line) for line in (plan.layout.release_folder / CLAIMS).read_text().splitlines()]


def bill_of(plan, version):
    return json.loads((plan.layout.release_folder / BOMS[version]).read_text())


# -- claims ----------------------------------------------------------------------------------------------------------


def test_claims_are_statements_by_in_toto_s_own_library(built):
    found = claims_of(built)
    assert len(found) == 5
    for claim in found:
        message = json_format.ParseDict(claim, statement_pb2.Statement())
        Statement.copy_from_pb(message).validate()


def test_predicates_are_what_their_types_say(built):
    """Parsed by the types' protocol buffers: the provenance with no field that they do not know."""
    provenance, _, _, *results = claims_of(built)
    assert provenance["predicateType"] == "https://slsa.dev/provenance/v1"
    parsed = json_format.ParseDict(provenance["predicate"], provenance_pb2.Provenance())
    assert parsed.build_definition.build_type == BUILD_TYPE
    assert not parsed.run_details.metadata.HasField("started_on")
    for claim in results:
        assert claim["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
        own = {key: value for key, value in claim["predicate"].items() if not key.startswith("herdbook_")}
        parsed = json_format.ParseDict(own, test_result_pb2.TestResult())
        assert parsed.result == "PASSED"
        assert list(parsed.passed_tests) == ["held_out"]


def test_claims_are_about_every_file(built):
    folder = built.layout.release_folder
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for claim in claims_of(built)[:2]:
        said = {one["name"]: one["digest"]["sha256"] for one in claim["subject"]}
        assert said == {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files - {CLAIMS}
        }
        assert list(said) == sorted(said)
    assert files & OUTSIDE_SUMS == {SUMS, CLAIMS}


def test_the_claim_of_the_lineage_counts_each_byte_of_the_weights_once(built):
    claim = claims_of(built)[2]
    folder = built.layout.release_folder
    weights = {path.name: path for path in folder.glob("*.safetensors")}
    assert {one["name"] for one in claim["subject"]} == weights.keys()
    headers = {name: 8 + int.from_bytes(path.read_bytes()[:8], "little") for name, path in weights.items()}
    tensors = sum(path.stat().st_size - headers[name] for name, path in weights.items())
    predicate = claim["predicate"]
    assert predicate["bytes"] == tensors
    assert sum(entry["bytes"] for entry in predicate["equal"] + predicate["computed"]) == tensors
    lines = [json.loads(line) for line in (folder / LINEAGE).read_text().splitlines()]
    for entry in predicate["equal"]:
        own = [line for line in lines if line.get("equals", {}).get("uri") == entry["uri"]]
        assert entry["bytes"] == sum(line["end"] - line["begin"] for line in own) > 0
    schema = json.loads((Path(__file__).parents[2] / "docs/spec/lineage.schema.json").read_text())
    import jsonschema

    jsonschema.validate(predicate, {**schema["$defs"]["predicate"], "$defs": schema["$defs"]})


def test_claims_about_measured_models_beside_the_release_pass(built):
    subjects = {one["name"] for claim in claims_of(built) for one in claim["subject"]}
    files = {
        path.relative_to(built.layout.release_folder).as_posix()
        for path in built.layout.release_folder.rglob("*")
    }
    assert subjects - files == {f"base/model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    assert failures(built.layout.release_folder) == set()


def test_claims_are_canonical_and_follow_from_the_release_alone(built, monkeypatch):
    folder = built.layout.release_folder
    lines = (folder / CLAIMS).read_bytes().splitlines()
    internal = json.loads(lines[0])["predicate"]["buildDefinition"]["internalParameters"]
    digests = {line.partition("  ")[2]: line[:64] for line in (folder / SUMS).read_text().splitlines()}
    digests[SUMS] = sha256_file(folder / SUMS)
    monkeypatch.setattr("herdbook.plan.parsed.package_version", lambda _: "of another machine")
    with as_recorded(RecordedCode("0.0.1", internal["operations"])):
        plan = plans.make(
            recipes.load(folder / "recipe.yaml"),
            locks.load(folder / "recipe.lock.json"),
            folder / "recipe.yaml",
        )
        slices = parse((folder / LINEAGE).read_text())
        again = statements(plan, digests, lambda name: json.loads((folder / name).read_text()), slices)
    assert [canonical(one) for one in again] == lines


def test_provenance_names_each_source_and_each_file_by_what_pins_it(built):
    (first, *_) = claims_of(built)
    entries = first["predicate"]["buildDefinition"]["resolvedDependencies"]
    by_name = {one["name"]: one for one in entries}
    assert len(by_name) == len(entries)
    commit = built.lock.sources["base"].revision
    whole = by_name["base"]
    assert whole["uri"] == f"pkg:huggingface/herd/base@{commit}"
    assert whole["digest"] == {"gitCommit": commit}
    assert whole["annotations"]["license"] == "apache-2.0"
    root = built.recipe_path.parent
    read = {path for path in (root / "base").iterdir() if path.name != "model.safetensors.index.json"}
    for path in sorted(read):
        said = by_name[f"base: {path.name}"]
        assert said["uri"] == f"pkg:huggingface/herd/base@{commit}#{path.name}"
        assert said["downloadLocation"] == f"https://huggingface.co/herd/base/resolve/{commit}/{path.name}"
        content = path.read_bytes()
        known = {"sha256": hashlib.sha256(content).hexdigest(), "gitBlob": git_blob_id(content)}
        assert said["digest"].items() <= known.items()
        assert said["digest"]
        assert whole["annotations"]["files"][path.name] == {"size": len(content), **said["digest"]}
    # the definition of dirHash in in-toto's digest sets, in its own words: sha256sum of each file, then of that list
    listed = "".join(
        f"{hashlib.sha256((root / 'adapter' / name).read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(path.name for path in (root / "adapter").iterdir())
    )
    assert by_name["adapter of folded"]["digest"] == {"dirHash": hashlib.sha256(listed.encode()).hexdigest()}
    for name, file in {
        "recipe.yaml": built.layout.release_folder / "recipe.yaml",
        "recipe.lock.json": built.layout.release_folder / "recipe.lock.json",
        "task held_out: beside/task.yaml": root / "beside/task.yaml",
        "task data held_out: text.jsonl": root / "beside/text.jsonl",
        "leaderboard board: beside/board.csv": root / "beside/board.csv",
    }.items():
        assert by_name[name]["digest"] == {"sha256": sha256_file(file)}


def test_provenance_names_the_lineage_and_nothing_of_the_machine(built):
    (first, *_) = claims_of(built)
    (byproduct,) = first["predicate"]["runDetails"]["byproducts"]
    assert byproduct == {
        "name": LINEAGE,
        "digest": {"sha256": sha256_file(built.layout.release_folder / LINEAGE)},
    }
    assert str(built.recipe_path.parent) not in json.dumps(claims_of(built))
    assert "metadata" not in first["predicate"]["runDetails"]  # where times would stand


def test_results_are_those_that_were_measured(built):
    *_, base, mix = claims_of(built)
    for claim, name in ((base, "base"), (mix, "mix")):
        evidence = claim["predicate"]["herdbook_evidence"]
        path = built.layout.release_folder / evidence["name"]
        assert evidence["digest"] == {"sha256": sha256_file(path)}
        measured = json.loads(path.read_text())
        assert measured["name"] == name
        value = measured["tasks"]["held_out"]["metrics"]["bits_per_byte"]["value"]
        assert claim["predicate"]["herdbook_metrics"]["held_out"]["bits_per_byte"]["value"] == value
        settings, task, data = claim["predicate"]["configuration"]
        content = base64.b64decode(settings["content"])
        assert hashlib.sha256(content).hexdigest() == settings["digest"]["sha256"]
        assert json.loads(content) == measured["settings"]
        assert task["digest"] == {"sha256": sha256_file(built.layout.release_folder / task["name"])}
        assert data["digest"] == {"sha256": sha256_file(built.recipe_path.parent / "beside/text.jsonl")}
    for one in mix["subject"]:
        assert sha256_file(built.layout.release_folder / one["name"]) == one["digest"]["sha256"]
    own = {one["name"]: one["digest"]["sha256"] for one in base["subject"]}
    assert own == {
        f"base/{path.name}": sha256_file(path)
        for path in (built.recipe_path.parent / "base").glob("*.safetensors")
    }


def test_small_inputs_travel_with_the_release(built):
    carried = sorted(path for path in (built.layout.release_folder / INPUTS).iterdir())
    root = built.recipe_path.parent / "beside"
    assert {path.read_bytes() for path in carried} == {
        (root / name).read_bytes() for name in ("task.yaml", "board.csv")
    }
    assert {path.name.partition("-")[2] for path in carried} == {"task.yaml", "board.csv"}
    assert all(path.name[:12] == sha256_file(path)[:12] for path in carried)


def test_a_snapshot_that_changed_is_refused(built):
    from herdbook.errors import LockError

    path = built.recipe_path.parent / "beside/board.csv"
    content = path.read_bytes()
    path.write_bytes(content + b"more,1\n")
    with pytest.raises(LockError, match="has changed since it was locked"):
        tiny.release(built)
    path.write_bytes(content)


# -- bills of materials -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", BOMS)
def test_bills_are_valid_by_cyclonedx_s_own_schemas(built, version):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (built.layout.release_folder / BOMS[version]).read_text()
    validator = JsonStrictValidator(SchemaVersion.from_version(version))
    assert validator.validate_str(text) is None
    bill = json.loads(text)
    bill["metadata"]["component"]["modelCard"]["task"] = "misplaced"
    assert validator.validate_str(json.dumps(bill)) is not None


@pytest.mark.parametrize("version", BOMS)
def test_a_bill_is_read_by_cyclonedx_s_own_model(built, version):
    """All but the model card, which the library does not know."""
    from cyclonedx.model.bom import Bom

    found = Bom.from_json(bill_of(built, version))
    component = found.metadata.component
    assert (component.group, component.name, component.type.value) == (
        "herd",
        "Tiny",
        "machine-learning-model",
    )
    folder = built.layout.release_folder
    files = {one.name: next(iter(one.hashes)).content for one in component.components}
    listed = {line.partition("  ")[2]: line[:64] for line in (folder / SUMS).read_text().splitlines()}
    assert files == {name: sha256 for name, sha256 in listed.items() if name not in BOMS.values()}
    ancestors = {one.name: one for one in component.pedigree.ancestors}
    assert set(ancestors) == {"base", "tuned", "adapter"}
    for name in ("base", "tuned"):
        purl = ancestors[name].purl
        assert purl == PackageURL("huggingface", "herd", name, built.lock.sources[name].revision)
        assert ancestors[name].version == purl.version
    licences = {
        name: [(getattr(one, "id", None) or one.name, one.acknowledgement.value) for one in ancestor.licenses]
        for name, ancestor in ancestors.items()
    }
    assert licences == {
        "base": [("Apache-2.0", "declared")],
        "tuned": [("llama3.1", "declared")],  # SPDX knows no such licence
        "adapter": [("MIT", "concluded")],  # the recipe says so, not the adapter
    }
    root = built.recipe_path.parent
    for name, ancestor in ancestors.items():
        hashes = {one.name: next(iter(one.hashes)).content for one in ancestor.components if one.hashes}
        assert hashes == {file: sha256_file(root / name / file) for file in hashes}
        assert any(file.endswith(".safetensors") for file in hashes)
    refs = {one.bom_ref.value for one in found.components}
    assert {one.ref.value for one in found.dependencies} <= refs | {"release"}


def test_the_model_card_says_what_was_measured(built):
    card = bill_of(built, "1.6")["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["task"] == "text-generation"
    assert card["modelParameters"]["modelArchitecture"] == "MixtralForCausalLM"
    assert card["modelParameters"]["architectureFamily"] == "mixtral"
    (reference,) = card["modelParameters"]["datasets"]
    (data,) = [one for one in bill_of(built, "1.6")["components"] if one["type"] == "data"]
    assert data["bom-ref"] == reference["ref"]
    assert data["hashes"][0]["content"] == sha256_file(built.recipe_path.parent / "beside/text.jsonl")
    (path,) = (built.layout.release_folder / "provenance/evaluations").glob("mix-*.json")
    result = json.loads(path.read_text())["tasks"]["held_out"]
    (metric,) = [
        one for one in card["quantitativeAnalysis"]["performanceMetrics"] if one["type"] == "bits_per_byte"
    ]
    assert float(metric["value"]) == result["metrics"]["bits_per_byte"]["value"]
    assert metric["slice"].startswith(f"Tiny: held_out, {result['documents']} documents")
    assert any("never trained" in one for one in card["considerations"]["technicalLimitations"])
    notes = bill_of(built, "1.6")["metadata"]["component"]["pedigree"]["notes"]
    assert notes == "folded = adapter(base); mix = moe(base, tuned, folded)"


def test_serial_numbers_are_the_content_s(built):
    first, second = bill_of(built, "1.6"), bill_of(built, "1.7")
    assert first["serialNumber"] != second["serialNumber"]
    digests = {
        line.partition("  ")[2]: line[:64]
        for line in (built.layout.release_folder / SUMS).read_text().splitlines()
    }
    own = {name: sha256 for name, sha256 in digests.items() if name not in BOMS.values()}

    def read_json(name):
        return json.loads((built.layout.release_folder / name).read_text())

    assert bom(built, "1.6", own, read_json) == first
    changed = bom(built, "1.6", {**own, "README.md": "0" * 64}, read_json)
    assert changed["serialNumber"] != first["serialNumber"]
    assert "timestamp" not in json.dumps(first) + json.dumps(second)


@pytest.mark.parametrize("version", BOMS)
def test_a_licence_that_the_hub_does_not_list_is_named_with_its_address(built, version):
    own = {"license": "other", "license_name": "herd-1.0", "license_link": "https://example.org/herd-1.0"}
    release = built.recipe.release.model_copy(update=own)
    plan = dataclasses.replace(built, recipe=built.recipe.model_copy(update={"release": release}))
    digests = dict.fromkeys((LINEAGE, RECIPE, CARD), "0" * 64)
    folder = built.layout.release_folder
    bill = bom(plan, version, digests, lambda name: json.loads((folder / name).read_text()))
    (licence,) = bill["metadata"]["component"]["licenses"]
    assert licence["license"] == {
        "name": own["license_name"],
        "url": own["license_link"],
        "acknowledgement": "declared",
    }


def test_licences_are_spdx_s_where_both_mean_the_same():
    """Against CycloneDX's list of SPDX identifiers: equal but for capitals, and nothing that SPDX withdrew."""
    import importlib.resources

    known = json.loads(
        (importlib.resources.files("cyclonedx") / "schema/_res/spdx.SNAPSHOT.schema.json").read_text()
    )["enum"]
    withdrawn = {"agpl-3.0", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0"}  # "only", or "or later"?
    expected = {name.lower(): name for name in known}
    for name in LICENSES:
        assert spdx(name) == (None if name in withdrawn else expected.get(name)), name
    assert spdx("Apache License, maybe") is None


# -- steps -----------------------------------------------------------------------------------------------------------


def test_the_recorded_code_is_all_that_a_plan_asks_for():
    """The miniature has all that recipes have: without a name, its release could not be verified by other versions."""
    recipe = Path(__file__).parents[2] / "config/miniature.yaml"
    plan = plans.load(recipe)
    assert any(item.quantized for item in plan.evaluations)
    recorded = {code.of.name: {"modules": code.modules, "packages": code.packages} for code in codes(plan)}
    with as_recorded(RecordedCode("0.0.1", recorded)):
        again = plans.load(recipe)
        assert contents(again) == contents(plan)
        assert again.layout.header(again.conversion) == plan.layout.header(plan.conversion)


def test_keys_follow_from_a_record_in_one_way():
    """In every version that writes this build type.

    If this fails and the miniature's recipe and lock are as before, the number of the build type has to change, too.
    """
    recipe = Path(__file__).parents[2] / "config/miniature.yaml"
    names = {code.of.name for code in codes(plans.load(recipe))}
    same = {name: {"modules": {"herdbook.module": "of then"}, "packages": {"torch": "2"}} for name in names}
    with as_recorded(RecordedCode("0.0.1", same)):
        plan = plans.load(recipe)
        keys = {name: node.key for name, node in plan.nodes.items()}
        parts = [*plan.parts, *(item.key for item in (*plan.quantized, *plan.evaluations))]
    assert (BUILD_TYPE, digest([keys, parts])) == (
        "urn:herdbook:buildtype:release:v4",
        "4fdf7164c162d2aa5e0dae43de5d37577064188dc5829fa2f1cc2e2e156eec8b",
    )


def test_what_a_release_holds_follows_from_the_plan(built):
    assert PROVENANCE_TYPE in (built.layout.release_folder / CLAIMS).read_text()
    present = {
        path.relative_to(built.layout.release_folder).as_posix()
        for path in built.layout.release_folder.rglob("*")
        if path.is_file()
    }
    assert present == {*contents(built), LINEAGE, *BOMS.values(), SUMS, CLAIMS}
