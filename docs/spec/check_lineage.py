"""Check the tensor lineage of a model's folder, as docs/spec/lineage.md defines it.

It shares no code with Herdbook and needs nothing but Python 3.9. Sources are read by ranges, from the Hub at the commit
that the lineage names, or from folders. Exit status: 0 nothing contradicts the lineage, 1 something does, 2 wrong use.
"""

import argparse
import hashlib
import json
import math
import re
import sys
import urllib.request
from pathlib import Path

ITEM_BYTES = {"BOOL": 1, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
ITEM_BYTES |= {f"{kind}{8 * size}": size for kind in "FIU" for size in (1, 2, 4, 8)}
HUB_URI = re.compile(r"pkg:huggingface/([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
MAX_HEADER = 100_000_000


class ContradictionError(ValueError):
    """Something contradicts the lineage."""


class UnreadError(Exception):
    """A source cannot be read."""


def open_range(place, start, size):
    """Return a readable object over bytes of a file: a path, or an address of the Hub."""
    if isinstance(place, Path):
        file = place.open("rb")
        file.seek(start)
        return file
    request = urllib.request.Request(place, headers={"Range": f"bytes={start}-{start + size - 1}"})
    reply = urllib.request.urlopen(request, timeout=60)
    if reply.status != 206:
        raise UnreadError(f"{place}: the server sends no ranges")
    return reply


def digest(place, start, size):
    """Return the SHA-256 of bytes of a file."""
    sha256 = hashlib.sha256()
    with open_range(place, start, size) as file:
        while size:
            piece = file.read(min(1 << 22, size))
            if not piece:
                raise ContradictionError(f"{place}: ends {size} bytes too early")
            sha256.update(piece)
            size -= len(piece)
    return sha256.hexdigest()


def header(place):
    """Return dtype, shape, begin and end of each tensor of a safetensors file, in bytes of the file."""
    with open_range(place, 0, 8) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise ContradictionError(f"{place}: is not a safetensors file")
    with open_range(place, 8, length) as file:
        tensors = json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    return {
        name: (item["dtype"], item["shape"], *(8 + length + offset for offset in item["data_offsets"]))
        for name, item in tensors.items()
    }


def inside(folder, name):
    """Return the path of a file inside a folder."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
        raise ContradictionError(f"{name!r} is not a name inside the folder")
    return folder / name


class Sources:
    """The sources that can be read: those of the Hub, and those that are given as folders."""

    def __init__(self, folders, hub):
        self.folders, self.hub, self.headers = folders, hub, {}

    def equal(self, origin, sha256, dtype=None):
        """Raise ContradictionError if an upstream tensor, or rows of it, is not what the lineage states; UnreadError if it cannot be read."""
        uri, file = origin["uri"], origin["file"]
        found = HUB_URI.fullmatch(uri)
        if uri in self.folders:
            place = inside(self.folders[uri], file)
        elif found and self.hub:
            inside(Path(), file)
            place = f"{self.hub}/{found[1]}/resolve/{found[2]}/{urllib.request.quote(file)}"
        else:
            raise UnreadError(f"{uri}: was not given; use --source '{uri}=FOLDER', or --hub for the Hub")
        try:
            if place not in self.headers:
                self.headers[place] = header(place)
            if origin["tensor"] not in self.headers[place]:
                raise ContradictionError(f"{uri}: {file} has no tensor {origin['tensor']}")
            own, shape, begin, end = self.headers[place][origin["tensor"]]
            if "rows" in origin:
                first, stop = origin["rows"]
                if not 0 <= first < stop <= shape[0]:
                    raise ContradictionError(f"{uri}: {origin['tensor']} has no rows {first} to {stop}")
                width = (end - begin) // shape[0]
                begin, end = begin + first * width, begin + stop * width
            if dtype not in (None, own) or digest(place, begin, end - begin) != sha256:
                raise ContradictionError(f"{uri}: {origin['tensor']} differs from what the lineage states")
        except OSError as error:
            raise UnreadError(f"{uri}: {file}: {error}") from error


def origins(node, where):
    """Yield all statements of equality below a node of the lineage, with the digest that each states."""
    if not re.fullmatch("[0-9a-f]{64}", node["sha256"]) or ("equals" in node) == ("made" in node):
        raise ContradictionError(f"{where}: needs a digest, and either `equals` or `made`")
    if "equals" in node:
        yield from ((origin, node["sha256"]) for origin in [node["equals"], *node.get("also", [])])
    else:
        for parent in node["made"]["of"]:
            yield from origins(parent, where)


def check(folder, sources):
    """Check a folder; return what was counted: slices by kind, and sources that could not be read."""
    text = (folder / "provenance/lineage.jsonl").read_bytes().decode()
    lines = [json.loads(line) for line in text.split("\n") if line]
    named, counts, unread = {}, {"equal to a source": 0, "computed": 0, "not compared": 0}, {}
    for number, line in enumerate(lines, 1):
        named.setdefault((line["file"], line["tensor"]), []).append((number, line))
    weights = sorted(folder.glob("*.safetensors"))
    tensors = {(path.name, name): place for path in weights for name, place in header(path).items()}
    if tensors.keys() != named.keys():
        raise ContradictionError(
            f"lineage without tensor, or without lineage: {tensors.keys() ^ named.keys()}"
        )
    for (file, name), (dtype, _, begin, end) in tensors.items():
        position = begin
        for number, line in named[file, name]:  # in the order of the file
            where = f"line {number}: {file}: {name}"
            size = math.prod(line["shape"]) * ITEM_BYTES[dtype]
            if (line["dtype"], line["begin"], line["end"]) != (dtype, position, position + size):
                raise ContradictionError(f"{where}: does not follow the line before it, or has another dtype")
            position += size
            if digest(inside(folder, file), line["begin"], size) != line["sha256"]:
                raise ContradictionError(f"{where}: the bytes have another digest")
            kind = "equal to a source" if "equals" in line else "computed"
            for origin, sha256 in origins(line, where):
                try:
                    sources.equal(origin, sha256, dtype if "equals" in line else None)
                except UnreadError as error:
                    unread[origin["uri"]] = str(error)
                    kind = "not compared" if "equals" in line else kind
                except ContradictionError as error:
                    raise ContradictionError(f"{where}: {error}") from error
            counts[kind] += 1
        if position != end:
            raise ContradictionError(f"{file}: {name}: the lineage ends {end - position} bytes too early")
    return counts, unread


def show(word, text):
    """Print a line; what a folder contains cannot add lines or control the terminal."""
    print(f"{word:6}{text[:2000]}".encode("unicode_escape").decode())


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="the model's folder, with provenance/lineage.jsonl")
    parser.add_argument(
        "--source", action="append", default=[], metavar="URI=FOLDER", help="where a source lies"
    )
    parser.add_argument(
        "--hub", nargs="?", const="https://huggingface.co", metavar="URL", help="read sources of the Hub"
    )
    given = parser.parse_args()
    folders = {}
    for each in given.source:
        uri, equals, place = each.rpartition("=")
        if not equals or not Path(place).is_dir():
            parser.error(f"--source {each}: is not URI=FOLDER, or no such folder exists")
        folders[uri] = Path(place)
    try:
        counts, unread = check(given.folder, Sources(folders, given.hub))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        known = isinstance(error, ContradictionError)
        show("FAIL", str(error) if known else f"the folder or its lineage is damaged: {error!r}")
        return 1
    for text in unread.values():
        show("skip", text)
    show("ok", ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
