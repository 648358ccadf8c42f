"""An older release in the place of a newer one: told by a digest, or by a tag of its repository."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from pytest_local_hub import LocalHub, client

from herdbook.cli.main import main
from herdbook.release.finding import Options, Outcome
from herdbook.release.reader import Release
from herdbook.release.subject import open_subject
from herdbook.steps.card.step import render_card
from herdbook.verify import reference
from herdbook.verify.facts import AGE
from herdbook.verify.proofs import unproven
from support import tiny
from support.verification import findings, status

REPO = "herd/Tiny"


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


class Stage:
    """A repository with three releases, of which two are tagged, and what was committed between them."""

    def __init__(self, hub, root):
        self.hub = hub
        tiny.write_model(root / "base")
        hub.add_repo("herd/base", files_of(root / "base"), license="apache-2.0")
        self.folders, self.commits = [], []
        for number in (1, 2, 3):
            release = {"license": "apache-2.0", "name": f"Tiny-{number}"}
            recipe = tiny.write_recipe(
                root / f"{number}.yaml", {"base": {"hub": "herd/base"}}, release=release
            )
            plan = tiny.build(recipe, root / "results")
            render_card(plan, plan.layout.card_folder)
            self.folders.append(tiny.release(plan))
            files = files_of(self.folders[-1])
            self.commits.append(hub.commit(REPO, files) if self.commits else hub.add_repo(REPO, files))
            if number < 3:
                hub.tag(REPO, f"v{number}")
            hub.commit(REPO, {"notes.jpg": str(number).encode()})

    def digest(self, number):
        return hashlib.sha256((self.folders[number - 1] / "SHA256SUMS").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    root = tmp_path_factory.mktemp("stage")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        yield Stage(hub, root)


def told(place, **options):
    """Return outcome and detail of what is said about the release's age."""
    return [
        (one.outcome, one.detail) for one in findings(place, "files", **options) if one.check == "reference"
    ]


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_a_digest_tells_each_release_from_the_others(shared, place):
    for number in (1, 2):
        where = shared.folders[number - 1] if place == "folder" else f"{REPO}@v{number}"
        [(outcome, _)] = told(where, expect=shared.digest(number))
        assert outcome is Outcome.PASSED
        [bad] = [
            one
            for one in findings(where, "files", expect=shared.digest(3 - number))
            if one.outcome is not Outcome.PASSED
        ]
        assert (bad.check, bad.expected, bad.found) == (
            "reference",
            shared.digest(3 - number),
            shared.digest(number),
        )
    assert not told(shared.folders[0])


@pytest.mark.parametrize(
    ("revision", "tag", "expected"),
    [
        ("v1", "v1", "or a newer one"),
        ("v2", "v1", "or a newer one"),
        ("main", "v1", "or a newer one"),
        ("main", "v2", "or a newer one"),
        ("v2", "v2", "or a newer one"),
        ("v1", "v2", "is at a commit before v2"),
        ("main", "v9", "no tag v9"),
    ],
)
def test_a_tag_tells_older_releases(shared, revision, tag, expected):
    [(outcome, detail)] = told(f"{REPO}@{revision}", not_before=tag)
    assert expected in detail
    assert (outcome is Outcome.PASSED) == (expected == "or a newer one")


def test_an_older_release_committed_once_more_is_told(shared):
    hub = shared.hub
    new = files_of(shared.folders[2])
    hub.add_repo("herd/Again", files_of(shared.folders[0]))
    first = open_subject("herd/Again").commit
    gone = dict.fromkeys(files_of(shared.folders[0]).keys() - new.keys())
    hub.commit("herd/Again", {**gone, **new})
    hub.tag("herd/Again", "v3")
    back = dict.fromkeys(new.keys() - files_of(shared.folders[0]).keys())
    hub.commit("herd/Again", {**back, **files_of(shared.folders[0])})
    assert status(findings("herd/Again", "files")) == 0
    [(outcome, detail)] = told("herd/Again", not_before="v3")
    assert outcome is Outcome.FAILED
    assert f"published at {first}" in detail


def test_more_commits_than_are_read_are_unverified(shared, monkeypatch):
    monkeypatch.setattr(reference, "MAX_OLDER", 1)
    [(outcome, detail)] = told(f"{REPO}@main", not_before="v2")
    assert outcome is Outcome.UNVERIFIED
    assert "more than 1 commits" in detail


def test_what_is_said_of_the_age(shared, capsys, tmp_path):
    folder, digest = str(shared.folders[0]), shared.digest(1)
    assert main(["verify", folder, "--level", "files", "--json", str(tmp_path / "found.json")]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert digest in first
    assert "an older release would pass, too: only --expect or --not-before can exclude it" in first
    assert json.loads((tmp_path / "found.json").read_text())["digest"] == digest
    assert main(["verify", folder, "--level", "files", "--expect", f"SHA256:{digest.upper()}"]) == 0
    out = capsys.readouterr().out
    assert "would pass, too" not in out
    assert AGE not in out
    assert main(["verify", folder, "--level", "files", "--expect", shared.digest(2)]) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--expect", "123"], "expected a SHA-256, 64 hexadecimal digits"),
        (["--not-before", "v1"], "--not-before is for repositories on the Hub"),
    ],
)
def test_wrong_references_are_refused(shared, capsys, arguments, message):
    assert main(["verify", str(shared.folders[0]), *arguments]) == 2
    assert message in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_a_reference_is_no_longer_unproven(shared):
    release = Release(open_subject(str(shared.folders[0])))
    assert any(AGE in each for each in unproven(release, "files", ["files"], Options()))
    assert not any(AGE in each for each in unproven(release, "files", ["files"], Options(expect="0" * 64)))


def test_publish_prints_the_digest(shared, tmp_path, capsys):
    assert main(["publish", "--release", str(shared.folders[0]), "--to", str(tmp_path / "copy")]) == 0
    assert shared.digest(1) in capsys.readouterr().out
    assert Path(tmp_path / "copy/SHA256SUMS").is_file()
