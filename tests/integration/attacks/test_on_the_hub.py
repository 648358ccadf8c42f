"""Attacks on the Hub: sources that move, vanish or lie, and servers that fail, seen by who verifies a published release."""

import re
from functools import partial

import pytest
from pytest_local_hub import Blob, LocalHub, client

from herdbook.cli.main import main
from herdbook.errors import SourceError
from herdbook.hub import failure, transport
from herdbook.release.finding import Outcome
from herdbook.release.hub_subject import HubSubject
from herdbook.verify import equality
from herdbook.weights.checkpoint import FIRST_BYTES, read_header
from support.attacks.on_the_hub import CASES, gated, source_altered, squashed
from support.attacks.stage import REPO, weights_in
from support.sampled import sampled
from support.verification import findings, status


@pytest.fixture
def published(stage, tmp_path, monkeypatch):
    """The stage on a Hub of a test's own, with the release."""
    monkeypatch.setattr(failure, "WAITS_S", (0.01,) * len(failure.WAITS_S))
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        made = stage.published_on(hub)
        made.set_time_limit = partial(monkeypatch.setattr, transport, "ANSWER_S")
        yield made


@pytest.mark.parametrize(
    ("what", "attack", "level", "expected", "by"), sampled(CASES, every=3), ids=[row[0] for row in CASES]
)
def test_attack_on_the_hub(published, what, attack, level, expected, by):
    attack(published)
    found = findings(REPO, level, sample_bytes=None)
    assert status(found) == expected, [one for one in found if one.outcome is not Outcome.PASSED]
    if by:
        bad = [one for one in found if one.outcome is not Outcome.PASSED and (one.level, one.check) == by[:2]]
        assert any(by[2] in one.subject for one in bad), bad


def test_a_squashed_source_s_weights_are_found_where_they_are_still(published):
    squashed(published)
    [bad] = [one for one in findings(REPO, "upstream") if one.outcome is not Outcome.PASSED]
    assert "still has all pinned weights, byte for byte" in bad.detail


def test_a_description_of_another_commit_fails_and_no_description_does_not(published, monkeypatch):
    other = published.hub.repos["herd/tuned"].find("main")
    find = type(published.hub.repos["herd/base"]).find

    def lie(repo, revision):
        return other if repo.name == "herd/base" else find(repo, revision)

    monkeypatch.setattr("pytest_local_hub.store.Repo.find", lie)
    [bad] = [one for one in findings(REPO, "upstream") if one.outcome is not Outcome.PASSED]
    assert (bad.check, bad.subject, bad.outcome) == ("pinned", "base", Outcome.FAILED)
    monkeypatch.setattr("pytest_local_hub.store.Repo.find", find)
    published.hub.fault("GET", "/api/models/herd/base", "drop", 1000)
    [bad] = [one for one in findings(REPO, "upstream") if one.outcome is not Outcome.PASSED]
    assert (bad.check, bad.subject, bad.outcome) == ("pinned", "base", Outcome.UNVERIFIED)


def test_what_differs_is_named_with_both_digests(published):
    source_altered(published)
    found = [one for one in findings(REPO, "equality", sample_bytes=None) if one.outcome is Outcome.FAILED]
    # the last tensor of each of base's two files, wherever the release holds it
    assert {one.source.partition("#")[2].partition(":")[0] for one in found} == set(
        weights_in(published, "herd/base")
    )
    for one in found:
        assert re.fullmatch("[0-9a-f]{64}", one.expected)
        assert re.fullmatch("[0-9a-f]{64}", one.found)
        assert one.file in weights_in(published, REPO)
        assert one.tensor


def test_bytes_that_differ_are_told_where_others_of_their_tensor_cannot_be_had(published, monkeypatch):
    name = min(weights_in(published, "herd/base"))
    largest = max(
        read_header(published.root / "base" / name).values(), key=lambda span: span.end - span.start
    )
    assert largest.end - largest.start > 2048
    content = bytearray((published.root / "base" / name).read_bytes())
    content[largest.end - 1] ^= 1
    published.hub.lfs[weights_in(published, "herd/base")[name]] = Blob(bytes(content), lfs=True)
    read = HubSubject.read_range

    def without_the_first(subject, name, start, stop):
        first = start and start in {span.start for span in subject.header(name).values()}
        if subject.repo == "herd/base" and first:
            raise SourceError("not now")
        return read(subject, name, start, stop)

    monkeypatch.setattr(HubSubject, "read_range", without_the_first)
    monkeypatch.setattr(equality, "PIECE_BYTES", 1024)
    found = findings(REPO, "equality", sample_bytes=None)
    assert status(found) == 8
    assert any("differ" in one.detail for one in found if one.outcome is Outcome.FAILED)
    assert any("not now" in one.detail for one in found if one.outcome is Outcome.UNVERIFIED)


def test_no_token_in_anything_that_is_written(published, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_TOKEN", published.hub.token)
    gated(published)
    published.hub.fault("GET", "/lfs/", 403, 3, message="no, {token}")
    outputs = [tmp_path / f"found.{kind}" for kind in ("json", "junit", "summary", "vsa")]
    options = [part for path in outputs for part in (f"--{path.suffix[1:]}", str(path))]
    main(["verify", REPO, "--level", "equality", *options])
    seen = capsys.readouterr()
    for text in (seen.out, seen.err, *(path.read_text() for path in outputs)):
        assert published.hub.token not in text


def test_no_weights_are_downloaded_up_to_upstream(published):
    published.hub.forget()
    assert status(findings(REPO, "upstream")) == 0
    sent = sum(r.bytes_sent for r in published.hub.requests if r.path.startswith("/lfs/") and r.range)
    shards = [weights_in(published, repo) for repo in (REPO, "herd/base", "herd/tuned", "herd/adapter")]
    weights = sum(len(published.hub.lfs[digest].content) for shard in shards for digest in shard.values())
    headers = sum(map(len, shards)) * FIRST_BYTES
    assert sent <= min(headers, weights)  # these tiny files are within what is asked of a header


def test_what_the_description_says_of_the_card_does_not_count(published):
    published.hub.repos["herd/base"].card |= {"license": "gpl-3.0", "base_model": "herd/other"}
    assert status(findings(REPO, "upstream")) == 0


def test_a_source_costs_two_requests_and_one_for_each_file_that_is_read(published):
    published.hub.forget()
    assert status(findings(REPO, "upstream")) == 0
    for name in ("base", "tuned"):
        repo = published.hub.repos[f"herd/{name}"]
        commit = repo.branches["main"]
        read = {f"/herd/{name}/resolve/{commit}/{file}" for file in repo.commits[commit].files}
        asked = [
            request.path.partition("?")[0]
            for request in published.hub.requests
            if f"herd/{name}/" in request.path
        ]
        described = {f"/api/models/herd/{name}/revision/{commit}", f"/api/models/herd/{name}/refs"}
        assert sorted(asked) == sorted({*read, *described})
