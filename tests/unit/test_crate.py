"""The RO-Crate of a release against the release: its folder walked, its records read, the Hub's own bytes hashed."""

import base64
import hashlib
import json
import os
import re
import zipfile

import pytest
from pytest_local_hub import LocalHub, client

from herdbook.cli.main import main
from herdbook.files import git_blob_id
from herdbook.layout import CLAIMS, SUMS
from herdbook.provenance.claims import canonical
from herdbook.publish.claims import published
from support import copies, ro_crate
from support.ro_crate import DAY, LICENSE, METADATA, entities, export, ids, many, typed

LARGE = (".safetensors", ".gguf")
COMMIT = "5" * 40


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crate")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, folder / "home", patch)
        yield hub, ro_crate.release(folder, hub)


@pytest.fixture(scope="module")
def crate(world, tmp_path_factory):
    _, release = world
    place = tmp_path_factory.mktemp("exported") / "crate"
    assert export(release, place) == 0
    return place


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def name_of(content):
    """Return the URI of RFC 6920 for some bytes."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().replace("=", "")
    return f"ni:///sha-256;{digest}"


def by_digest(found):
    """Return the ``@id``s of all files by digest."""
    digests = {}
    for entity in typed(found, "File"):
        digests.setdefault(entity.get("sha256"), set()).add(entity["@id"])
    return digests


def test_it_holds_all_small_files_of_the_release_and_describes_every_one(world, crate):
    release, found = contents(world[1]), entities(crate)
    for name, content in release.items():
        entity = found[name_of(content) if name.endswith(LARGE) else name]
        assert entity["sha256"] == hashlib.sha256(content).hexdigest(), name
        assert entity["contentSize"] == str(len(content)), name
        assert {"@id": entity["@id"]} in found["./"]["hasPart"]
    small = {name: content for name, content in release.items() if not name.endswith(LARGE)}
    held = contents(crate)
    del held[METADATA]
    assert held == small


def test_every_reference_leads_to_an_entity(crate):
    found = entities(crate)

    def references(value):
        if isinstance(value, dict):
            yield value["@id"]
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    named = {
        one
        for entity in found.values()
        for key, value in entity.items()
        if key[0] != "@"
        for one in references(value)
    }
    # the specification is no entity of the crate; the profiles are
    assert named - found.keys() == {"https://w3id.org/ro/crate/1.1"}
    # what nothing leads to: the crate's own file, and what says which step an action carried out
    unnamed = {one for one in found if one not in named}
    assert {found[one]["@type"] for one in unnamed} == {"CreativeWork", "ControlAction"}


def test_a_licence_that_the_hub_does_not_list_is_named_with_its_address(crate):
    found = entities(crate)
    licence = found[found["./"]["license"]["@id"]]
    assert (licence["@id"], licence["name"]) == (LICENSE["license_link"], LICENSE["license_name"])


def test_sources_are_the_hub_s_own_files(world, crate):
    hub, found = world[0], entities(crate)
    for name in ("base", "tuned"):
        repo = hub.repos[f"herd/{name}"]
        commit = repo.branches["main"]
        source = found[f"https://huggingface.co/herd/{name}/tree/{commit}/"]
        assert source["identifier"] == f"pkg:huggingface/herd/{name}@{commit}"
        assert found[source["license"]["@id"]]["name"] == "Apache-2.0"
        files = {file: blob.content for file, blob in repo.find("main").files.items()}
        for address in ids(source, "hasPart"):
            prefix, _, file = address.rpartition("/")
            assert prefix == f"https://huggingface.co/herd/{name}/resolve/{commit}"
            content, entity = files[file], found[address]
            assert entity["contentSize"] == str(len(content))
            if "sha256" in entity:
                assert entity["sha256"] == hashlib.sha256(content).hexdigest()
            else:
                assert entity["identifier"] == f"swh:1:cnt:{git_blob_id(content)}"
        weights = {file for file in files if file.endswith(".safetensors")}
        assert weights <= {address.rpartition("/")[2] for address in ids(source, "hasPart")}
    adapter = next(one for one in typed(found, "Dataset") if one["name"] == "adapter of folded")
    assert {found[one]["name"] for one in ids(adapter, "hasPart")} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_actions_are_what_the_records_say(world, crate):
    found, release = entities(crate), world[1]
    digests = by_digest(found)
    paths = sorted((release / "provenance/records").glob("*.json"))
    records = {path: json.loads(path.read_text()) for path in paths}
    by_key = {record["key"]: record for record in records.values()}
    lock = json.loads((release / "recipe.lock.json").read_text())
    locked = {
        file.get("sha256") or file.get("git_blob"): file["name"]
        for source in lock["sources"].values()
        for file in source["files"]
    }
    assert paths
    for path, record in records.items():
        action = found[found[f"provenance/records/{path.name}"]["about"]["@id"]]
        assert action["@type"] == "CreateAction"
        assert found[action["instrument"]["@id"]]["name"] == f"herdbook {record['operation']}"
        (result,) = ids(action, "result")
        assert found[result]["sha256"] == record["file"]["sha256"]
        told = [found[one] for one in ids(action, "object") if found[one]["@type"] == "PropertyValue"]
        assert {one["name"]: read(one["value"]) for one in told} == {
            name: read(value) for name, value in record["parameters"].items()
        }
        used = {one for one in ids(action, "object") if "File" in many(found[one]["@type"])}
        parents = {
            by_key[cited["key"]]["file"]["sha256"]
            for tensor in record["tensors"].values()
            for cited in tensor.get("from", [])
        }
        assert all(digests[parent] & used for parent in parents)
        if record["operation"] == "fetch":
            (upstream,) = (found[one] for one in used)
            told = record["parameters"]
            assert upstream["name"] == locked[told["file"]]
            assert ("Only ranges" in upstream.get("description", "")) == ("ranges" in told)
        elif record["operation"] == "adapter":
            assert len(used) == len(parents) + 2
        elif parents:
            assert len(used) == len(parents)


def read(value):
    """Return a value as JSON says it, if it is JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def test_a_router_was_fitted_by_the_base_model(world, crate):
    found = entities(crate)
    (routers,) = [
        one for one in found.values() if "mix.routers" in one["@id"] and one["@type"] == "CreateAction"
    ]
    names = {found[one]["name"] for one in ids(routers, "object")}
    assert {"gate", "prompts", "tokenizer.json", "config.json"} <= names
    packages = ids(found[routers["instrument"]["@id"]], "softwareRequirements")
    assert {"torch", "transformers"} <= {found[one]["name"] for one in packages}


def test_the_recipe_is_the_workflow_and_each_step_was_carried_out(world, crate):
    found = entities(crate)
    workflow = found[found["./"]["mainEntity"]["@id"]]
    assert workflow["name"] == "recipe.yaml"
    steps = {one: found[one] for one in ids(workflow, "step")}
    assert {step["name"] for step in steps.values()} == {
        "base = fetch()",
        "tuned = fetch()",
        "folded = adapter(base)",
        "cut = laser(tuned)",
        "mix = moe(base, cut, folded)",
        "report on routers",
    }
    ran = typed(found, "ControlAction")
    assert {one["instrument"]["@id"] for one in ran} == set(steps)
    for one in ran:
        tool = found[one["object"]["@id"]]["instrument"]
        assert tool == steps[one["instrument"]["@id"]]["workExample"]
        assert tool in many(workflow["hasPart"])
    order = sorted(steps.values(), key=lambda step: int(step["position"]))
    seen = set()
    for step in order:
        name, _, formula = step["name"].partition(" = ")
        assert set(re.findall(r"\w+", formula.partition("(")[2])) <= seen
        seen.add(name)


def test_the_whole_run_leads_from_what_was_taken_to_the_release(world, crate):
    found, release = entities(crate), contents(world[1])
    (run,) = [one for one in typed(found, "CreateAction") if one["instrument"]["@id"] == "recipe.yaml"]
    assert {found[one]["name"] for one in ids(run, "object")} == {
        "recipe.lock.json",
        "base",
        "tuned",
        "adapter of folded",
    }
    assert {found[one]["name"] for one in ids(run, "result")} == release.keys() - {
        "recipe.yaml",
        "recipe.lock.json",
    }


def test_it_tells_no_time_but_the_day_that_was_told(crate):
    text = (crate / METADATA).read_text()
    found = entities(crate)
    assert found["./"]["datePublished"] == DAY
    assert re.findall(r"\b20\d\d-\d\d-\d\d", text) == [DAY]
    assert not {key for one in found.values() for key in one} & {
        "startTime",
        "endTime",
        "dateCreated",
        "agent",
    }


def test_the_same_release_gives_the_same_bytes(world, crate, tmp_path, monkeypatch):
    release = world[1]
    for number, zone in enumerate(("UTC", "Asia/Tokyo")):
        monkeypatch.setenv("TZ", zone)
        for path in release.rglob("*"):
            os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        assert export(release, tmp_path / f"{number}.zip") == 0
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "0.zip") as archive:
        assert archive.testzip() is None
        assert {one.date_time for one in archive.infolist()} == {
            (1980, 1, 1, 0, 0, 0)
        }  # what a zip without times says
        packed = {name: archive.read(name) for name in archive.namelist()}
    assert packed == contents(crate)


@pytest.mark.parametrize("place", ["crate", "crate.zip"])
def test_a_file_that_is_not_what_the_checksums_say_ends_it(world, tmp_path, capsys, place):
    release = copy_of(world[1], tmp_path / "release")
    (release / "config.json").write_text("{}")
    assert export(release, tmp_path / place) == 5
    assert "config.json" in capsys.readouterr().err
    assert not (tmp_path / place if place.endswith("zip") else tmp_path / place / METADATA).exists()


def test_a_missing_file_of_weights_is_named(world, tmp_path, capsys):
    release = copy_of(world[1], tmp_path / "release")
    (release / "model-00002-of-00004.safetensors").unlink()
    assert export(release, tmp_path / "crate") == 8
    assert "model-00002-of-00004.safetensors: is missing" in capsys.readouterr().err


def test_what_copies_leave_in_a_folder_is_named_and_not_packed(world, crate, tmp_path, capsys):
    release = copy_of(world[1], tmp_path / "release")
    copies.leave(release)
    (release / "notes.txt").write_text("mine")
    assert export(release, tmp_path / "crate") == 0
    assert contents(tmp_path / "crate") == contents(crate)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        ".cache/huggingface", ".git", ".gitattributes", "files of macOS and Windows", "notes.txt",
    ]  # fmt: skip


def test_nothing_is_overwritten(world, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/own.txt").write_text("mine")
    assert export(world[1], tmp_path / "there") == 7
    assert "there: exists" in capsys.readouterr().err
    assert contents(tmp_path) == {"there/own.txt": b"mine"}


def test_a_day_that_is_none_is_refused(world, tmp_path, capsys):
    arguments = ["export", "ro-crate", str(world[1]), "--to", str(tmp_path / "x"), "--published", "yesterday"]
    assert main(arguments) == 2
    assert "yesterday" in capsys.readouterr().err


def test_weights_of_a_published_release_have_web_addresses(world, tmp_path):
    release = copy_of(world[1], tmp_path / "release")
    sums = hashlib.sha256((release / SUMS).read_bytes()).hexdigest()
    with (release / CLAIMS).open("ab") as file:
        for digest, repo in ((sums, "herd/Tiny"), ("0" * 64, "others/Thing")):
            claim = published({SUMS: digest}, f"pkg:huggingface/{repo}@{COMMIT}")
            file.write(canonical(claim) + b"\n")
    assert export(release, tmp_path / "crate") == 0
    found = entities(tmp_path / "crate")
    for name, content in contents(release).items():
        if name.endswith(LARGE):
            entity = found[f"https://huggingface.co/herd/Tiny/resolve/{COMMIT}/{name}"]
            assert entity["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_release_on_the_hub_is_exported_without_its_weights(world, crate, tmp_path):
    hub, release = world
    hub.add_repo("herd/Tiny", contents(release))
    commit = hub.repos["herd/Tiny"].branches["main"]
    hub.forget()
    assert export("herd/Tiny", tmp_path / "crate") == 0
    assert not [one for one in hub.requests if re.search(r"/resolve/.*safetensors$", one.path)]
    here, there = entities(crate), entities(tmp_path / "crate")
    weights = {name: name_of(content) for name, content in contents(release).items() if name.endswith(LARGE)}
    for name, other in weights.items():
        address = f"{hub.url}/herd/Tiny/resolve/{commit}/{name}"
        assert there[address] == here[other] | {"@id": address}
    text = json.dumps(there, sort_keys=True)
    for name, other in weights.items():
        text = text.replace(f"{hub.url}/herd/Tiny/resolve/{commit}/{name}", other)
    assert json.loads(text) == here


def copy_of(release, place):
    for name, content in contents(release).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place
