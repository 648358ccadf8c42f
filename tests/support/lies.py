"""Builders who lie: they change what a release says, derive everything else from that, and sign it all afresh."""

import json
from contextlib import contextmanager, suppress

from herdbook.errors import HerdbookError
from herdbook.files import dump_json, sha256_file
from herdbook.layout import (
    BOMS,
    CARD,
    CLAIMS,
    COMPARISONS,
    CONFIG,
    EVALUATIONS,
    IMATRIX,
    INPUTS,
    LINEAGE,
    LOCK,
    LOSSES,
    OUTSIDE_SUMS,
    PUBLIC_KEY,
    RECORDS,
    ROUTING,
    SEARCHES,
    SIGNATURE,
    SUMS,
    WEIGHTS_INDEX,
)
from herdbook.plan.folder import made_files
from herdbook.plan.release import computed_files, contents
from herdbook.plan.tuned import search_key
from herdbook.provenance.bom import bom
from herdbook.provenance.claims import statements
from herdbook.provenance.lineage import parse
from herdbook.provenance.origins import lines
from herdbook.release.finding import Options
from herdbook.release.reader import Release, damaged
from herdbook.release.subject import FolderSubject
from herdbook.release.sums import format_sums, with_sums
from herdbook.signing import keys
from herdbook.signing.oms import manifest
from herdbook.signing.signer import line, signed
from herdbook.steps.assemble.step import index_of
from herdbook.steps.card.step import card_texts
from herdbook.verify.rebuild.workspace import open_workspace
from herdbook.weights.checkpoint import read_header

KEY = keys.PrivateKey(keys.ec.generate_private_key(keys.ec.SECP256R1()))


@contextmanager
def told(folder, key=KEY):
    """Derive all else from what the block changes: keys, names, lineage, bills, card, checksums, claims and signatures."""
    before = Release(FolderSubject(folder)).make_plan()
    yield
    write_sums(folder)
    _search_again(folder, before)
    after = Release(FolderSubject(folder)).make_plan()
    _rekey(folder, before, after)
    if before.released.config != after.released.config and CONFIG in made_files(after, after.released):
        (folder / CONFIG).write_text(dump_json(after.released.config))
    if before.released.shard_names != after.released.shard_names:
        (folder / WEIGHTS_INDEX).write_text(dump_json(index_of(after.released)))
    write_sums(folder)
    release = Release(FolderSubject(folder))
    if LINEAGE in computed_files(after):
        headers = {name: read_header(folder / name) for name in after.released.shard_names}
        (folder / LINEAGE).write_text("".join(lines(after, release.records(), headers)))
    if (folder / CARD).exists():
        # The card is made with them; the bills, which have its digest, follow.
        write_claims(folder, after, key)
        _write_card(folder)
    write_bills(folder, after)
    sign(folder, after, key)


def write_bills(folder, plan):
    """Write the bills of materials, by the code that builds them."""
    known = {name: digest for name, digest in write_sums(folder).items() if name not in BOMS.values()}
    for version, name in BOMS.items():
        (folder / name).write_text(dump_json(bom(plan, version, known, lambda n: _json(folder, n))))


def sign(folder, plan, key=KEY):
    """Write checksums, claims and signatures, by the code that builds them."""
    write_claims(folder, plan, key)
    sign_model(folder, plan.title, key)


def write_claims(folder, plan, key=KEY):
    """Write checksums and claims, by the code that builds them."""
    digests = with_sums(write_sums(folder), (folder / SUMS).read_bytes())
    slices = parse((folder / LINEAGE).read_text()) if LINEAGE in digests else []
    claims = statements(plan, digests, lambda name: _json(folder, name), slices)
    (folder / CLAIMS).write_bytes(b"".join(line(claim, key) for claim in claims))


def sign_model(folder, name, key=KEY):
    """Write the signature of all files, and the key that proves it."""
    (folder / PUBLIC_KEY).write_text(key.public.pem)
    outside = {PUBLIC_KEY: sha256_file(folder / PUBLIC_KEY), SUMS: sha256_file(folder / SUMS)}
    digests = Release(FolderSubject(folder)).sums | outside
    (folder / SIGNATURE).write_bytes(signed(manifest(name, digests), key))


def write_sums(folder):
    """Write the checksums anew; return them."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    digests = {name: sha256_file(folder / name) for name in names if name not in OUTSIDE_SUMS}
    (folder / SUMS).write_text(format_sums(digests))
    return digests


def _search_again(folder, before):
    """Give searches over models the keys that follow now, unless the lie is such a key."""
    if not before.lock.tuned:
        return
    release = Release(FolderSubject(folder))
    content = _json(folder, LOCK)
    for name, one in release.lock.tuned.items():
        if name in before.lock.tuned and one.result.key == before.lock.tuned[name].result.key:
            content["tuned"][name]["result"]["key"] = search_key(name, release.recipe, release.lock)
    (folder / LOCK).write_text(dump_json(content))
    write_sums(folder)


def _rekey(folder, before, after):
    """Give records, results and files the keys and names that follow now."""
    renamed = dict(zip(before.parts, after.parts, strict=True))
    renamed |= {old.file: new.file for old, new in zip(before.quantized, after.quantized, strict=True)}
    results = {
        **{f"{EVALUATIONS}/{item.id}.json": item for item in after.evaluations},
        **{f"{SEARCHES}/{item.id}.json": item for item in after.searches.values()},
        **({f"{ROUTING}/{after.report.id}.json": after.report} if after.report else {}),
        **({f"{LOSSES}/{after.reference.id}.json": after.reference} if after.reference else {}),
        **{f"{LOSSES}/{item.id}.json": item for item in after.losses},
        **({f"{RECORDS}/{after.imatrix.id}{IMATRIX}.json": after.imatrix} if after.imatrix else {}),
        **{f"{RECORDS}/{item.id}.gguf.json": item for item in after.quantized},
    }
    for old, new in zip(contents(before), contents(after), strict=True):
        if old.startswith(f"{INPUTS}/"):  # they are in the order of their digests
            own = next(
                one for one in contents(after) if one.startswith(f"{INPUTS}/") and one[-8:] == old[-8:]
            )
            (folder / old).rename(folder / own)
            continue
        if not old.endswith(".json") or not old.startswith("provenance/"):
            (folder / old).rename(folder / new)
            continue
        text = (folder / old).read_text()
        for key, now in renamed.items():
            text = text.replace(key, now)
        content = json.loads(text)
        if old != new:
            part = after.parts.get(content.get("key")) or results.get(new)
            content |= part.about if part else {}
        (folder / old).unlink()
        (folder / new).write_text(dump_json(content))


def _write_card(folder):
    """Write the card and its figures anew, from the release's own files."""
    release = Release(FolderSubject(folder))
    with open_workspace(release, Options(), "card") as workspace:
        workspace.take_over(RECORDS, SEARCHES, EVALUATIONS, LOSSES, ROUTING)
        with (
            suppress(HerdbookError),
            damaged("the card"),
        ):  # of some lies no card can tell; the one before stays
            stated = workspace.recorded_comparisons()  # None if the samples are released
            for name, text in card_texts(workspace.plan, stated).items():
                if stated is None or name != COMPARISONS:
                    (folder / name).write_text(text)


def _json(folder, name):
    return json.loads((folder / name).read_text())
