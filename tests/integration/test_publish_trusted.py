"""Publishing from CI without a stored secret: the job's identity is exchanged for a token of one repository."""

import json
import re

import jwt
import pytest
from huggingface_hub.utils import _auth

from herdbook.cli.main import _show_traceback, main
from herdbook.errors import StepError
from herdbook.publish import hub as repositories
from herdbook.publish import step
from support import dummy_release, local_sigstore
from support.publishing import REPO, asked, at, before_the_first_commit, publish, releases, written

JWT = re.compile(r"eyJ[\w-]{6,}\.")


@pytest.fixture
def provider(hub, monkeypatch):
    """An identity provider, whose job is a trusted publisher of an empty repository, and is in this process."""
    hub.add_repo(REPO, {".gitattributes": b"x"})
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_OIDC_RESOURCE", REPO)
    made = local_sigstore.LocalSigstore()
    with local_sigstore.serve(made) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        hub.publishers[REPO] = made.publisher(hub.url)
        yield made


def exchanges(hub, status=200):
    return [request for request in asked(hub, "POST", "^/oauth/token$") if request.status == status]


def pieces(tmp_path):
    return dummy_release.write(tmp_path, files={f"{n}.gguf": bytes([n]) * 5000 for n in range(6)})


class Expiring(dict):
    """The Hub's large files: its tokens expire with the first that comes."""

    def __init__(self, hub, also=lambda: None):
        super().__init__(hub.lfs)
        self.acts = [lambda: (hub.expire(), also())]

    def __setitem__(self, oid, blob):
        super().__setitem__(oid, blob)
        if self.acts:
            self.acts.pop()()


# --- as it should be ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("provider")
def test_one_exchange_is_enough_and_nobody_is_asked_who_it_is(hub, tmp_path):
    done = publish(dummy_release.write(tmp_path, publish={"tag": "v1"}))
    assert hub.repos[REPO].tags == {"v1": done.commit}
    assert len(exchanges(hub)) == 1
    assert asked(hub, "GET", "whoami") == []
    assert {request.token for request in written(hub) if "/upload/" not in request.path} == set(hub.scopes)


def test_a_private_repository_and_a_token_that_is_there_too(hub, provider, tmp_path, monkeypatch):
    hub.repos[REPO].private = True
    monkeypatch.setenv("HF_TOKEN", hub.reader)
    publish(dummy_release.write(tmp_path, publish={"private": True}))
    assert len(releases(hub)) == 1


@pytest.mark.usefixtures("provider")
def test_no_token_is_in_an_output_a_file_or_the_repository(hub, tmp_path, capfd):
    release = dummy_release.write(tmp_path)
    hub.fault("POST", "/commit/", 400, message="you sent {token}, why?")
    arguments = ["--debug", "publish", "--release", str(release.folder), "--repo", REPO]
    with pytest.raises(StepError) as caught:
        main(arguments)
    _show_traceback(caught.type, caught.value, caught.tb)
    assert main(arguments) == 0
    (token,) = hub.scopes
    assert JWT.search(token)
    seen = "".join(capfd.readouterr())
    assert "you sent <token>, why?" in seen
    held = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for text in (seen.encode(), *held, *at(hub).values()):
        assert not JWT.search(text.decode(errors="replace"))


# --- long uploads -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("provider")
def test_each_part_of_a_long_upload_has_a_token_of_its_own(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(repositories, "BATCH_BYTES", 10_000)
    hub.lifetime_s = 300  # the client renews it that long before it expires: at once
    publish(pieces(tmp_path))
    sizes = [len(asked(hub, "POST", pattern)) for pattern in ("/objects/batch", "/preupload/")]
    assert min(sizes) >= 3
    batches = asked(hub, "POST", "/objects/batch")
    assert len({request.token for request in batches}) == len(batches)
    assert len(releases(hub)) == 1


@pytest.mark.usefixtures("provider")
def test_a_token_that_expires_in_the_midst_of_an_upload_is_renewed(hub, tmp_path, waits):
    hub.lifetime_s = 300
    hub.lfs = Expiring(hub)
    release = pieces(tmp_path)
    publish(release)
    assert [request for request in asked(hub, "POST", "/lfs/verify") if request.status == 401]
    assert waits == [1.0]
    uploads = [request.path for request in asked(hub, "PUT", "/upload/")]
    assert len(uploads) == len(set(uploads))  # what was sent is not sent again
    assert at(hub)["5.gguf"] == bytes([5]) * 5000


@pytest.mark.usefixtures("provider")
def test_a_token_that_expires_right_before_the_commit_is_renewed(hub, tmp_path, waits):
    hub.lifetime_s = 300
    hub.fault("POST", "/commit/", 401)
    publish(dummy_release.write(tmp_path))
    assert waits == [1.0]
    assert len(releases(hub)) == 1


def test_an_identity_that_cannot_be_renewed(hub, provider, tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_ACTIONS")
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", provider.token(hub.url))
    hub.lfs = Expiring(hub, hub.publishers.clear)
    with pytest.raises(
        StepError, match="expired.* Set HF_OIDC_ID_TOKEN to a new identity, and run the job"
    ) as caught:
        publish(pieces(tmp_path))
    assert not JWT.search(str(caught.value))
    assert releases(hub) == []
    monkeypatch.setattr(_auth, "_OIDC_TOKEN_CACHE", None)  # another job
    hub.publishers[REPO] = provider.publisher(hub.url)
    publish(pieces(tmp_path / "again"))
    assert len(releases(hub)) == 1


@pytest.mark.usefixtures("provider")
def test_a_publisher_that_is_removed_in_the_midst(hub, tmp_path, monkeypatch):
    before_the_first_commit(monkeypatch, hub.expire)
    with pytest.raises(
        StepError, match="rejected the token that it gave for keeper/tiny: it has expired, or"
    ):
        publish(dummy_release.write(tmp_path))
    assert releases(hub) == []


# --- refused ------------------------------------------------------------------------------------------------------


def no_job(hub, provider, set_, unset):
    unset("GITHUB_ACTIONS")


def no_permission(hub, provider, set_, unset):
    unset("ACTIONS_ID_TOKEN_REQUEST_URL")


def github_refuses(hub, provider, set_, unset):
    provider.broken.add("/id")


def no_publisher(hub, provider, set_, unset):
    hub.publishers.clear()


def another_workflow(hub, provider, set_, unset):
    provider.name += "-other"


def another_hub(hub, provider, set_, unset):
    hub.publishers[REPO] = provider.publisher("https://huggingface.co")


def another_repository(hub, provider, set_, unset):
    set_("HF_OIDC_RESOURCE", "keeper/other")
    hub.publishers["keeper/other"] = hub.publishers[REPO]


def a_user(hub, provider, set_, unset):
    set_("HF_OIDC_RESOURCE", "keeper")
    hub.publishers["keeper"] = hub.publishers[REPO]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (no_job, "gives the job no identity. On GitHub, give the job `permissions: id-token: write`"),
        (no_permission, "gives the job no identity. On GitHub, give the job `permissions: id-token: write`"),
        (github_refuses, r"GitHub gives the job no identity \(HTTP 403\)"),
        (
            no_publisher,
            r"may write to keeper/tiny \(HTTP 400\): no trusted publisher of that repository matches",
        ),
        (another_workflow, r"\(HTTP 400\): no trusted publisher .*/keeper/tiny/settings must list"),
        (another_hub, r"\(HTTP 400\): no trusted publisher"),
        (
            another_repository,
            "HF_OIDC_RESOURCE is keeper/other, whose token may not write to keeper/tiny. Set it to k",
        ),
        (a_user, "HF_OIDC_RESOURCE is keeper, whose token may not write to keeper/tiny"),
    ],
)
def test_without_a_token_for_this_repository(hub, provider, tmp_path, monkeypatch, how, message):
    how(hub, provider, monkeypatch.setenv, monkeypatch.delenv)
    release = dummy_release.write(tmp_path)
    with pytest.raises(StepError, match=message) as caught:
        publish(release)
    assert str(caught.value).count(re.search(message, str(caught.value))[0]) == 1
    assert not JWT.search(str(caught.value))
    assert written(hub) == []


@pytest.mark.parametrize("answer", ["corrupt", {}, {"access_token": "hf_jwt_x", "expires_in": "soon"}])
def test_an_exchange_that_is_not_a_hub_s(hub, provider, tmp_path, answer, monkeypatch, waits):
    if answer == "corrupt":
        hub.fault("POST", "/oauth/token", "short", times=99)
    else:
        monkeypatch.setattr("huggingface_hub._oidc.exchange_oidc_token", lambda **_: answer)
    with pytest.raises(Exception, match="response") as caught:
        publish(dummy_release.write(tmp_path))
    assert type(caught.value).__module__ == "herdbook.errors"
    assert written(hub) == []


@pytest.mark.usefixtures("provider")
def test_a_dry_run_names_what_the_token_is_not_for(hub, tmp_path, monkeypatch):
    release = dummy_release.write(tmp_path)
    assert step.preview(release, REPO)[2] == []
    monkeypatch.setenv("HF_OIDC_RESOURCE", "keeper/other")
    hub.publishers["keeper/other"] = hub.publishers[REPO]
    (problem,) = step.preview(release, REPO)[2]
    assert "HF_OIDC_RESOURCE is keeper/other" in problem


# --- the identity provider ----------------------------------------------------------------------------------------


def test_the_signature_names_the_job_that_publishes(hub, provider, tmp_path, monkeypatch):
    pytest.importorskip("sigstore")
    from herdbook.signing.bundle import read
    from herdbook.signing.keyless import CONFIG_VARIABLE, Keyless, Roots
    from herdbook.signing.signer import line

    (tmp_path / "trust.json").write_text(json.dumps(provider.trust()))
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "trust.json"))
    signer = Keyless()
    done = step.publish(
        dummy_release.write(tmp_path / "r"),
        REPO,
        lambda claim: line(claim, signer).decode().rstrip("\n"),
        print,
    )
    signed = read(done.claim, "claim")
    assert Roots().identity(signed).name == provider.name
    assert signed.statement["predicate"]["purl"] == done.purl
    heard = jwt.decode(provider.token(hub.url), options={"verify_signature": False})
    assert (heard["sub"], heard["aud"]) == (provider.name, hub.url)
