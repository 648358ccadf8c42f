"""Builders who lie: they change what a release says, derive everything else from that, and sign it all afresh."""

import hashlib
import json
from contextlib import contextmanager

from herdbook.files import dump_json, sha256_file
from herdbook.layout import BOMS, CLAIMS, CONFIG, LINEAGE, OUTSIDE_SUMS, PUBLIC_KEY, SIGNATURE, SUMS
from herdbook.plan.folder import made_files
from herdbook.plan.release import contents
from herdbook.provenance.bom import bom
from herdbook.provenance.claims import statements
from herdbook.provenance.lineage import lines
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.release.sums import format_sums, with_sums
from herdbook.signing import keys
from herdbook.signing.oms import manifest
from herdbook.signing.signer import line, signed
from herdbook.weights.checkpoint import read_header

KEY = keys.PrivateKey(keys.ec.generate_private_key(keys.ec.SECP256R1()))


@contextmanager
def told(folder, key=KEY):
    """Derive from what the block changes: keys of records, lineage, bills of materials, checksums, claims and signatures."""
    before = Release(FolderSubject(folder)).make_plan()
    yield
    write_sums(folder)
    after = Release(FolderSubject(folder)).make_plan()
    _rekey(folder, before, after)
    if before.released.config != after.released.config and CONFIG in made_files(after, after.released):
        (folder / CONFIG).write_text(dump_json(after.released.config))
    write_sums(folder)
    release = Release(FolderSubject(folder))
    headers = {name: read_header(folder / name) for name in after.released.shard_names}
    (folder / LINEAGE).write_text("".join(lines(after, release.records(), headers)))
    known = {
        name: digest for name, digest in write_sums(folder).items() if name not in {*BOMS.values(), SUMS}
    }
    for version, name in BOMS.items():
        (folder / name).write_text(dump_json(bom(after, version, known, lambda n: _json(folder, n))))
    sign(folder, after, key)


def sign(folder, plan, key=KEY):
    """Write checksums, claims and signatures, by the code that builds them."""
    digests = with_sums(write_sums(folder), (folder / SUMS).read_bytes())
    claims = statements(plan, digests, lambda name: _json(folder, name))
    (folder / CLAIMS).write_bytes(b"".join(line(claim, key) for claim in claims))
    (folder / PUBLIC_KEY).write_text(key.public.pem)
    digests[PUBLIC_KEY] = hashlib.sha256(key.public.pem.encode()).hexdigest()
    (folder / SIGNATURE).write_bytes(signed(manifest(plan.recipe.release.name, digests), key))


def write_sums(folder):
    """Write the checksums anew; return them."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    digests = {name: sha256_file(folder / name) for name in names if name not in OUTSIDE_SUMS}
    (folder / SUMS).write_text(format_sums(digests))
    return digests


def _rekey(folder, before, after):
    """Give records and results the keys that follow now."""
    renamed = dict(zip(before.parts, after.parts, strict=True))
    for old, new in zip(contents(before), contents(after), strict=True):
        if not old.endswith(".json") or not old.startswith("provenance/"):
            continue
        text = (folder / old).read_text()
        for key, now in renamed.items():
            text = text.replace(key, now)
        content = json.loads(text)
        part = after.parts.get(content.get("key"))
        if part is not None and old != new:
            content |= part.about
        (folder / old).unlink()
        (folder / new).write_text(dump_json(content))


def _json(folder, name):
    return json.loads((folder / name).read_text())
