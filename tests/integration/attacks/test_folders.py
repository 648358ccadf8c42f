"""Attacks on a release's folder: a small signed release is damaged in one way at a time, and caught where the table says."""

import json
import subprocess
from pathlib import Path

import pytest

from herdbook.layout import LOCK
from herdbook.plan.code import RecordedCode
from herdbook.release.finding import Outcome
from herdbook.verify.levels import LEVELS
from support import copies, lies
from support.attacks.content import POINTER
from support.attacks.forging import configured
from support.attacks.stage import REPO, files_of
from support.attacks.tables import ON_FOLDERS, tables
from support.sampled import sampled
from support.verification import findings, status

DOCS = Path(__file__).parents[3] / "docs/verify.md"


@pytest.fixture
def forger(stage, tmp_path):
    """A copy of the release whose attacker has no key."""
    return stage.copy(tmp_path / "copy")


def caught(found, by):
    return [
        one
        for one in found
        if one.outcome is Outcome.FAILED
        and (one.level, one.check) in {(by[0], by[1]), (by[0], by[1] or one.check)}
        and by[2] in one.subject
    ]


def test_the_release_itself_passes_all_levels(stage):
    for place in (stage.folder, REPO):
        if place == REPO:
            stage.hub.add_repo(REPO, files_of(stage.folder))
        found = findings(place, "equality", key=stage.root / "key.pub", seed=1)
        assert [one for one in found if one.outcome is not Outcome.PASSED] == []
    assert [
        one
        for one in findings(stage.folder, "equality", sample_bytes=None)
        if one.outcome is not Outcome.PASSED
    ] == []


@pytest.mark.parametrize(
    ("what", "attack", "by", "options"), sampled(ON_FOLDERS, every=3), ids=[row[0] for row in ON_FOLDERS]
)
def test_attack_on_a_folder(stage, forger, what, attack, by, options):
    attack(forger)
    level = by[0] if list(LEVELS).index(by[0]) > list(LEVELS).index("claims") else "claims"
    found = findings(forger, level, **({"key": stage.root / "key.pub"} if options else {}))
    assert status(found) == 8
    assert caught(found, by), [
        (one.level, one.check, one.subject) for one in found if one.outcome is not Outcome.PASSED
    ]


def test_whether_a_model_loads_is_unverified_where_transformers_does_not_have_its_type(forger):
    configured(model_type="of next year")(forger)
    [found] = [one for one in findings(forger) if one.check == "loads whole"]
    assert found.outcome is Outcome.UNVERIFIED
    assert found.detail == "transformers has no language model of type 'of next year'"


def test_what_clones_downloads_and_desktops_leave_is_ignored_in_one_line_each(stage, forger):
    copies.leave(forger)
    found = findings(forger, key=stage.root / "key.pub")
    assert [one for one in found if one.outcome is not Outcome.PASSED] == []
    assert [one.subject for one in found if one.check == "unlisted"] == [
        ".cache/huggingface", ".git", ".gitattributes", "files of macOS and Windows",
    ]  # fmt: skip


def test_a_clone_by_git_itself_is_ignored(stage, tmp_path):
    def git(*arguments):
        subprocess.run(("git", "-c", "user.name=a", "-c", "user.email=a@a", *arguments), check=True)

    git("init", "-q", str(stage.copy(tmp_path / "origin")))
    git("-C", str(tmp_path / "origin"), "add", "-A")
    git("-C", str(tmp_path / "origin"), "commit", "-qm", "Release")
    git("clone", "-q", f"file://{tmp_path}/origin", str(tmp_path / "clone"))
    assert status(findings(tmp_path / "clone", key=stage.root / "key.pub")) == 0


def test_a_pointer_of_git_lfs_comes_with_advice(forger):
    path = next(forger.glob("model-*.safetensors"))
    path.unlink()
    path.write_bytes(POINTER)
    assert any(
        one.file == path.name and one.check == "sums" and "git lfs pull" in one.detail
        for one in findings(forger, "files")
    )


@pytest.mark.parametrize("named", ["this version", "another version"])
@pytest.mark.parametrize("version", [None, 0, 2])
def test_a_lock_of_another_format_fails_unless_another_version_is_named(forger, monkeypatch, version, named):
    lock = json.loads((forger / LOCK).read_text())
    (forger / LOCK).write_text(json.dumps({**lock, "version": version}))
    lies.write_sums(forger)
    if named == "another version":
        monkeypatch.setattr(RecordedCode, "is_of_another_version", True)
    found = findings(forger, "equality")
    about = [one for one in found if f"{LOCK}: " in one.detail]
    assert {one.level for one in about} == {"claims", "upstream"}  # the others do not read it
    told = f"is of version {version} of its format" if version is not None else "does not state the version"
    assert all(told in one.detail for one in about)
    failed = {one.level for one in about if one.outcome is Outcome.FAILED}
    assert failed == ({"claims"} if named == "this version" else set())
    assert {one.outcome for one in found} <= {Outcome.PASSED, Outcome.UNVERIFIED, Outcome.FAILED}


def test_the_documentation_has_these_tables():
    assert tables() in DOCS.read_text(encoding="utf-8")
