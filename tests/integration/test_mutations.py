"""Every field of the lock, the records and the configuration is changed, and caught where the table says that it is derived.

A builder changes one field, derives everything else from that by the tool's own code, and signs it afresh.
"""

import json
import shutil

import pytest
from pytest_local_hub import LocalHub, client

from herdbook.layout import CONFIG, LOCK, RECORDS
from herdbook.release.finding import Outcome
from herdbook.steps.card.step import render_card
from herdbook.verify.levels import LEVELS
from herdbook.verify.proofs import ASSERTED, FACTS, RECORD
from support import lies, tiny
from support.verification import findings, status

pytestmark = pytest.mark.usefixtures("transformers_here")

NAMES = list(LEVELS)
LAST = "recomputed"  # a rebuild takes too long for each field
MODELS = {
    "base": {"hub": "herd/base"},
    "tuned": {"hub": "herd/tuned"},
    "cut": {"laser": "tuned", "rank": "mp-edge", "matrices": ["mlp.down_proj"]},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [{"model": "cut", "prompts": ["w1"]}, {"model": "base", "prompts": ["w2"]}],
        }
    },
}
# What a field of a source is changed to, where another text or number would not do.
SOURCE = {
    "asked": {"hub": "herd/other"},
    "weights": "gguf",
    "revision": "0" * 40,
    "license": "mit",
    "base_models": ["a/b"],
    "gated": "manual",
    "generation": {"temperature": 2.0},
    "chat_template": True,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("mutations")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        for seed, name in enumerate(("base", "tuned")):
            files = tiny.write_model(root / name, seed=seed, shards=2)
            hub.add_repo(
                f"herd/{name}",
                {path.name: path.read_bytes() for path in files.iterdir()},
                license="apache-2.0",
            )
        plan = tiny.build(tiny.write_recipe(root / "r.yaml", MODELS), root / "results")
        render_card(plan, plan.layout.card_folder)
        folder = tiny.release(plan, lies.KEY)
        assert status(findings(folder, LAST)) == 0
        yield folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def level_of(file, field):
    """Return the last level in the table that proves a field."""
    levels = [fact.level for fact in FACTS if fact.file == file and field in fact.fields]
    assert levels, f"{field} of {file} is not in the table"
    return min(levels, key=lambda level: NAMES.index(level) if level in NAMES else len(NAMES))


def caught(folder, level):
    """Return the first level that does not pass, as the command runs them."""
    found = [one for one in findings(folder, level, sample_bytes=None) if one.outcome is not Outcome.PASSED]
    return next((name for name in NAMES if any(one.level == name for one in found)), None)


def other(value):
    """Return a value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value[:-1] + ("0" if value[-1:] != "0" else "1")
        case list():
            return value[:-1]
        case dict():
            return {name: other(entry) for name, entry in value.items()} if value else {"more": 1}
    return "something"


def holds(folder, change, file, field):
    """Check that a change is caught at its level at the latest, or passes all levels if the field is asserted."""
    level = level_of(file, field)
    try:
        with lies.told(folder):
            change()
    except Exception:  # noqa: BLE001 - what cannot even be derived from is caught as early as can be
        lies.write_sums(folder)
    seen = caught(folder, level if level in NAMES[: NAMES.index(LAST)] else LAST)
    if level == ASSERTED or NAMES.index(level) > NAMES.index(LAST):
        assert seen is None
    else:
        assert seen is not None
        assert NAMES.index(seen) <= NAMES.index(level)


@pytest.mark.parametrize(
    "field",
    [
        f.removeprefix("sources.")
        for fact in FACTS
        if fact.file == LOCK
        for f in fact.fields
        if "sources." in f
    ],
)
def test_a_field_of_a_source(folder, field):
    def change():
        lock = json.loads((folder / LOCK).read_text())
        for source in lock["sources"].values():
            if field == "config":
                source["config"]["rope_theta"] += 1
            elif field == "tokens":
                source["tokens"]["sha256"] = other(source["tokens"]["sha256"])
            else:
                source[field] = SOURCE[field] if field in SOURCE else other(source[field])
        (folder / LOCK).write_text(json.dumps(lock))

    holds(folder, change, LOCK, f"sources.{field}")


@pytest.mark.parametrize("field", ["version", "token_differences"])
def test_a_field_of_the_lock(folder, field):
    def change():
        lock = json.loads((folder / LOCK).read_text())
        more = [{"between": ["0" * 64, "1" * 64], "moved": 1, "moved_token": ["w", 1, 2]}]
        lock[field] = 2 if field == "version" else more
        (folder / LOCK).write_text(json.dumps(lock))

    holds(folder, change, LOCK, field)


@pytest.mark.parametrize("field", ["key", "code", "operation", "parameters", "file"])
def test_a_field_of_a_record(folder, field):
    def change():
        (path,) = folder.glob(f"{RECORDS}/cut.*.json")
        record = json.loads(path.read_text())
        record[field] = other(record[field])
        path.write_text(json.dumps(record))

    holds(folder, change, RECORD, field)


@pytest.mark.parametrize(
    "field",
    sorted(
        {
            f.removeprefix("tensors.")
            for fact in FACTS
            if fact.file == RECORD
            for f in fact.fields
            if "tensors." in f
        }
    ),
)
def test_a_field_of_a_reduced_tensor(folder, field):
    def change():
        (path,) = folder.glob(f"{RECORDS}/{'mix.routers' if field == 'gate' else 'cut.'}*.json")
        record = json.loads(path.read_text())
        for entry in record["tensors"].values():
            if entry["action"] == "laser":
                *outer, last = field.split(".")
                target = entry[outer[0]] if outer else entry
                target[last] = other(target.get(last, "cpu"))
            elif entry["action"] == "router" and field == "gate":
                entry["gate"] = other(entry["gate"])
        path.write_text(json.dumps(record))

    holds(folder, change, RECORD, f"tensors.{field}")


def test_each_field_of_these_records_is_in_the_table(made):
    listed = {field for fact in FACTS if fact.file == RECORD for field in fact.fields}
    for path in made.glob(f"{RECORDS}/*.json"):
        record = json.loads(path.read_text())
        assert record.keys() - {"tensors"} <= listed
        for entry in record["tensors"].values():
            assert {f"tensors.{field}" for field in entry} <= listed


def test_each_field_of_the_configuration(made, tmp_path):
    fields = [*json.loads((made / CONFIG).read_text()), "auto_map"]
    folder = shutil.copytree(made, tmp_path / "copy")
    original = (folder / CONFIG).read_text()
    for field in fields:
        config = json.loads(original)
        config[field] = other(config.get(field))
        with lies.told(folder):
            (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        found = findings(folder)
        assert any(one.check == "side files" and one.outcome is Outcome.FAILED for one in found), field
