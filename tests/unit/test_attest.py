"""Keys, envelopes, bundles and model signatures: by the formats' own examples, and damaged in every way."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from herdbook.cli.main import main
from herdbook.errors import StepError, UnverifiedError, VerificationError
from herdbook.layout import CLAIMS, PUBLIC_KEY, SIGNATURE, SUMS
from herdbook.plan.release import attest_key
from herdbook.signing import keys, oms
from herdbook.signing.bundle import bundle, pae, read
from herdbook.steps.attest.step import attest
from herdbook.steps.card.step import render_card
from support import tiny

STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "a", "digest": {"sha256": "0" * 64}}],
    "predicateType": "https://example.com/p",
    "predicate": {"é": 1.0},
}


@pytest.fixture
def key(tmp_path):
    keys.generate(tmp_path / "own")
    return keys.load_private(tmp_path / "own")


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    root = tmp_path_factory.mktemp("attest")
    tiny.write_model(root / "base", seed=1)
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", {"base": {"folder": "base"}}), root / "results")
    render_card(plan, plan.layout.card_folder)
    tiny.release(plan)
    return plan


def curve_key(curve):
    return keys.PrivateKey(ec.generate_private_key(curve))


# --- keys ---------------------------------------------------------------------------------------------------------


def test_signatures_are_those_of_rfc_6979():
    """Appendix A.2.5: curve P-256, SHA-256, message "sample"."""
    secret = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    key = keys.PrivateKey(ec.derive_private_key(secret, ec.SECP256R1()))
    assert decode_dss_signature(key.sign(b"sample")) == (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    )


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_every_curve_of_model_signing(curve):
    key = curve_key(curve)
    assert key.public.verifies(key.sign(b"data"), b"data")
    assert not key.public.verifies(key.sign(b"data"), b"date")
    assert not key.public.verifies(b"no signature", b"data")
    assert not curve_key(curve).public.verifies(key.sign(b"data"), b"data")


def test_a_pair_is_for_its_owner_and_never_overwritten(tmp_path, capsys):
    path = tmp_path / "keys" / "own"
    assert main(["key", str(path)]) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    pem = (tmp_path / "keys/own.pub").read_bytes()
    fingerprint = hashlib.sha256(pem).hexdigest()
    assert fingerprint in capsys.readouterr().out
    assert (
        keys.load_private(path).public.fingerprint
        == fingerprint
        == keys.load_public(path.with_name("own.pub")).fingerprint
    )
    assert main(["key", str(path)]) == 7
    assert "never overwritten" in capsys.readouterr().err
    assert "PRIVATE" in path.read_text()


def test_a_key_that_git_would_take_is_warned_of(tmp_path, capsys, monkeypatch):
    def warned(path):
        assert main(["key", str(path)]) == 0
        return "git does not ignore" in capsys.readouterr().err

    inside = tmp_path / "herd"
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    subprocess.run(["git", "init", "--quiet", str(inside)], check=True)
    (inside / ".gitignore").write_text((Path(__file__).parents[2] / "starter/.gitignore").read_text())
    assert not warned(tmp_path / "beside")
    assert not warned(inside / "own.key")
    assert not warned(inside / "keys/own.pem")
    assert warned(inside / "own")
    staged = subprocess.run(
        ["git", "-C", str(inside), "add", "--all", "--verbose"], capture_output=True, text=True, check=True
    )
    added = {line.split("'")[1] for line in staged.stdout.splitlines()}
    assert added == {".gitignore", "own", "own.pub", "own.key.pub", "keys/own.pem.pub"}
    monkeypatch.setenv("PATH", str(tmp_path))  # no git here
    assert not warned(inside / "other")


def test_a_password_encrypts(tmp_path, monkeypatch):
    monkeypatch.setenv(keys.PASSWORD_VARIABLE, "horse battery")
    keys.generate(tmp_path / "own")
    assert "ENCRYPTED" in (tmp_path / "own").read_text()
    keys.load_private(tmp_path / "own")
    monkeypatch.setenv(keys.PASSWORD_VARIABLE, "wrong")
    with pytest.raises(StepError, match="is wrong"):
        keys.load_private(tmp_path / "own")
    monkeypatch.delenv(keys.PASSWORD_VARIABLE)
    with pytest.raises(StepError, match="is encrypted. Set"):
        keys.load_private(tmp_path / "own")


def test_keys_that_cannot_be_used(tmp_path):
    def pem(key):
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    path = tmp_path / "key"
    with pytest.raises(StepError, match="cannot be read: No such file"):
        keys.load_private(path)
    for content, message in (
        (b"rubbish", "not a private key"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "only P-256, P-384 and P-521"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "only P-256, P-384 and P-521"),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(StepError, match=message) as caught:
            keys.load_private(path)
        assert "PRIVATE KEY" not in str(caught.value)
    path.write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    path.chmod(0o640)
    with pytest.raises(StepError, match="other users may read it"):
        keys.load_private(path)
    with pytest.raises(StepError, match="is a private key"):
        keys.load_public(path)
    path.write_bytes(b"rubbish")
    with pytest.raises(StepError, match="not a public key"):
        keys.load_public(path)


def test_a_private_key_does_not_show_itself(key):
    assert repr(key) == f"PrivateKey({key.public.fingerprint[:12]})"


# --- envelopes ----------------------------------------------------------------------------------------------------


def test_what_is_signed_is_dsse_s_own_example():
    """protocol.md: payload "hello world" of type http://example.com/HelloWorld."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_a_bundle_is_read_again_and_is_by_its_key_alone(key):
    line = bundle(STATEMENT, key)
    assert b"\n" not in line
    envelope = read(line, "line 1")
    assert envelope.statement == STATEMENT
    assert envelope.hint == key.public.fingerprint
    assert envelope.is_signed_by(key.public)
    assert not envelope.is_signed_by(curve_key(ec.SECP256R1()).public)
    assert not envelope.is_signed_by(curve_key(ec.SECP384R1()).public)


def test_a_bare_statement_is_not_signed(key):
    envelope = read(json.dumps(STATEMENT), "line 1")
    assert not envelope.is_signed
    assert not envelope.is_signed_by(key.public)


def damaged_bundles():
    def changed(**changes):
        def change(data):
            data["dsseEnvelope"].update(changes)

        return change

    yield "payload is no base64", changed(payload="?")
    yield "payload is no JSON", changed(payload=base64.b64encode(b"rubbish").decode())
    yield "payload is no statement", changed(payload=base64.b64encode(b"[]").decode())
    yield "another type", changed(payloadType="text/plain")
    yield "no signature", changed(signatures=[])
    yield "signature is no base64", changed(signatures=[{"sig": "?"}])
    yield "signature is missing", changed(signatures=[{}])
    yield "envelope is a list", lambda data: data.update(dsseEnvelope=[])
    yield "material is a list", lambda data: data.update(verificationMaterial=[])


@pytest.mark.parametrize(
    ("what", "change"), damaged_bundles(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_damaged_bundles_are_refused(key, what, change):
    data = json.loads(bundle(STATEMENT, key))
    change(data)
    with pytest.raises(VerificationError, match="line 7: "):
        read(json.dumps(data), "line 7")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "1", "{}", '{"predicateType": 1}', "[" * 100_000, '{"subject": 3, "predicateType": ""}'],
)
def test_what_is_neither_is_refused(text):
    with pytest.raises(VerificationError, match="line 7: "):
        read(text, "line 7")


def test_one_changed_byte_of_what_is_said_breaks_the_signature(key):
    data = json.loads(bundle(STATEMENT, key))
    payload = base64.b64decode(data["dsseEnvelope"]["payload"]).replace(b"000", b"100", 1)
    data["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    assert not read(json.dumps(data), "line 1").is_signed_by(key.public)


def test_of_two_signatures_one_is_enough(key):
    data = json.loads(bundle(STATEMENT, key))
    data["dsseEnvelope"]["signatures"].insert(0, {"sig": base64.b64encode(b"other").decode()})
    assert read(json.dumps(data), "line 1").is_signed_by(key.public)


# --- model signatures ---------------------------------------------------------------------------------------------

DIGESTS = {
    name: hashlib.sha256(name.encode()).hexdigest()
    for name in ("b", "a", "z/a", CLAIMS, SIGNATURE, ".gitattributes")
}


def test_the_manifest_lists_every_file_in_order_and_its_root_is_over_their_digests():
    made = oms.manifest("model", DIGESTS)
    assert [one["name"] for one in made["predicate"]["resources"]] == ["a", "b", "z/a"]
    digest = hashlib.sha256(
        b"".join(hashlib.sha256(name).digest() for name in (b"a", b"b", b"z/a"))
    ).hexdigest()
    assert made["subject"] == [{"name": "model", "digest": {"sha256": digest}}]
    assert made["predicate"]["serialization"]["ignore_paths"] == sorted(
        made["predicate"]["serialization"]["ignore_paths"]
    )


def test_differences_tell_changed_missing_added_and_renamed(key):
    signed = oms.signed_digests(read(bundle(oms.manifest("model", DIGESTS), key), SIGNATURE))
    assert signed == {name: DIGESTS[name] for name in ("a", "b", "z/a")}
    assert list(oms.differences(signed, DIGESTS)) == []
    found = {"a": "1" * 64, "z/b": DIGESTS["z/a"], "b": DIGESTS["b"], ".git/config": "2" * 64}
    assert list(oms.differences(signed, found)) == [
        ("a", DIGESTS["a"], "1" * 64),
        ("z/a", DIGESTS["z/a"], None),
        ("z/b", None, DIGESTS["z/a"]),
    ]


def test_manifests_that_are_none(key):
    made = oms.manifest("model", DIGESTS)

    def signed(**changes):
        return oms.signed_digests(read(bundle({**made, **changes}, key), SIGNATURE))

    with pytest.raises(VerificationError, match="not a model signature"):
        signed(predicateType="https://example.com")
    with pytest.raises(VerificationError, match="contradicts"):
        signed(subject=[{"name": "model", "digest": {"sha256": "0" * 64}}])
    with pytest.raises(VerificationError, match="damaged"):
        signed(predicate={})
    twice = {**made["predicate"], "resources": made["predicate"]["resources"] * 2}
    with pytest.raises(VerificationError, match="contradicts"):
        signed(predicate=twice)
    how = {**made["predicate"]["serialization"], "hash_type": "blake3"}
    with pytest.raises(UnverifiedError, match="blake3 digests of files"):
        signed(predicate={**made["predicate"], "serialization": how})


# --- the step -----------------------------------------------------------------------------------------------------


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_everything_is_signed_with_the_same_bytes_each_time(plan, key, tmp_path):
    folder = plan.layout.release_folder
    attest(plan, key)
    first = contents(folder)
    script = (
        "import sys; from pathlib import Path; from herdbook import plan as plans;"
        "from herdbook.signing.keys import load_private; from herdbook.steps.attest.step import attest;"
        "attest(plans.load(Path(sys.argv[1]), Path(sys.argv[2])), load_private(Path(sys.argv[3])))"
    )
    subprocess.run(  # whose sets have another order than those of this process
        [sys.executable, "-c", script, plan.recipe_path, plan.layout.root, tmp_path / "own"],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        check=True,
    )
    assert contents(folder) == first
    for line in (folder / CLAIMS).read_bytes().splitlines():
        assert read(line, CLAIMS).is_signed_by(key.public)
    signature = read((folder / SIGNATURE).read_bytes(), SIGNATURE)
    assert signature.is_signed_by(keys.load_public(folder / PUBLIC_KEY))
    found = {name: hashlib.sha256(content).hexdigest() for name, content in first.items()}
    assert list(oms.differences(oms.signed_digests(signature), found)) == []


def test_without_a_key_nothing_is_signed_and_no_signature_is_left_over(plan, key):
    attest(plan, key)
    attest(plan, None)
    assert not (plan.layout.release_folder / SIGNATURE).exists()
    assert not (plan.layout.release_folder / PUBLIC_KEY).exists()
    lines = (plan.layout.release_folder / CLAIMS).read_bytes().splitlines()
    assert len(lines) == 3
    assert not any(read(line, CLAIMS).is_signed for line in lines)


def test_the_rule_s_key_follows_the_public_key_alone(plan, key):
    other = curve_key(ec.SECP256R1())
    assert len({attest_key(plan, one) for one in (None, key, other)}) == 3
    assert attest_key(plan, key) == attest_key(plan, key)


def test_command_line(plan, key, tmp_path, capsys, monkeypatch):
    base = ["attest", "--recipe", str(plan.recipe_path), "--results", str(plan.layout.root)]
    monkeypatch.setenv("HERDBOOK_SIGNING_KEY", str(tmp_path / "own"))
    assert main(base) == 0
    assert key.public.fingerprint in capsys.readouterr().out
    monkeypatch.setenv("HERDBOOK_SIGNING_KEY", "")
    assert main(base) == 0
    assert "not signed" in capsys.readouterr().out
    assert main([*base, "--key", str(tmp_path / "absent")]) == 7
    assert "cannot be read" in capsys.readouterr().err


def test_there_must_be_a_release(plan, tmp_path, capsys):
    sums = plan.layout.release_folder / SUMS
    kept = sums.read_bytes()
    sums.unlink()
    try:
        assert main(["attest", "--recipe", str(plan.recipe_path), "--results", str(plan.layout.root)]) == 7
        assert "Build it first" in capsys.readouterr().err
    finally:
        sums.write_bytes(kept)
