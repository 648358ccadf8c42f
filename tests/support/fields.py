"""Every field of every file of a release: found by walking the files, and changed where it stands."""

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import yaml

from herdbook.files import dump_json
from herdbook.layout import (
    BOMS,
    CARD,
    CLAIMS,
    COMPARISONS,
    CONFIG,
    EVAL_RESULTS,
    EVALUATIONS,
    FIGURES,
    LICENSE_TEXTS,
    LINEAGE,
    NOTICE,
    OUTSIDE_SUMS,
    RECIPE,
    RECORDS,
    SIGNATURE,
    SUMS,
    WEIGHTS_INDEX,
)
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.signing import bundle
from herdbook.signing.signer import line
from herdbook.weights.checkpoint import read_header
from herdbook.weights.gguf_file import header, read_gguf
from support import lies

# What follows from the rest: to change it before the rest is derived would change nothing.
WRITTEN = {
    COMPARISONS,
    CONFIG,
    WEIGHTS_INDEX,
    LINEAGE,
    CARD,
    NOTICE,
    CLAIMS,
    SIGNATURE,
    SUMS,
    *OUTSIDE_SUMS,
    *BOMS.values(),
}
MERGED_KEYS = {
    "adapters",
    "code",
    "keys",
    "method",
    "metrics",
    "modules",
    "packages",
    "sources",
    "values",
    "vocab",
    "weights",
    "weight_map",
}  # one entry is as good as another


@dataclass(frozen=True)
class Field:
    """A field of a file.

    Args:
        file: The file.
        at: The names on the way to it, as the table of what is proven where has them.
        where: The names and places on the way to it in the file.
        value: Its value.
    """

    file: str
    at: tuple[str, ...]
    where: tuple[Any, ...]
    value: Any = None

    @property
    def group(self):
        """What it has in common with fields like it: the kind of file, and the way without places."""
        *_, last = self.file.split("/")
        kind = self.file.removesuffix(last) or last
        if last.endswith((".gguf.json", ".safetensors", ".gguf")):
            kind += "".join(last.partition(".gguf" if ".gguf" in last else ".")[1:])
        return (kind, *self.at)

    def __str__(self):
        return f"{self.file}: {'.'.join(map(str, self.where))}"


def fields(folder):
    """Yield each field of each file of a release."""
    states = _States(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        file = path.relative_to(folder).as_posix()
        match path.suffix:
            case ".json":
                yield from _in_json(file, json.loads(path.read_text()), states)
            case ".jsonl":
                yield from _in_rows(file, path.read_text().splitlines())
            case ".yaml" if file == RECIPE:
                yield from _leaves(file, yaml.safe_load(path.read_text()), (), ())
            case ".safetensors":
                yield Field(file, ("header",), ("header",))
                yield from (Field(file, (states.action(name),), (name,)) for name in read_header(path))
            case ".gguf":
                gguf = read_gguf(path)
                yield from (Field(file, tuple(key.split(".")), ("metadata", key)) for key in gguf.metadata)
                yield from (Field(file, ("tensors",), ("tensors", name)) for name in gguf.tensors)
            case ".md":
                _, front, body = path.read_text().split("---\n", 2)
                yield from (
                    Field(file, ("front matter", row.partition(":")[0]), (number + 1,))
                    for number, row in enumerate(front.splitlines())
                    if row[:1].isalpha()
                )
                first = front.count("\n") + 2
                yield from (
                    Field(file, ("body",), (number + first,))
                    for number, row in enumerate(body.splitlines())
                    if row.strip()
                )
            case _:
                yield Field(file, (), ())


class _States:
    """What was done to tensors, and what became of them."""

    def __init__(self, folder):
        records = [
            json.loads(path.read_text())
            for path in (folder / RECORDS).glob("*.json")
            if not path.name.endswith(".gguf.json")
        ]
        rows = [json.loads(row) for row in (folder / LINEAGE).read_text().splitlines()]
        self.files = {row["file"]: set() for row in rows}
        self.released = {row["sha256"] for row in rows}
        self.made = {row["tensor"]: row["made"]["action"] for row in rows if "made" in row}
        sums = [row.split("  ") for row in (folder / SUMS).read_text().splitlines()]
        self.sums = {digest for digest, name in sums if name.endswith(".safetensors")}
        self.ancestors, self.results = set(), set()
        waiting = [row["made"] for row in rows if "made" in row]
        while waiting:
            for parent in waiting.pop()["of"]:
                self.ancestors.add(parent["sha256"])
                if "made" in parent:
                    self.results.add(parent["sha256"])
                    waiting.append(parent["made"])
        self.records = records

    def action(self, tensor):
        """Return what was done to a released tensor."""
        return self.made.get(tensor, "copy")

    def state(self, sha256):
        """Return what became of a tensor."""
        if sha256 in self.released:
            return "released"
        if sha256 in self.results:
            return "between"
        return "input" if sha256 in self.ancestors else "unused"


def _in_json(file, content, states):
    is_record = file.startswith(RECORDS) and not file.endswith(".gguf.json")
    for field in _leaves(file, content, (), ()):
        at = field.at
        if is_record and at[0] == "tensors":
            entry = content["tensors"][field.where[1]]
            at = ("tensors", entry["action"], *at[2:])
            if at[2:] == ("sha256",):
                at = ("tensors", states.state(entry["sha256"]), "sha256")
        if is_record and at[0] == "file":
            at = ("file", "released" if content["file"]["sha256"] in states.sums else "unreleased", *at[1:])
        yield Field(file, at, field.where, field.value)


def _in_rows(file, rows):
    """Yield the fields of a file of JSON lines: of each claim, and of the first line of lineage that has them."""
    seen = set()
    for number, row in enumerate(rows):
        content = bundle.read(row, file).statement if file == CLAIMS else json.loads(row)
        is_bill = file == CLAIMS and "bomFormat" in content["predicate"]  # which is a file, too
        for leaf in _leaves(file, content, (), (number,)):
            field = replace(leaf, at=leaf.at[:2]) if is_bill else leaf
            known = (field.at, number if file == CLAIMS else 0)
            if known not in seen:
                seen.add(known)
                yield field


def _leaves(file, value, at, where):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        name = "[]" if isinstance(value, list) else "*" if at and at[-1] in MERGED_KEYS else str(key)
        yield from _leaves(file, inner, (*at, name), (*where, key))
    if not items and at:
        yield Field(file, at, where, value)


# -- changing them -----------------------------------------------------------------------------------------------------


def change(folder, field, value):
    """Lie about a field: give it another value, derive all else from that if it follows, and sign it all."""
    if field.file == COMPARISONS:  # the card follows from it, where no samples are released
        with lies.told(folder):
            write(folder, field, value)
    if field.file in WRITTEN or field.file.startswith(
        (f"{FIGURES}/", f"{LICENSE_TEXTS}/", f"{EVAL_RESULTS}/")
    ):
        if field.file not in OUTSIDE_SUMS:
            write(folder, field, value)
            lies.write_sums(folder)
            plan = plan_of(folder)
            if field.file not in BOMS.values():
                lies.write_bills(folder, plan)
            lies.sign(folder, plan)
        elif field.file == CLAIMS:
            write(folder, field, value)
            lies.sign_model(folder, "Tiny")
        else:
            write(folder, field, value)
        return
    with lies.told(folder):
        write(folder, field, value)


def plan_of(folder):
    """Return the plan of a release's own recipe and lock."""
    return Release(FolderSubject(folder)).make_plan()


def write(folder, field, value):
    """Write another value in the place of a field."""
    path = folder / field.file
    match path.suffix:
        case ".json":
            content = json.loads(path.read_text())
            if field.at[-1] == "sha256" and field.at[0] == "tensors" and len(field.at) == 3:
                _replace(folder, field.value, value)  # wherever it is cited
                return
            if field.at[0] == "sources":  # models that are merged must agree
                for name in content["sources"]:
                    with suppress(LookupError):
                        _set(content, ("sources", name, *field.where[2:]), value)
            _set(content, field.where, value)
            path.write_text(dump_json(content))
            if field.at[0] == "file":  # measurements cite it
                _replace(folder, field.value, value, f"{EVALUATIONS}/*.json")
            if field.at[-1] == "documents" and field.file.startswith(EVALUATIONS):  # in all measurements
                for other in folder.glob(f"{EVALUATIONS}/*.json"):
                    content = json.loads(other.read_text())
                    _set(content, field.where, value)
                    other.write_text(dump_json(content))
        case ".jsonl":
            rows = path.read_text().splitlines()
            number, *where = field.where
            if field.file == CLAIMS:
                statement = bundle.read(rows[number], CLAIMS).statement
                if field.at[:4] == (
                    "predicate",
                    "runDetails",
                    "builder",
                    "version",
                ):  # it is named in several places
                    pair = f'"{where[-1]}": "{field.value}"'
                    told = json.dumps(statement).replace(pair, f'"{where[-1]}": "{value}"')
                    statement = json.loads(told)
                _set(statement, where, value)
                rows[number] = line(statement, lies.KEY).decode().strip()
            else:
                content = json.loads(rows[number])
                _set(content, where, value)
                rows[number] = json.dumps(content, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
            path.write_text("".join(f"{row}\n" for row in rows))
        case ".yaml" if field.file == RECIPE:
            content = yaml.safe_load(path.read_text())
            _set(content, field.where, value)
            path.write_text(yaml.safe_dump(content, sort_keys=False))
        case ".safetensors":
            _write_weights(folder, path, field)
        case ".gguf":
            _write_gguf(folder, path, field)
        case ".md":
            rows = path.read_text().splitlines(keepends=True)
            rows[field.where[0]] = rows[field.where[0]].rstrip("\n") + "x\n"
            path.write_text("".join(rows))
        case _:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)


def _set(content, where, value):
    *way, last = where
    for key in way:
        content = content[key]
    content[last] = value


def _replace(folder, before, after, files="provenance/*/*.json"):
    """Replace a digest in all records and results."""
    for path in folder.glob(files):
        path.write_text(path.read_text().replace(str(before), str(after)))


def _write_weights(folder, path, field):
    """Change a tensor, or an entry of the header, and all digests that records have of it."""
    from hashlib import sha256

    content = bytearray(path.read_bytes())
    before = sha256(content).hexdigest()
    if field.at == ("header",):
        place = content.index(b'"pt"')
        content[place + 1 : place + 3] = b"np"
    else:
        span = read_header(path)[field.where[0]]
        tensor = sha256(content[span.start : span.end]).hexdigest()
        content[span.start] ^= 0x55
        content[span.start + 1] ^= 0x03
        _replace(folder, tensor, sha256(content[span.start : span.end]).hexdigest())
    path.write_bytes(content)
    _replace(folder, before, sha256(content).hexdigest())


def _write_gguf(folder, path, field):
    """Change a tensor, or a value of the header, and the digests that the record has of it."""
    from hashlib import sha256

    content = path.read_bytes()
    before, gguf = sha256(content).hexdigest(), read_gguf(path)
    if field.where[0] == "metadata":
        value = bytearray(gguf.metadata[field.where[1]])
        value[-1 if value[0] == 8 else 4] ^= 1
        start = min(tensor.start for tensor in gguf.tensors.values())
        changed = {**gguf.metadata, field.where[1]: bytes(value)}
        content = header(changed, gguf.tensors.values()) + content[start:]
    else:
        tensor = gguf.tensors[field.where[1]]
        changed = bytearray(content)
        digest = sha256(content[tensor.start : tensor.start + tensor.size_bytes]).hexdigest()
        changed[tensor.start] ^= 1
        content = bytes(changed)
        _replace(folder, digest, sha256(content[tensor.start : tensor.start + tensor.size_bytes]).hexdigest())
    path.write_bytes(content)
    _replace(folder, before, sha256(content).hexdigest())
