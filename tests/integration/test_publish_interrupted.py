"""Publishing while others do, and on a Hub that fails, over real HTTP with the real client."""

import hashlib
import json
import threading
from collections import Counter

import pytest
from huggingface_hub import HfApi

from herdbook.errors import StepError
from herdbook.hub import MAX_WAIT_S, WAITS_S
from herdbook.publish import step
from herdbook.signing.signer import line
from support import dummy_release
from support.publishing import (
    REPO,
    asked,
    at,
    before_the_first_commit,
    contents,
    publish,
    published_claims,
    releases,
    titles,
)
from support.sampled import sampled

# --- others at the same time ------------------------------------------------------------------------------------------


def test_somebody_adds_a_file_meanwhile_and_both_are_there(hub, tmp_path, said, waits, monkeypatch):
    release = dummy_release.write(tmp_path, publish={"tag": "v1"})
    before_the_first_commit(monkeypatch, lambda: hub.commit(REPO, {"NOTES.md": b"by hand"}))
    done = publish(release, said)
    assert [one.status for one in asked(hub, "POST", "/commit/")] == [412, 200, 200]
    assert "someone else has committed in the meantime; trying again in 1 s" in said[1]
    assert at(hub, done.commit)["NOTES.md"] == b"by hand"
    assert releases(hub) == ["Release Tiny v1"]
    assert hub.repos[REPO].tags == {"v1": done.commit}


def test_somebody_adds_a_claim_meanwhile_and_both_are_there(hub, tmp_path, waits, monkeypatch):
    publish(dummy_release.write(tmp_path / "1"))
    summary = json.dumps(
        {"subject": [], "predicateType": "https://slsa.dev/verification_summary/v1"}
    ).encode()
    release = dummy_release.write(tmp_path / "2", weights=b"others")

    def claim():
        hub.commit(REPO, {"claims.jsonl": at(hub)["claims.jsonl"] + summary + b"\n"})

    before_the_first_commit(monkeypatch, claim)
    publish(release)
    claims = at(hub)["claims.jsonl"]
    assert summary in claims.splitlines()
    assert len(published_claims(claims)) == 2


def test_the_same_release_by_another_publisher_meanwhile_is_no_second_commit(
    hub, tmp_path, waits, monkeypatch
):
    release = dummy_release.write(tmp_path, publish={"tag": "v1"})
    others = []
    before_the_first_commit(monkeypatch, lambda: others.append(publish(release)))
    mine = publish(release)
    assert mine == others[0]
    assert releases(hub) == ["Release Tiny v1"]
    assert len(published_claims(at(hub)["claims.jsonl"])) == 1


def test_another_release_by_another_publisher_meanwhile_is_not_overwritten_unseen(
    hub, tmp_path, said, waits, monkeypatch
):
    mine = dummy_release.write(tmp_path / "1", publish={"tag": "v1"})
    theirs = dummy_release.write(
        tmp_path / "2", publish={"tag": "v2"}, files={"only.json": b"1"}, weights=b"others"
    )
    before_the_first_commit(monkeypatch, lambda: publish(theirs))
    with pytest.raises(StepError, match="someone else committed") as refused:
        publish(mine, said)
    for name in ("README.md", "SHA256SUMS", "model.safetensors", "only.json", "recipe.yaml"):
        if at(hub).get(name) != contents(mine.folder).get(name):
            assert name in str(refused.value)
    assert "run the command again if this release should replace them" in str(refused.value)
    assert releases(hub) == ["Release Tiny v2"]
    assert hub.repos[REPO].tags.keys() == {"v2"}
    assert at(hub, "v2")["model.safetensors"] == b"others"

    publish(mine)  # whoever runs again has been told
    assert releases(hub) == ["Release Tiny v2", "Release Tiny v1"]
    assert at(hub)["model.safetensors"] == contents(mine.folder)["model.safetensors"]
    assert "only.json" not in at(hub)
    assert len(published_claims(at(hub)["claims.jsonl"])) == 2
    assert at(hub, "v2")["only.json"] == b"1"


def test_an_edit_of_the_card_meanwhile_is_not_overwritten_unseen(hub, tmp_path, waits, monkeypatch):
    publish(dummy_release.write(tmp_path / "1"))
    before_the_first_commit(monkeypatch, lambda: hub.commit(REPO, {"README.md": b"by hand"}))
    with pytest.raises(StepError, match="undo its changes of README.md. Nothing was committed"):
        publish(dummy_release.write(tmp_path / "2", card="Better"))
    assert at(hub)["README.md"] == b"by hand"


@pytest.mark.parametrize("attempt", range(3))
def test_two_publishers_side_by_side(hub, tmp_path, waits, attempt):
    """Whatever the order: of the same release one commit and one claim; of two, each that says so is there."""
    release = dummy_release.write(tmp_path / "1", publish={"tag": "v1"})
    other = dummy_release.write(tmp_path / "2", publish={"tag": "v2"}, weights=b"others")
    results = {}

    def run(name, what):
        try:
            results[name] = publish(what)
        except StepError as error:
            results[name] = error

    threads = [
        threading.Thread(target=run, args=(name, what))
        for name, what in (("one", release), ("two", release), ("other", other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = {name: result for name, result in results.items() if isinstance(result, step.Publication)}
    assert done, results
    if {"one", "two"} <= done.keys():
        assert done["one"] == done["two"]
    assert all(count == 1 for count in Counter(releases(hub)).values())
    claims = [each["predicate"]["purl"] for each in published_claims(at(hub)["claims.jsonl"])]
    assert len(claims) == len(set(claims))
    for result in done.values():
        assert hub.repos[REPO].tags[result.tag] == result.commit
        assert result.purl in claims
        weights = contents((other if result.tag == "v2" else release).folder)["model.safetensors"]
        assert at(hub, result.commit)["model.safetensors"] == weights
    for result in results.values():
        if isinstance(result, StepError):
            assert "someone else committed" in str(result) or "another release" in str(result)


def test_somebody_makes_the_repository_public_meanwhile(hub, tmp_path, monkeypatch):
    real = HfApi.create_repo

    def quicker(self, name, **options):
        hub.add_repo(name, {}, private=False)
        return real(self, name, **options)

    monkeypatch.setattr(HfApi, "create_repo", quicker)
    with pytest.raises(StepError, match="is public, but publish.private is true"):
        publish(dummy_release.write(tmp_path, publish={"private": True}))
    assert hub.lfs == {}
    assert asked(hub, "POST", "/commit/") == []


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["release", "claim"])
@pytest.mark.parametrize(
    ("kind", "late"), [("lost", False), (503, True), (500, True), ("drop", False), (503, False), (429, False)]
)
def test_a_commit_without_a_good_answer_is_made_once(hub, tmp_path, said, waits, which, kind, late):
    release = dummy_release.write(tmp_path, publish={"tag": "v1"})

    def sign(claim):
        if which == "claim" and not hub.faults:
            hub.fault("POST", "/commit/", kind, late=late)
        return line(claim, None).decode().rstrip("\n")

    if which == "release":
        hub.fault("POST", "/commit/", kind, late=late)
    done = step.publish(release, REPO, sign, said.append)
    assert titles(hub) == ["initial commit", "Release Tiny v1", f"Claim: published as {done.commit}"]
    assert hub.repos[REPO].tags == {"v1": done.commit}
    assert len(published_claims(at(hub)["claims.jsonl"])) == 1
    assert [each.times for each in hub.faults] == [0]
    taken = late or kind == "lost"
    assert len(asked(hub, "POST", "/commit/")) == (2 if taken else 3)
    assert any("trying again in 1 s" in each for each in said)
    assert any("already contains the release" in each for each in said) is (taken and which == "release")


def test_killed_after_a_lost_answer_the_next_run_goes_on(hub, tmp_path, said, monkeypatch):
    release = dummy_release.write(tmp_path, publish={"tag": "v1"})

    def killed(_):
        raise KeyboardInterrupt

    hub.fault("POST", "/commit/", "lost")
    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(release)
    assert titles(hub) == ["initial commit", "Release Tiny v1"]
    assert hub.repos[REPO].tags == {}
    head = hub.repos[REPO].branches["main"]
    done = publish(release, said)
    assert "already contains the release" in said[0]
    assert done.commit == head
    assert titles(hub) == ["initial commit", "Release Tiny v1", f"Claim: published as {head}"]
    assert hub.repos[REPO].tags == {"v1": head}


def test_an_upload_that_is_cut_goes_on_with_what_is_not_there_yet(hub, tmp_path, said, waits):
    release = dummy_release.write(tmp_path, files={"big.gguf": bytes(range(256)) * 4096})
    big = hashlib.sha256(contents(release.folder)["big.gguf"]).hexdigest()
    small = hashlib.sha256(contents(release.folder)["model.safetensors"]).hexdigest()
    hub.fault("PUT", f"/upload/{big}", "cut upload", times=10**6)
    with pytest.raises(StepError, match="sent no complete response"):
        publish(release)
    assert set(hub.lfs) == {small}
    assert titles(hub) == ["initial commit"]
    assert len(asked(hub, "PUT", f"/upload/{small}")) == 1
    hub.faults.clear()
    hub.forget()
    publish(release)
    assert [one.path for one in asked(hub, "PUT", "/upload/")] == [f"/upload/{big}"]
    assert at(hub)["big.gguf"] == contents(release.folder)["big.gguf"]
    assert releases(hub) == ["Release Tiny"]


def test_an_upload_that_is_cut_once_needs_no_second_run(hub, tmp_path, waits):
    hub.fault("PUT", "/upload/", "cut upload")
    publish(dummy_release.write(tmp_path))
    assert releases(hub) == ["Release Tiny"]
    assert len(asked(hub, "PUT", "/upload/")) == 2


ROUTES = {
    "who am I": ("GET", "/whoami-v2"),
    "the repository": ("GET", f"/api/models/{REPO}$"),
    "its files": ("GET", "/tree/"),
    "its checksums": ("GET", "/resolve/.*SHA256SUMS"),
    "its claims": ("GET", "/resolve/.*claims.jsonl"),
    "its tags": ("GET", "/refs$"),
    "the card's check": ("POST", "/validate-yaml"),
    "what to send how": ("POST", "/preupload/"),
    "where to send it": ("POST", "/objects/batch"),
    "the weights": ("PUT", "/upload/"),
    "whether they came": ("POST", "/lfs/verify"),
    "the commit": ("POST", "/commit/"),
    "the tag": ("POST", "/tag/"),
}


@pytest.mark.parametrize("kind", [503, "lost"])
@pytest.mark.parametrize("route", sampled(ROUTES, every=3))
def test_what_passes_by_itself_is_asked_again(hub, tmp_path, waits, route, kind):
    publish(dummy_release.write(tmp_path / "1", files={"old.json": b"1"}))
    release = dummy_release.write(tmp_path / "2", publish={"tag": "v2"}, weights=b"others")
    hub.fault(*ROUTES[route], kind)
    done = publish(release)
    assert hub.faults[0].times == 0
    assert releases(hub) == ["Release Tiny", "Release Tiny v2"]
    assert hub.repos[REPO].tags == {"v2": done.commit}
    assert len(published_claims(at(hub)["claims.jsonl"])) == 2
    assert "old.json" not in at(hub)


@pytest.mark.parametrize("kind", [500, 503, 429, "lost"])
def test_making_the_repository_is_asked_again(hub, tmp_path, waits, kind):
    hub.fault("POST", "/repos/create", kind)
    publish(dummy_release.write(tmp_path))
    assert titles(hub)[:2] == ["initial commit", "Release Tiny"]


def test_a_hub_that_stays_away_is_given_up_and_nothing_is_half_published(hub, tmp_path, said, waits):
    release = dummy_release.write(tmp_path, publish={"tag": "v1"})
    hub.fault("POST", "/commit/", 503, times=10**6)
    with pytest.raises(StepError) as given_up:
        publish(release, said)
    assert "HTTP 503" in str(given_up.value)
    assert f"Gave up after {len(WAITS_S) + 1} attempts. A commit exists completely or not at all" in str(
        given_up.value
    )
    assert "Traceback" not in str(given_up.value)
    assert len(asked(hub, "POST", "/commit/")) == len(WAITS_S) + 1
    assert [wait for wait in waits if wait in WAITS_S] == list(WAITS_S)
    assert titles(hub) == ["initial commit"]
    assert hub.repos[REPO].tags == {}
    hub.faults.clear()
    assert publish(release).tag == "v1"


@pytest.mark.parametrize("route", [("POST", "/commit/"), ("GET", "/tree/"), ("POST", "/preupload/")])
def test_the_hub_is_left_alone_as_long_as_it_asks(hub, tmp_path, waits, route):
    hub.fault(*route, 429, headers={"Retry-After": "37"})
    publish(dummy_release.write(tmp_path))
    assert max(waits) in {37, 38}  # the client adds a second
    assert releases(hub) == ["Release Tiny"]


def test_the_hub_that_asks_for_hours_is_not_waited_for(hub, tmp_path, waits):
    hub.fault("POST", "/commit/", 429, headers={"Retry-After": "7200"}, times=10**6)
    with pytest.raises(StepError, match="HTTP 429"):
        publish(dummy_release.write(tmp_path))
    assert all(wait <= MAX_WAIT_S for wait in waits)
    assert len(asked(hub, "POST", "/commit/")) == 1
