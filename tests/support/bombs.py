"""Inputs that would take minutes or gigabytes, each read by a process that may take 500 MB more than it has at its start.

``python -m support.bombs FOLDER`` prints, as JSON, the message that refuses each; the process ends if one takes more.
"""

import json
import re
import resource
import sys
from pathlib import Path

from herdbook import hub
from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.errors import HerdbookError
from herdbook.layout import CLAIMS, LINEAGE, LOCK, RECIPE, RECORDS, SUMS
from herdbook.plan import make
from herdbook.provenance import lineage
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
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


def bombs(folder):
    """Return, by name, a function for each that reads it."""
    laser = {"laser": "s0", "rank": 1, "matrices": ["mlp.down_proj"]}
    sets = "a: &a !!set {b, c}\n" + "".join(f"d{n}: !!set {{<<: [*a, *a], e}}\n" for n in range(20))
    stack = planned.stack(1, 2)
    stack["merge"]["slices"] *= 100_000
    entries = b",".join(b'"%d": {}' % n for n in range(900_000))
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
