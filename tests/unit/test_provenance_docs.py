"""The pages on provenance: their commands print what they say, of a release that is built here."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_local_hub import LocalHub, client

from herdbook.layout import CLAIMS
from herdbook.signing.keys import generate, load_private
from support import forkserver, ro_crate

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def hub():
    with LocalHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def release(tmp_path_factory, hub):
    folder = tmp_path_factory.mktemp("docs")
    generate(folder / "key")
    with pytest.MonkeyPatch.context() as patch:
        client.use(hub, folder / "home", patch)
        return ro_crate.release(folder, hub, load_private(folder / "key"))


def sessions(page):
    """Yield the commands of a page, each with what it prints; lines that begin with ``>`` go on."""
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        command, printed = [], []
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    yield "\n".join(command), "\n".join(printed)
                command, printed = [line[2:]], []
            elif line.startswith("> "):
                command.append(line[2:])
            else:
                printed.append(line)
        yield "\n".join(command), "\n".join(printed)


def without_keys(text):
    """Replace the digits of keys, which every change of the code that they count changes."""
    return re.sub(r"(?<=-)[0-9a-f]{12}(?![0-9a-f])", "0" * 12, text)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_commands_print_what_the_page_says(release):
    before = ""  # functions that earlier commands defined
    ran = 0
    programs = [forkserver.PROGRAMS, Path(sys.executable).parent, os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(map(str, programs)), "LC_ALL": "C"}
    for command, printed in sessions((DOCS / "provenance.md").read_text(encoding="utf-8")):
        done = subprocess.run(
            ["bash", "-c", f"{before}\n{command}"],
            cwd=release,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert without_keys(done.stdout.rstrip("\n")) == without_keys(printed), command
        if "() {" in command:
            before += f"{command}\n"
        ran += 1
    assert ran > 10


def test_the_checker_of_the_lineage_reads_the_sources_from_the_hub_by_ranges(release, hub):
    checker = [sys.executable, DOCS / "spec" / "check_lineage.py", release, "--hub", hub.url]
    done = subprocess.run(checker, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok    20 equal to a source, 9 computed, 0 not compared\n")


def provenance(release):
    """Return the first claim, out of its envelope."""
    line = json.loads((release / CLAIMS).read_text(encoding="utf-8").splitlines()[0])
    return json.loads(base64.b64decode(line["dsseEnvelope"]["payload"]))


def paths(value, where=()):
    """Return where something stands in a JSON value; names of models, files and code, and places in lists, are alike."""
    if isinstance(value, list):
        return {found for item in value for found in paths(item, (*where, "[]"))}
    if isinstance(value, dict):
        named = where[-1:] in {("keys",), ("operations",), ("modules",), ("packages",), ("files",)}
        return {
            found for key, item in value.items() for found in paths(item, (*where, "*" if named else key))
        }
    return {where}


def test_the_build_type_s_example_is_a_part_of_what_is_written(release):
    page = (DOCS / "buildtype.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    example, written = json.loads(block), provenance(release)
    assert paths(example) == paths(written)
    assert example["predicateType"] == written["predicateType"]
    told, made = (one["predicate"]["buildDefinition"] for one in (example, written))
    for key in ("buildType", "externalParameters"):
        assert told[key] == made[key]
    assert [one for one in told["resolvedDependencies"] if one not in made["resolvedDependencies"]] == []
    parameters, written_parameters = told["internalParameters"], made["internalParameters"]
    assert parameters["keys"].keys() <= written_parameters["keys"].keys()
    for name, operation in parameters["operations"].items():
        for kind, named in operation.items():
            assert named.keys() <= written_parameters["operations"][name][kind].keys()
    assert {one["name"] for one in example["subject"]} <= {one["name"] for one in written["subject"]}
    details, ran = (one["predicate"]["runDetails"] for one in (example, written))
    assert details["builder"]["id"] == ran["builder"]["id"]
    assert [one["name"] for one in details["byproducts"]] == [one["name"] for one in ran["byproducts"]]


def test_the_build_type_s_page_explains_every_field_and_no_other(release):
    page = (DOCS / "buildtype.md").read_text(encoding="utf-8")
    written = provenance(release)["predicate"]
    assert page.startswith(f"# The build type `{written['buildDefinition']['buildType']}`")
    sections = {title: body for title, _, body in (part.partition("\n") for part in page.split("\n## "))}
    for name in ("externalParameters", "internalParameters"):
        explained = re.findall(r"^\| `(\w+)`", sections[name], re.MULTILINE)
        assert set(explained) == written["buildDefinition"][name].keys()
    explained = re.findall(r"^\| `(\w+)`", sections["resolvedDependencies"], re.MULTILINE)
    assert set(explained) == {
        key for entry in written["buildDefinition"]["resolvedDependencies"] for key in entry
    }
    explained = re.findall(r"^\| `([\w.]+)`", sections["runDetails"], re.MULTILINE)
    assert {name.partition(".")[0] for name in explained} == written["runDetails"].keys()
    assert written["runDetails"]["builder"]["id"] in page
