"""Mutations of files: each damages one value, one key, or a few bytes; the same seed gives the same ones.

Mutations that were once told wrongly are kept in ``tests/data/damaged``, in a folder for each file, and are tried first in every
run. Three variables are for longer runs: ``HERDBOOK_FUZZ_BUDGET``, the number of mutations of each file; ``HERDBOOK_FUZZ_SEED``; and
``HERDBOOK_FUZZ_KEEP``, a folder of the same form to which the mutations go that are told wrongly.
"""

import hashlib
import json
import os
from pathlib import Path
from random import Random

KEPT = Path(__file__).parents[1] / "data/damaged"
SEED = os.environ.get("HERDBOOK_FUZZ_SEED", "20261129")
BUDGET = int(os.environ.get("HERDBOOK_FUZZ_BUDGET", "0"))

DEEP = "deep"  # replaced in the text, since Python's writer would not write it
LONG = "long"
VALUES = (
    None, True, False, 0, 1, -1, 2**63, 1e400, -1e400, float("nan"), 1.5, 0.0, "", "text", "0", "\ud800", "\x1b[2J", [], [[]],
    [None], ["text"], [1.5], [-1], {}, {"": None}, {"text": 1.5}, [{}], {"a": {"b": []}}, DEEP, LONG,
)  # fmt: skip
PIECES = (
    b"", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"{", b"[", b"]", b'"', b":", b",", b"null", b"[" * 3000, b"9" * 5000, b"0x_",
    b"!!timestamp x", b"&a [*a]", b"<<: 1", b"!!set {a", b"!!binary =", b"!!python/none", b"1e999", b"-", b"\n",
)  # fmt: skip


def kept(name):
    """Return the mutations of a file that are kept, in the order of their names."""
    return [path.read_bytes() for path in sorted((KEPT / name.replace("/", "--")).glob("*"))]


def keep(name, content):
    """Keep a mutation of a file that was told wrongly, if there is a folder for it."""
    if "HERDBOOK_FUZZ_KEEP" in os.environ:
        folder = Path(os.environ["HERDBOOK_FUZZ_KEEP"]) / name.replace("/", "--")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def paths(value, at=()):
    """Yield the path of each value in a JSON document."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*at, key))


def mutated_json(document, random: Random):
    """Return a JSON document in which one value is replaced, renamed or removed, as bytes."""
    document = json.loads(json.dumps(document))
    where = random.choice(list(paths(document)))
    value = random.choice(VALUES)
    if not where:
        document = value
    else:
        *parents, last = where
        inside = document
        for key in parents:
            inside = inside[key]
        way = random.choice(("replace", "replace", "replace", "remove", "rename"))
        if way == "remove":
            del inside[last]
        elif way == "rename" and isinstance(inside, dict):
            inside[random.choice(["", "text", "\ud800", "__class__", "model_type"])] = inside.pop(last)
        else:
            inside[last] = value
    text = json.dumps(document)
    text = text.replace(f'"{DEEP}"', "[" * 3000 + "]" * 3000).replace(f'"{LONG}"', "9" * 5000)
    return text.encode()


def mutated_bytes(content, random: Random):
    """Return bytes of which a piece is replaced, removed, or repeated."""
    at = random.randrange(len(content) + 1)
    length = random.choice((0, 1, 1, 2, 8, 64, len(content)))
    if random.random() < 0.3:
        flipped = bytearray(content)
        for _ in range(random.choice((1, 2, 8))):
            flipped[random.randrange(len(flipped))] = random.randrange(256)
        return bytes(flipped)
    return content[:at] + random.choice(PIECES) + content[at + length :]


def mutated(content, random: Random):
    """Return a mutation of a file: of its values if it is JSON, or of its bytes."""
    try:
        document = json.loads(content)
    except ValueError:
        return mutated_bytes(content, random)
    return mutated_json(document, random) if random.random() < 0.8 else mutated_bytes(content, random)


def mutated_header(content, random: Random):
    """Return a safetensors file whose header is mutated; its length fits again."""
    length = int.from_bytes(content[:8], "little")
    header = mutated(content[8 : 8 + length], random)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
