"""OpenSSF model signing, by two who wrote it apart: what Herdbook signs, the reference implementation verifies, and the other way."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from herdbook.cli.main import main
from herdbook.errors import StepError
from herdbook.layout import CLAIMS, PUBLIC_KEY, SIGNATURE
from herdbook.signing import keyless, keys, oms
from herdbook.signing.bundle import bundle, read
from herdbook.steps.card.step import render_card
from support import local_sigstore, tiny
from support.tools import MODEL_SIGNING as REFERENCE

GUIDE = Path(__file__).parents[2] / "docs/signing.md"
DATA = Path(__file__).parents[1] / "data/model-signing"


def installed():
    try:
        REFERENCE.find()
    except StepError:
        return False
    return True


needs_reference = pytest.mark.skipif(not installed(), reason=REFERENCE.install)


def run(*arguments):
    """Run the reference; return whether it is content, and what it said."""
    command, environment = REFERENCE.find()
    done = subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode == 0, done.stdout + done.stderr


def verified(folder, key):
    """Verify a folder as docs/signing.md says."""
    return run("verify", "key", folder, "--signature", folder / SIGNATURE, "--public_key", key)


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small release, signed by the command line."""
    root = tmp_path_factory.mktemp("signed")
    tiny.write_model(root / "base", seed=1)
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", {"base": {"folder": "base"}}), root / "results")
    render_card(plan, plan.layout.card_folder)
    keys.generate(root / "own")
    tiny.release(plan)
    base = ["attest", "--recipe", str(plan.recipe_path), "--results", str(plan.layout.root)]
    assert main([*base, "--key", str(root / "own")]) == 0
    return plan.layout.release_folder


@pytest.fixture
def signed(made, tmp_path):
    """A copy of the release, to be altered."""
    return Path(shutil.copytree(made, tmp_path / "release"))


# --- ours, by the reference -----------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_reference
def test_the_reference_verifies_what_herdbook_signs(made):
    content, said = verified(made, made / PUBLIC_KEY)
    assert content, said


@pytest.mark.slow
@needs_reference
def test_what_is_signed_may_move_and_be_claimed_about(signed):
    """The folder's name is not signed, and claims may follow."""
    with (signed / CLAIMS).open("a") as file:
        file.write("{}\n")
    moved = signed.rename(signed.with_name("elsewhere"))
    content, said = verified(moved, moved / PUBLIC_KEY)
    assert content, said


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, ("openssl", "jq"))), reason="openssl and jq")
def test_by_hand_as_the_documentation_says(signed):
    commands = re.search(r"```sh\n(jq .+?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[1]

    def passes(script=commands):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=signed,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode == 0

    assert passes()
    of_a_claim = "".join(commands.splitlines(keepends=True)[:4])
    assert passes(f"sed -n 2p claims.jsonl > ../line\n{re.sub(r'model[.]sig(?![.])', '../line', of_a_claim)}")
    flip(signed)
    assert not passes()
    assert passes(of_a_claim)
    keys.generate(signed.parent / "other")
    shutil.copy(signed.parent / "other.pub", signed / PUBLIC_KEY)
    assert not passes(of_a_claim)


def flip(folder):
    path = next(folder.glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path.name


def add(folder):
    (folder / "provenance/more.json").write_text("{}")
    return "provenance/more.json"


def remove(folder):
    (folder / "provenance/lineage.jsonl").unlink()
    return "provenance/lineage.jsonl"


def rename(folder):
    (folder / "tokenizer.json").rename(folder / "tokenizer_.json")
    return "tokenizer_.json"


def swap(folder):
    """Exchange two files' names: the digest over all digests could stay, if only the order of names were signed."""
    one, other = folder / "config.json", folder / "tokenizer.json"
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)
    return "config.json"


DAMAGE = (flip, add, remove, rename, swap)


@pytest.mark.slow
@needs_reference
@pytest.mark.parametrize("damage", DAMAGE)
def test_the_reference_refuses_what_was_altered(signed, damage):
    name = damage(signed)
    content, said = verified(signed, signed / PUBLIC_KEY)
    assert not content
    assert name in said


@pytest.mark.slow
@needs_reference
def test_the_reference_refuses_another_key(made, tmp_path):
    keys.generate(tmp_path / "other")
    content, said = verified(made, tmp_path / "other.pub")
    assert not content
    assert "Verification failed" in said


# --- the reference's, by ours ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A folder that the reference signed, and the public key."""
    root = tmp_path_factory.mktemp("theirs")
    keys.generate(root / "own")
    folder = root / "model"
    for name in ("config.json", "weights.safetensors", "deeper/still/one.txt", ".gitattributes"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    content, said = run(
        "sign", "key", folder, "--private_key", root / "own", "--signature", folder / SIGNATURE
    )
    assert content, said
    return folder, keys.load_public(root / "own.pub")


@pytest.mark.slow
@needs_reference
def test_herdbook_accepts_what_the_reference_signs(theirs):
    folder, key = theirs
    envelope = read((folder / SIGNATURE).read_bytes(), SIGNATURE)
    assert envelope.is_signed_by(key)
    assert envelope.hint == key.fingerprint
    assert list(oms.differences(oms.signed_digests(envelope), digests(folder))) == []


@pytest.mark.slow
@needs_reference
def test_herdbook_refuses_what_was_altered_after_the_reference_signed(theirs, tmp_path):
    folder, key = theirs
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    (copy / "weights.safetensors").rename(copy / "weights_.safetensors")
    (copy / "config.json").write_bytes(b"config_json")
    envelope = read((copy / SIGNATURE).read_bytes(), SIGNATURE)
    changed = [name for name, _, _ in oms.differences(oms.signed_digests(envelope), digests(copy))]
    assert changed == ["config.json", "weights.safetensors", "weights_.safetensors"]
    payload = envelope.payload.replace(b"config.json", b"configs.json")
    data = json.loads(envelope.raw)
    data["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    assert not read(json.dumps(data), SIGNATURE).is_signed_by(key)


# --- without a key --------------------------------------------------------------------------------------------------


@pytest.fixture
def services(tmp_path, monkeypatch):
    """A Sigstore of our own, in which we may ask for an identity; and its trust configuration."""
    made = local_sigstore.LocalSigstore()
    with local_sigstore.serve(made) as environment:
        trust = tmp_path / "trust.json"
        trust.write_text(json.dumps(made.trust()))
        for name, value in {**environment, keyless.CONFIG_VARIABLE: str(trust)}.items():
            monkeypatch.setenv(name, value)
        yield made, trust


def verified_by_identity(folder, trust, identity, issuer):
    who = ["--identity", identity, "--identity_provider", issuer]
    return run("verify", "sigstore", folder, "--signature", folder / SIGNATURE, *who, "--trust_config", trust)


@pytest.mark.slow
@needs_reference
def test_the_reference_verifies_what_herdbook_signs_without_a_key(signed, services):
    made, trust = services
    (signed / PUBLIC_KEY).unlink()
    statement = oms.manifest("release", digests(signed))
    (signed / SIGNATURE).write_bytes(keyless.Keyless().bundle(statement))
    content, said = verified_by_identity(signed, trust, made.name, made.issuer)
    assert content, said
    content, said = verified_by_identity(signed, trust, "somebody@example.com", made.issuer)
    assert not content
    name = flip(signed)
    content, said = verified_by_identity(signed, trust, made.name, made.issuer)
    assert not content
    assert name in said
    validate(json.loads((signed / SIGNATURE).read_text()))


@pytest.mark.slow
@needs_reference
def test_herdbook_accepts_what_the_reference_signs_without_a_key(services, tmp_path):
    made, trust = services
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    signature = folder / SIGNATURE
    content, said = run(
        "sign",
        "sigstore",
        folder,
        "--signature",
        signature,
        "--use_ambient_credentials",
        "--trust_config",
        trust,
    )
    assert content, said
    envelope = read(signature.read_bytes(), SIGNATURE)
    assert keyless.Roots().identity(envelope) == keyless.Identity(made.name, made.issuer)
    assert list(oms.differences(oms.signed_digests(envelope), digests(folder))) == []


# --- both, by the specification -------------------------------------------------------------------------------------


def validate(data):
    """Validate a model signature, and what it signs, by the specification's schemas."""
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    schemas = [json.loads(path.read_text()) for path in DATA.glob("*.schema.json")]
    registry = Registry().with_resources((one["$id"], Resource.from_contents(one)) for one in schemas)
    by_name = {one["$id"].split("/")[3]: one for one in schemas}
    Draft202012Validator(by_name["bundle"], registry=registry).validate(data)
    payload = json.loads(base64.b64decode(data["dsseEnvelope"]["payload"]))
    Draft202012Validator(by_name["statement"], registry=registry).validate(payload)


def vector(name):
    return json.loads((DATA / f"vectors/{name}.json").read_text())


@pytest.mark.parametrize("name", ["key", "certificate", "sigstore"])
def test_vectors_that_are_good(name):
    validate(vector(name))
    signed = oms.signed_digests(read(json.dumps(vector(name)), name))
    assert signed.keys() == {"signme-1", "signme-2"}


@pytest.mark.parametrize("name", ["missing-envelope", "missing-verification-material", "wrong-predicate"])
def test_vectors_that_are_bad(name):
    from jsonschema import ValidationError

    with pytest.raises(ValidationError):
        validate(vector(name))


def test_the_vector_s_signature_is_by_its_key():
    key = keys.load_public(DATA / "vectors/key.pub")
    envelope = read(json.dumps(vector("key")), "key.json")
    assert envelope.hint == key.fingerprint
    assert envelope.is_signed_by(key)


def test_what_herdbook_signs_is_valid_and_the_same_twice(tmp_path):
    keys.generate(tmp_path / "own")
    names = ("README.md", "a/b.json", ".gitattributes", CLAIMS, SIGNATURE)
    statement = oms.manifest("model", {name: hashlib.sha256(name.encode()).hexdigest() for name in names})
    first, second = (bundle(statement, keys.load_private(tmp_path / "own")) for _ in range(2))
    assert first == second
    validate(json.loads(first))
