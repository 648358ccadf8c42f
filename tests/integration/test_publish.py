"""Publishing to a local Hub over real HTTP with the real client: one commit, read back, tagged, claimed."""

import hashlib
import json
import re
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationDelete, HfApi
from pytest_local_hub import Blob

from herdbook.cli.main import main
from herdbook.errors import StepError, VerificationError
from herdbook.publish import local, step
from herdbook.settings import SIGNING_KEY
from herdbook.signing import keys
from herdbook.signing.bundle import read
from support import copies, dummy_release
from support.publishing import (
    REPO,
    asked,
    at,
    before_the_first_commit,
    contents,
    herdbook,
    publish,
    published_claims,
    releases,
    snapshot,
    titles,
    written,
)

# --- as it should be ----------------------------------------------------------------------------------------------


def test_a_fresh_repository(hub, tmp_path, said):
    release = dummy_release.write(
        tmp_path, publish={"tag": "v1.0"}, files={"provenance/records/a.json": b"{}"}
    )
    done = publish(release, said)
    assert titles(hub) == ["initial commit", "Release Tiny v1.0", f"Claim: published as {done.commit}"]
    ours = contents(release.folder)
    assert {
        name: content for name, content in at(hub, done.commit).items() if name != ".gitattributes"
    } == ours
    assert hub.repos[REPO].tags == {"v1.0": done.commit}
    assert hub.repos[REPO].private is False

    now = at(hub)
    assert now.pop("claims.jsonl") == ours["claims.jsonl"] + done.claim.encode() + b"\n"
    assert {name: now[name] for name in ours if name != "claims.jsonl"}.items() <= ours.items()
    claim = json.loads(done.claim)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in ours.items()}
    del digests["claims.jsonl"]
    assert {each["name"]: each["digest"]["sha256"] for each in claim["subject"]} == digests
    assert claim["predicate"]["purl"].startswith(f"pkg:huggingface/{REPO}@{done.commit}")
    assert done.url == f"{hub.url}/{REPO}/tree/{done.commit}"
    assert f"{len(ours) + 1} files at {done.commit}, read back and compared" in said[1]
    assert len(asked(hub, "POST", "/commit/")) == 2
    (tree,) = asked(hub, "GET", f"/tree/{done.commit}")[:1]
    assert tree.status == 200


def test_what_copies_leave_in_a_folder_is_not_uploaded(hub, tmp_path):
    release = dummy_release.write(tmp_path)
    ours = contents(release.folder)
    copies.leave(release.folder)
    commit = publish(local.read(release.folder)).commit
    assert at(hub, commit).keys() - {".gitattributes"} == ours.keys()
    assert at(hub, commit)[".gitattributes"] != copies.LEFT[".gitattributes"]


def test_again_is_no_commit_and_says_so(hub, tmp_path, said):
    release = dummy_release.write(tmp_path, publish={"tag": "v1.0"})
    first = publish(release)
    before = snapshot(hub)
    hub.forget()
    assert publish(release, said) == first
    assert snapshot(hub) == before
    assert written(hub) == []
    assert said == [f"{REPO}: already contains the release, at {first.commit}; no commit"]


def test_again_after_others_have_added_something_is_still_that_commit(hub, tmp_path):
    release = dummy_release.write(tmp_path, publish={"tag": "v1.0"})
    first = publish(release)
    hub.commit(REPO, {"NOTES.md": b"by hand"})
    before, said = snapshot(hub), []
    assert publish(release, said) == first
    assert snapshot(hub) == before
    assert said[0].startswith(f"warning: {REPO}: contains NOTES.md, not of this release")


def test_a_new_version_replaces_its_own_and_keeps_the_rest(hub, tmp_path):
    hub.add_repo(REPO, {".gitattributes": b"x", "samples/one.png": b"by hand", "README.md": b"an early card"})
    old = {"old.json": b"1", "edited.json": b"1", "big.gguf": b"2", "provenance/records/gone.json": b"{}"}
    first = publish(dummy_release.write(tmp_path / "1", publish={"tag": "v1"}, files=old))
    release = dummy_release.write(
        tmp_path / "2", publish={"tag": "v2"}, files={"new.json": b"1"}, weights=b"others"
    )
    # what a release does not list fails its verification; what somebody edited is never deleted
    others = {"edited.json": b"by hand", "old.gguf": b"by hand"}
    hub.commit(REPO, others)
    before = snapshot(hub)
    refusal = "contains edited.json, old.gguf, not of this release"
    with pytest.raises(StepError, match=refusal):
        publish(release)
    assert refusal in step.preview(release, REPO)[1][0]
    assert snapshot(hub) == before
    hub.commit(REPO, dict.fromkeys(others))
    head = hub.repos[REPO].branches["main"]
    second = publish(release)
    kept = {".gitattributes": b"x", "samples/one.png": b"by hand"}
    held = at(hub, second.commit)
    assert set(held) == set(contents(release.folder)) | set(kept)
    assert all(held[name] == content for name, content in kept.items())
    assert hub.repos[REPO].commits[second.commit].parent == head
    assert hub.repos[REPO].tags == {"v1": first.commit, "v2": second.commit}
    assert at(hub, "v1")["old.json"] == b"1"
    assert releases(hub) == ["Release Tiny v1", "Release Tiny v2"]
    purls = [each["predicate"]["purl"] for each in published_claims(at(hub)["claims.jsonl"])]
    assert sorted(purls) == sorted((first.purl, second.purl))


def test_an_organization_that_the_account_may_write_for(hub, tmp_path):
    hub.orgs.add("herd")
    done = publish(dummy_release.write(tmp_path, publish={"private": True}), repo="herd/tiny")
    assert hub.repos["herd/tiny"].private is True
    assert "herd/tiny@" in done.purl


def test_a_release_is_claimed_by_the_key_that_signs(hub, tmp_path, capsys, monkeypatch):
    keys.generate(tmp_path / "key")
    monkeypatch.setenv(SIGNING_KEY.variable, str(tmp_path / "key"))
    release = dummy_release.write(tmp_path)
    assert main(["publish", "--release", str(release.folder), "--repo", REPO]) == 0
    out = capsys.readouterr().out
    last = at(hub)["claims.jsonl"].splitlines()[-1]
    envelope = read(last, "the claim")
    assert envelope.is_signed_by(keys.load_public(tmp_path / "key.pub"))
    assert envelope.statement["predicate"]["purl"].partition("@")[2][:40] in out


# --- the dry run ----------------------------------------------------------------------------------------------------


def dry(release, capsys, *arguments):
    status = main(["publish", "--release", str(release.folder), "--repo", REPO, "--dry-run", *arguments])
    return status, capsys.readouterr().out


def test_a_card_that_names_another_repository_is_noted(hub, tmp_path, capsys):
    release = dummy_release.write(tmp_path, repo="keeper/named")
    note = f"note: the card and its commands name keeper/named, as the recipe does, and not {REPO}"
    assert note in dry(release, capsys)[1]
    main(["publish", "--release", str(release.folder), "--repo", "keeper/named", "--dry-run"])
    assert "note: the card" not in capsys.readouterr().out


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "new version"])
def test_a_dry_run_shows_the_exact_commit_and_writes_nothing(hub, tmp_path, capsys, monkeypatch, fresh):
    if not fresh:
        publish(dummy_release.write(tmp_path / "1", files={"old.json": b"1", "big.gguf": b"2"}))
        hub.commit(REPO, {"photo.png": b"by hand"})
    release = dummy_release.write(
        tmp_path / "2", publish={"tag": "v2"}, files={"new.json": b"1"}, weights=b"new"
    )
    before = snapshot(hub)
    hub.forget()
    status, shown = dry(release, capsys)
    assert status == 0
    assert written(hub) == []
    assert {(one.method, one.path) for one in hub.requests if one.method not in {"GET", "HEAD"}} <= {
        ("POST", "/api/validate-yaml")
    }
    assert snapshot(hub) == before

    calls, real = [], HfApi.create_commit

    def create_commit(self, repo, operations, **options):
        calls.append((repo, list(operations), options))
        return real(self, repo, operations, **options)

    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    head = None if fresh else hub.repos[REPO].branches["main"]
    done = publish(release)
    (repo, operations, options), (_, claims, claim) = calls
    assert repo == REPO
    lines = shown.splitlines()
    assert lines[0].startswith(f"commit to {hub.url}/{REPO} (public")
    if head:
        assert options["parent_commit"] == head
        assert f"  parent   {head}" in lines
    else:
        assert "  parent   (the initial commit of the repository)" in lines
    assert f"  message  {options['commit_message']}" in lines
    assert [f"           {each}" for each in options["commit_description"].splitlines()] == lines[3:5]
    named = {}
    for each in lines:
        match = re.match(r"  (add|change|delete) +(\S+)  ([\d,]+) bytes(?:  (sha256|git blob) (\w+))?", each)
        if match:
            named[match[2]] = match.groups()
    assert named.keys() == {operation.path_in_repo for operation in operations}
    held, came = {} if fresh else at(hub, head), at(hub, done.commit)
    for operation in operations:
        word, _, size, _, digest = named[operation.path_in_repo]
        if isinstance(operation, CommitOperationDelete):
            assert word == "delete"
            assert int(size.replace(",", "")) == len(held[operation.path_in_repo])
            continue
        content = came[operation.path_in_repo]
        assert word == ("change" if operation.path_in_repo in held else "add")
        assert int(size.replace(",", "")) == len(content)
        assert digest == hashlib.sha256(content).hexdigest()
    assert f"  tag      {options['commit_message'].split()[-1]}, at this commit" in lines
    assert [operation.path_in_repo for operation in claims] == ["claims.jsonl"]
    assert claim["commit_message"] == f"Claim: published as {done.commit}"
    assert "  claim    a second commit adds a line to claims.jsonl" in shown
    assert dry(release, capsys)[1].startswith(
        f"no commit to {hub.url}/{REPO} (public): it already contains the release"
    )


def test_a_dry_run_without_a_token_says_what_could_not_be_done(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    status, shown = dry(dummy_release.write(tmp_path), capsys)
    assert status == 0
    assert "add      model.safetensors" in shown
    assert "note: this token is not sufficient: token: none is configured" in shown
    assert "(public, does not exist or is hidden from this token)" in shown
    assert written(hub) == []


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "route", "status", "message"),
    [
        ("POST", "/commit/", 401, "rejected your token"),
        ("POST", "/commit/", 403, f"Check that your token may write to {REPO}"),
        ("POST", "/preupload/", 403, f"Check that your token may write to {REPO}"),
        ("POST", "/objects/batch", 403, f"Check that your token may write to {REPO}"),
        ("PUT", "/upload/", 403, f"Check that your token may write to {REPO}"),
        ("POST", "/repos/create", 403, f"Check that your token may write to {REPO}"),
        ("PUT", "/upload/", 413, "too large"),
        ("POST", "/commit/", 413, "too large"),
    ],
)
def test_a_refusal_is_told_at_once_without_the_token(hub, tmp_path, waits, method, route, status, message):
    hub.fault(method, route, status, times=10**6, message="no, {token} and hf_otherotherother")
    with pytest.raises(StepError) as refused:
        publish(dummy_release.write(tmp_path))
    assert message in str(refused.value)
    sent = "None" if method == "PUT" else "<token>"  # where weights go, the token does not
    assert f"no, {sent} and <token>" in str(refused.value)
    assert waits == []
    assert REPO not in hub.repos or titles(hub) == ["initial commit"]
    assert len(asked(hub, method, route)) == 1


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        (None, REPO, "none is configured. Log in with `hf auth login`"),
        ("hf_nobodynobody", REPO, "rejected your token"),
        ("reader", REPO, f"may not write to {REPO}"),
        ("stranger", REPO, "you are logged in as stranger, who may not write to keeper"),
        ("token", "nobodys/tiny", "you are logged in as keeper, who may not write to nobodys"),
        ("token", "tiny", "expected `owner/name`"),
        ("token", "keeper/a b", "is not a valid repository name"),
        ("token", None, "release.repo is missing"),
    ],
)
def test_who_may_not_is_told_before_anything_is_sent(hub, tmp_path, monkeypatch, token, repo, message):
    value = getattr(hub, token, token) if token else None
    monkeypatch.delenv("HF_TOKEN")
    if value:
        monkeypatch.setenv("HF_TOKEN", value)
    with pytest.raises(StepError) as refused:
        publish(dummy_release.write(tmp_path), repo=repo)
    assert message in str(refused.value)
    assert not value or value not in str(refused.value)
    assert written(hub) == []
    assert hub.repos == {}


def test_all_that_the_hub_says_against_it_is_told_at_once(hub, tmp_path):
    hub.add_repo(REPO, {"README.md": b"x"}, private=True)
    hub.tag(REPO, "v1")
    card = b"---\nlicense: mit\nbase_model_relation: cousin\n---\n"
    with pytest.raises(StepError) as refused:
        publish(dummy_release.write(tmp_path, publish={"tag": "v1"}, files={"README.md": card}))
    text = str(refused.value)
    for part in (
        "is private, but publish.private is false",
        "the tag v1 is already at",
        "the Hub rejects its front matter",
    ):
        assert part in text
    assert written(hub) == []


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "publish"])
def test_what_is_wrong_here_is_told_at_once_without_the_hub(hub, tmp_path, monkeypatch, capsys, dry_run):
    release = dummy_release.write(
        tmp_path,
        sources={"base": "cc-by-nc-4.0", "other": None},
        gated={"base": "auto"},
        publish={"tag": "v1"},
        files={"README.md": b"---\nlicense: [\n---\n"},
    )
    (release.folder / "left.over").write_text("x")
    with pytest.raises(StepError) as refused:
        publish(local.read(release.folder))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv(SIGNING_KEY.variable, str(tmp_path / "absent.key"))
    arguments = ["--repo", "keeper/a b", *(["--dry-run"] if dry_run else [])]
    assert main(["publish", "--release", str(release.folder), *arguments]) == 7
    shown = capsys.readouterr()
    parts = [
        "left.over: is not listed in SHA256SUMS",
        "models.base: ",
        "release.waivers {source: base, obligation: ",
        "models.base (folder:base, access after accepting terms) is gated; publishing",
        "publish.gated {by, because}",
        "README.md: its front matter: ",
    ]
    for part in parts:
        assert part in str(refused.value)
        assert part in (shown.out if dry_run else shown.err)
    assert "'keeper/a b' is not a valid repository name" in shown.out + shown.err
    if dry_run:
        assert all(line.startswith("refused: ") for line in shown.out.splitlines())
    else:
        assert "token: none is configured" in shown.err
        assert "absent.key: cannot be read" in shown.err
    assert hub.requests == []


def test_a_card_that_is_no_text_or_missing_is_told_without_the_hub(hub, tmp_path):
    for number, (files, said) in enumerate(
        [({"README.md": b"\xff\xfe"}, "README.md: is not a text in UTF-8"), ({}, "has no README.md")]
    ):
        release = dummy_release.write(tmp_path / str(number), files=files)
        if not files:
            release = replace(
                release, files={name: file for name, file in release.files.items() if name != "README.md"}
            )
        with pytest.raises(StepError, match=said):
            publish(release)
    assert hub.requests == []


def test_waivers_let_it_pass_and_stand_in_the_published_recipe(hub, tmp_path):
    waived = {"by": "A. Lawyer", "because": "section 3 allows it"}
    release = dummy_release.write(
        tmp_path,
        sources={"base": "cc-by-nc-4.0"},
        gated={"base": "auto"},
        waivers=[{"source": "base", "obligation": "noncommercial", **waived}],
        publish={"gated": dict(waived)},
    )
    publish(release)
    assert at(hub)["recipe.yaml"].count(b"A. Lawyer") == 2


def test_a_card_that_the_hub_does_not_take_is_told_before_anything_is_sent(hub, tmp_path):
    card = b"---\nlicense: mit\nbase_model_relation: cousin\n---\n"
    with pytest.raises(StepError, match="README.md: the Hub rejects its front matter: .*adapter, merge"):
        publish(dummy_release.write(tmp_path, files={"README.md": card}))
    assert written(hub) == []


# --- the tag ----------------------------------------------------------------------------------------------------------


def test_a_tag_of_this_release_stays_where_it_is(hub, tmp_path):
    release = dummy_release.write(tmp_path, publish={"tag": "v1"})
    first = publish(release)
    hub.commit(REPO, {"README.md": b"by hand"})
    again = publish(release)  # the release anew, on top of the edit
    assert hub.repos[REPO].tags == {"v1": first.commit}
    assert at(hub)["README.md"] == contents(release.folder)["README.md"]
    assert again.commit != first.commit


def test_a_tag_of_something_else_is_refused_and_never_moved(hub, tmp_path):
    publish(dummy_release.write(tmp_path / "1", publish={"tag": "v1"}))
    before = snapshot(hub)
    hub.forget()
    with pytest.raises(StepError, match=r"the tag v1 is already at \w{40}, which contains another release"):
        publish(dummy_release.write(tmp_path / "2", publish={"tag": "v1"}, weights=b"others"))
    assert snapshot(hub) == before
    assert written(hub) == []


def test_a_tag_that_somebody_makes_meanwhile_is_told(hub, tmp_path, monkeypatch):
    release = dummy_release.write(tmp_path, publish={"tag": "v1"})
    before_the_first_commit(monkeypatch, lambda: hub.tag(REPO, "v1"))
    with pytest.raises(StepError, match="the tag v1 is already at"):
        publish(release)
    assert at(hub, "v1").keys() == {".gitattributes"}
    assert releases(hub) == ["Release Tiny v1"]
    assert published_claims(at(hub)["claims.jsonl"]) == []


# --- read back ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "provenance/records/a.json"])
def test_a_byte_that_the_hub_stores_wrongly_is_found_by_its_file(hub, tmp_path, monkeypatch, name):
    release = dummy_release.write(tmp_path, publish={"tag": "v1"}, files={"provenance/records/a.json": b"{}"})
    good, real = contents(release.folder)[name], hub.commit
    bad = good[:-1] + bytes([good[-1] ^ 1])

    def damaging(repo, files, *rest, **options):
        if name in files:
            files = {**files, name: Blob(bad, lfs=files[name].lfs)}
        return real(repo, files, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(hub, "commit", damaging)
        with pytest.raises(VerificationError) as found:
            publish(release)
    wrong, right = Blob.of(name, bad).etag, Blob.of(name, good).etag
    first = str(found.value).splitlines()[0]
    assert re.fullmatch(rf"{REPO}@\w{{40}}: {name}: expected \w+ {right}, found {wrong}", first)
    assert "neither tagged nor claimed" in str(found.value)
    assert hub.repos[REPO].tags == {}
    assert published_claims(at(hub)["claims.jsonl"]) == []

    done = publish(release)  # only what differs
    assert at(hub, "v1")[name] == good
    assert hub.repos[REPO].tags == {"v1": done.commit}


def test_a_file_that_the_hub_drops_or_adds_is_found(hub, tmp_path, monkeypatch):
    real = hub.commit

    def damaging(repo, files, *rest, **options):
        if "config.json" in files:
            files = {name: blob for name, blob in files.items() if name != "config.json"}
            files["bonus.bin"] = b"pickle"
        return real(repo, files, *rest, **options)

    monkeypatch.setattr(hub, "commit", damaging)
    with pytest.raises(VerificationError) as found:
        publish(dummy_release.write(tmp_path))
    assert "config.json: is missing" in str(found.value)
    assert "bonus.bin: is unexpected" in str(found.value)


def test_a_repository_that_was_made_but_is_not_seen_gets_no_commit(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: None)
    with pytest.raises(StepError, match="was created, but is not visible yet. Run the command again"):
        publish(dummy_release.write(tmp_path))
    assert written(hub) == []


def test_a_damaged_listing_is_no_success(hub, tmp_path, monkeypatch, waits):
    before_the_first_commit(monkeypatch, lambda: hub.fault("GET", "/tree/", "corrupt", times=10**6))
    with pytest.raises((StepError, VerificationError)):
        publish(dummy_release.write(tmp_path, publish={"tag": "v1"}))
    assert hub.repos[REPO].tags == {}


def test_claims_that_come_damaged_are_not_built_upon(hub, tmp_path, waits):
    release = dummy_release.write(tmp_path)
    publish(release)
    before = snapshot(hub)
    hub.fault("GET", "/resolve/.*claims.jsonl", "corrupt", times=10**6)
    with pytest.raises(StepError, match="claims.jsonl: was damaged in transfer"):
        publish(release)
    assert snapshot(hub) == before


# --- the token ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [None, ("POST", "/commit/", 400)], ids=["published", "refused"])
def test_the_token_is_nowhere(hub, tmp_path, fault):
    release = dummy_release.write(tmp_path)
    if fault:
        hub.fault(*fault, message="you sent {token}, why?")
    hub.fault("GET", "/whoami-v2", "slow", seconds=0.3)
    process = herdbook(hub, tmp_path, "--debug", "publish", "--release", release.folder, "--repo", REPO)
    seen = set()
    while True:
        seen.add(Path(f"/proc/{process.pid}/cmdline").read_bytes())
        with suppress(subprocess.TimeoutExpired):
            out, err = process.communicate(timeout=0.05)
            break
    assert (process.returncode == 0) is (fault is None), err
    assert {one.token for one in hub.requests if "/commit/" in one.path} == {hub.token}
    assert any(b"publish" in each for each in seen)
    held = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for text in (out.encode(), err.encode(), *seen, *held.values()):
        assert hub.token.encode() not in text
    for repo in hub.repos:
        assert all(hub.token.encode() not in content for content in at(hub, repo=repo).values())
