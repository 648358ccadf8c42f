"""Keyless signatures: one of the public Sigstore services, and those of a Sigstore of our own, by the library's real client."""

import base64
import hashlib
import json
import subprocess
import sys
import webbrowser
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from herdbook.cli.main import main
from herdbook.errors import StepError, VerificationError
from herdbook.layout import CLAIMS, PUBLIC_KEY, SIGNATURE
from herdbook.plan.parsed import package_version
from herdbook.plan.release import attest_key, attested_files
from herdbook.signing import keys, oms
from herdbook.signing.bundle import MEDIA_TYPE, bundle, read
from herdbook.signing.keyless import CONFIG_VARIABLE, Identity, Keyless, Roots
from herdbook.signing.signer import configured_signer
from herdbook.steps.attest.step import attest
from herdbook.steps.card.step import render_card
from support import local_sigstore, tiny

sigstore = pytest.importorskip("sigstore")

VECTORS = Path(__file__).parents[1] / "data/model-signing/vectors"
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "a", "digest": {"sha256": "0" * 64}}],
    "predicateType": "https://example.com/p",
    "predicate": {"é": 1.0},
}
CERTIFY, LOG = "/api/v2/signingCert", "/api/v1/log/entries"


@pytest.fixture
def services(tmp_path, monkeypatch):
    """A Sigstore of our own, which this process trusts, and in which it may ask for an identity."""
    made = local_sigstore.LocalSigstore()
    with local_sigstore.serve(made) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        trust(made, tmp_path / "trust.json", monkeypatch)
        yield made


def trust(services, path, monkeypatch):
    path.write_text(json.dumps(services.trust()))
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))


def who(services):
    return Identity(services.name, services.issuer)


# --- the public services ------------------------------------------------------------------------------------------


@pytest.fixture
def public(tmp_path, monkeypatch):
    """The public services' trusted root, as the library brings it: no network."""
    stored = next((Path(sigstore.__file__).parent / "_store").glob("*tuf-repo-cdn.sigstore.dev"))
    config = {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": json.loads((stored / "trusted_root.json").read_text()),
        "signingConfig": json.loads((stored / "signing_config.v0.2.json").read_text()),
    }
    (tmp_path / "public.json").write_text(json.dumps(config))
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "public.json"))


def vector():
    return json.loads((VECTORS / "sigstore.json").read_text())


def test_a_model_that_was_signed_with_the_public_services(public):
    envelope = read(json.dumps(vector()), SIGNATURE)
    assert envelope.certified
    found = Roots().identity(envelope)
    assert found == Identity("stefanb@us.ibm.com", "https://sigstore.verify.ibm.com/oauth2")
    assert oms.signed_digests(envelope)["signme-2"] == hashlib.sha256(b"signme-2").hexdigest()


def test_the_public_services_vouch_for_nobody_else(public, services, tmp_path, monkeypatch):
    foreign = Keyless().bundle(STATEMENT)  # by a Sigstore of somebody's own
    with pytest.raises(VerificationError, match="keyless signature is not valid"):
        Roots().identity(read(json.dumps(vector()), SIGNATURE))
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "public.json"))
    Roots().identity(read(json.dumps(vector()), SIGNATURE))
    with pytest.raises(VerificationError, match="keyless signature is not valid"):
        Roots().identity(read(foreign, "line 1"))


def test_without_network_the_root_that_the_library_brings_is_taken(tmp_path, monkeypatch):
    from sigstore._internal import tuf

    def refuse(_):
        raise OSError("unreachable")

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuf.Updater, "refresh", refuse)
    roots = Roots()
    assert roots.stale
    roots.identity(read(json.dumps(vector()), SIGNATURE))
    data = vector()
    data["verificationMaterial"]["tlogEntries"][0]["logIndex"] = "1"
    with pytest.raises(VerificationError, match="may be too old"):
        roots.identity(read(json.dumps(data), SIGNATURE))


# --- signing ------------------------------------------------------------------------------------------------------


def test_what_is_signed_says_who_and_is_read_like_any_bundle(services):
    signer = Keyless()
    assert services.requests == []  # nobody is asked before the first signature
    lines = [signer.bundle({**STATEMENT, "predicate": {"n": n}}) for n in range(5)]
    assert services.requests == [CERTIFY, *[LOG] * 5]
    roots = Roots()
    for number, line in enumerate(lines):
        assert b"\n" not in line
        envelope = read(line, "line 1")
        assert envelope.certified
        assert envelope.statement["predicate"] == {"n": number}
        assert json.loads(line)["mediaType"] == MEDIA_TYPE
        assert roots.identity(envelope) == who(services)


def test_an_e_mail_address(services):
    services.name = "author@example.org"
    assert Roots().identity(read(Keyless().bundle(STATEMENT), "line 1")) == who(services)


def test_the_payload_is_that_of_a_signature_by_key(services, tmp_path):
    keys.generate(tmp_path / "own")
    by_key = read(bundle(STATEMENT, keys.load_private(tmp_path / "own")), "by key")
    assert read(Keyless().bundle(STATEMENT), "keyless").payload == by_key.payload


@pytest.mark.parametrize(("path", "message"), [(CERTIFY, "Fulcio"), (LOG, "500: out of order")])
def test_services_that_fail(services, path, message):
    services.broken.add(path)
    with pytest.raises(StepError, match=f"keyless signature: .*{message}") as caught:
        Keyless().bundle(STATEMENT)
    assert services.token()[:20] not in str(caught.value)


def test_services_that_cannot_be_reached(services, tmp_path, monkeypatch):
    services.url = "http://127.0.0.1:9"
    trust(services, tmp_path / "trust.json", monkeypatch)
    with pytest.raises(StepError, match="keyless signature: "):
        Keyless().bundle(STATEMENT)


def test_a_job_that_may_not_ask_for_an_identity(services, monkeypatch):
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "wrong")
    with pytest.raises(StepError, match="code=403"):
        Keyless().bundle(STATEMENT)
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    with pytest.raises(StepError, match="insufficient OIDC token permissions"):
        Keyless().bundle(STATEMENT)
    monkeypatch.delenv("GITHUB_ACTIONS")
    with pytest.raises(StepError, match="no identity is available"):
        Keyless().bundle(STATEMENT)
    assert services.requests == []


def test_a_person_is_asked_by_a_browser(services, tmp_path, monkeypatch):
    services.name = "author@example.org"
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[1], timeout=30).read()\n"
    )
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setattr(webbrowser, "_tryorder", None)  # which browsers there are is looked up once
    monkeypatch.delenv("GITHUB_ACTIONS")
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    assert Roots().identity(read(Keyless().bundle(STATEMENT), "line 1")) == who(services)
    assert services.requests == ["/token", CERTIFY, LOG]


@pytest.mark.parametrize("content", [None, "rubbish", "{}"])
def test_a_configuration_that_is_none(content, tmp_path, monkeypatch):
    path = tmp_path / "trust.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    message = "No such file" if content is None else "is not a client trust configuration"
    for use in (Roots, lambda: Keyless().bundle(STATEMENT)):
        with pytest.raises(StepError, match=message):
            use()


def test_the_library_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sigstore.sign", None)
    for use in (Roots, lambda: Keyless().bundle(STATEMENT)):
        with pytest.raises(StepError, match=r"pip install 'herdbook\[keyless\]'"):
            use()


def test_the_library_is_loaded_for_keyless_signatures_only():
    script = "import sys, herdbook.cli.main, herdbook.verify.levels; print('sigstore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- forgery ------------------------------------------------------------------------------------------------------


def forged_payload(data, _):
    data["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(STATEMENT).encode()).decode()


def forged_signature(data, other):
    data["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"]


def another_s_certificate(data, other):
    data["verificationMaterial"]["certificate"] = other["verificationMaterial"]["certificate"]


def another_s_entry(data, other):
    data["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]


def no_entry(data, _):
    data["verificationMaterial"]["tlogEntries"] = []


def no_promise(data, _):
    del data["verificationMaterial"]["tlogEntries"][0]["inclusionPromise"]


def another_time(data, _):
    data["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = "1700000000"


def another_place(data, _):
    entry = data["verificationMaterial"]["tlogEntries"][0]
    entry["inclusionProof"]["logIndex"] = "0"


def another_tree(data, _):
    proof = data["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    note = proof["checkpoint"]["envelope"].split("\n")
    note[2] = base64.b64encode(b"\0" * 32).decode()
    proof["checkpoint"]["envelope"] = "\n".join(note)


def rubbish(data, _):
    data["verificationMaterial"]["certificate"]["rawBytes"] = base64.b64encode(b"rubbish").decode()


FORGERIES = (
    forged_payload,
    forged_signature,
    another_s_certificate,
    another_s_entry,
    no_entry,
    no_promise,
    another_time,
    another_place,
    another_tree,
    rubbish,
)


@pytest.mark.parametrize("forge", FORGERIES)
def test_forgeries(services, forge):
    other, line = (
        json.loads(Keyless().bundle({**STATEMENT, "predicate": {"n": number}})) for number in range(2)
    )
    roots = Roots()
    assert roots.identity(read(json.dumps(line), "line 1")) == who(services)
    forge(line, other)
    with pytest.raises(VerificationError, match="keyless signature is not valid"):
        roots.identity(read(json.dumps(line), "line 1"))


def test_another_payload_than_was_read(services):
    """Two readers of one text may differ, as in which of two equal names counts."""
    envelope = read(Keyless().bundle(STATEMENT), "line 1")
    with pytest.raises(VerificationError, match="covers another statement"):
        Roots().identity(replace(envelope, payload=b"{}"))


def test_a_certificate_that_was_over_when_the_log_took_it(services):
    services.lifetime = timedelta(minutes=1)
    services.delay_seconds = 120
    line = Keyless().bundle(STATEMENT)
    with pytest.raises(VerificationError, match="keyless signature is not valid"):
        Roots().identity(read(line, "line 1"))


def test_a_certificate_in_no_log_of_certificates(services, tmp_path, monkeypatch):
    line = Keyless().bundle(STATEMENT)
    services.timestamps = local_sigstore.LocalSigstore().timestamps
    trust(services, tmp_path / "trust.json", monkeypatch)
    with pytest.raises(VerificationError, match="SCT"):
        Roots().identity(read(line, "line 1"))


# --- releases -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    root = tmp_path_factory.mktemp("keyless")
    tiny.write_model(root / "base", seed=1)
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", {"base": {"folder": "base"}}), root / "results")
    render_card(plan, plan.layout.card_folder)
    tiny.release(plan)
    return plan


@pytest.fixture
def signed(plan, services):
    """The release's folder, signed by the command line as a CI job does it."""
    base = ["attest", "--recipe", str(plan.recipe_path), "--results", str(plan.layout.root)]
    assert main([*base, "--keyless"]) == 0
    return plan.layout.release_folder


def verify(folder, tmp_path, *arguments):
    """Verify; return the exit status, and the findings about signatures that are not good."""
    status = main(["verify", str(folder), "--json", str(tmp_path / "found.json"), *arguments])
    found = json.loads((tmp_path / "found.json").read_text())
    return status, [one for one in findings(found) if one["check"] == "signature"]


def findings(found):
    return [one for level in found["levels"] for one in level["findings"]]


def test_a_release_that_is_signed_without_a_key(signed, services, tmp_path):
    assert not (signed / PUBLIC_KEY).exists()
    assert len((signed / CLAIMS).read_bytes().splitlines()) == 3
    assert services.requests == [CERTIFY, *[LOG] * 4]
    status, found = verify(signed, tmp_path)
    assert status == 0
    assert [one["outcome"] for one in found] == ["passed"] * 4
    assert f"by {who(services)}; pass --identity" in found[0]["detail"]
    status, found = verify(signed, tmp_path, "--identity", services.name, "--issuer", services.issuer)
    assert status == 0
    assert ", as required" in found[0]["detail"]


@pytest.mark.parametrize("wrong", ["identity", "issuer"])
def test_somebody_else_was_asked_for(signed, services, tmp_path, wrong):
    asked = {"identity": services.name, "issuer": services.issuer, wrong: "https://example.net"}
    status, found = verify(signed, tmp_path, *(part for name in asked for part in (f"--{name}", asked[name])))
    assert status == 8
    assert [one["outcome"] for one in found] == ["failed"] * 4
    assert all(f"is signed by {who(services)}" in one["detail"] for one in found)


def test_a_key_was_asked_for(signed, tmp_path):
    keys.generate(tmp_path / "own")
    status, found = verify(signed, tmp_path, "--key", str(tmp_path / "own.pub"))
    assert status == 8
    assert found[0]["found"] == "a certificate"


def test_an_identity_was_asked_for_and_a_key_signed(plan, services, tmp_path):
    keys.generate(tmp_path / "own")
    asked = ("--identity", services.name, "--issuer", services.issuer)
    attest(plan, keys.load_private(tmp_path / "own"))
    status, found = verify(plan.layout.release_folder, tmp_path, *asked)
    assert status == 8
    assert "it has no certificate" in found[0]["detail"]
    attest(plan, None)
    status, found = verify(plan.layout.release_folder, tmp_path, *asked)
    assert status == 8
    assert f"a signature by {services.name} is required" in found[0]["detail"]


def test_a_claim_that_another_signed(signed, services, tmp_path):
    lines = (signed / CLAIMS).read_bytes().splitlines()
    services.name = "https://github.com/somebody/else"
    lines[1] = Keyless().bundle(read(lines[1], "line 2").statement)
    (signed / CLAIMS).write_bytes(b"\n".join(lines) + b"\n")
    status, found = verify(signed, tmp_path)
    assert status == 8
    [bad] = [one for one in found if one["outcome"] == "failed"]
    assert bad["subject"] == f"{CLAIMS} line 2"
    assert "is signed by https://github.com/somebody/else (confirmed by" in bad["detail"]


def test_a_file_that_was_changed_after(signed, tmp_path):
    path = signed / "config.json"
    kept = path.read_bytes()
    try:
        path.write_bytes(kept.replace(b"{", b"{ ", 1))
        sums = (signed / "SHA256SUMS").read_text()
        old, new = (hashlib.sha256(content).hexdigest() for content in (kept, path.read_bytes()))
        (signed / "SHA256SUMS").write_text(sums.replace(old, new))
        status, found = verify(signed, tmp_path)
    finally:
        path.write_bytes(kept)
        (signed / "SHA256SUMS").write_text(sums)
    assert status == 8
    wrong = {one["subject"] for one in found if one["outcome"] == "failed"}
    assert wrong == {"config.json"}  # that the checksums differ, too, has the same cause


def test_without_the_library_a_signature_cannot_be_checked(signed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sigstore.sign", None)
    status, found = verify(signed, tmp_path)
    assert status == 9
    assert found[0]["outcome"] == "unverified"
    assert "herdbook[keyless]" in found[0]["detail"]


def test_a_service_that_fails_changes_nothing(signed, plan, services):
    before = {name: (signed / name).read_bytes() for name in (CLAIMS, SIGNATURE)}
    services.broken.add(LOG)
    with pytest.raises(StepError):
        attest(plan, Keyless())
    assert {name: (signed / name).read_bytes() for name in (CLAIMS, SIGNATURE)} == before


def test_options_that_belong_together(tmp_path, capsys):
    keys.generate(tmp_path / "own")
    assert main(["verify", str(tmp_path), "--identity", "a@b.c"]) == 2
    assert "must be given together" in capsys.readouterr().err
    asked = ["--identity", "a@b.c", "--issuer", "https://b.c", "--key", str(tmp_path / "own.pub")]
    assert main(["verify", str(tmp_path), *asked]) == 2
    assert "--key and --identity" in capsys.readouterr().err


# --- the workflow -------------------------------------------------------------------------------------------------


def test_the_setting(monkeypatch):
    monkeypatch.setenv("HERDBOOK_SIGNING_KEY", "keyless")
    signer = configured_signer()
    assert isinstance(signer, Keyless)
    assert attested_files(signer) == [CLAIMS, SIGNATURE]


def test_nothing_is_signed_again_that_is_signed_already(plan, services, tmp_path, monkeypatch):
    """Who runs it, and with which version of the library, changes nothing; that it is signed does."""
    first = attest_key(plan, Keyless())
    services.name = "somebody@example.com"
    monkeypatch.setattr(
        "herdbook.plan.parsed.package_version",
        lambda name: "9.9" if name == "sigstore" else package_version(name),
    )
    assert attest_key(plan, Keyless()) == first
    monkeypatch.undo()
    assert attest_key(plan, None) != first
    keys.generate(tmp_path / "own")
    assert attest_key(plan, keys.load_private(tmp_path / "own")) != first
    assert services.requests == []
