"""Claims and signatures that are removed, or made with another key."""

from herdbook.layout import CLAIMS, SIGNATURE
from support.attacks import KEY
from support.attacks.forging import sign_again


def claim_removed(folder):
    lines = (folder / CLAIMS).read_bytes().splitlines(keepends=True)
    (folder / CLAIMS).write_bytes(b"".join(lines[:-1]))


def claims_gone(folder):
    (folder / CLAIMS).unlink()


def unsigned(folder):
    (folder / SIGNATURE).unlink()


CASES = [
    ("a claim removed", claim_removed, ("claims", "claims", "urn:herdbook:predicate:tensor-lineage:v1"), {}),
    ("all claims removed", claims_gone, ("claims", "level", ""), {}),
    ("the model's signature removed", unsigned, ("claims", "signature", SIGNATURE), {}),
    ("everything re-signed with another key", sign_again, ("claims", "signature", SIGNATURE), KEY),
]
