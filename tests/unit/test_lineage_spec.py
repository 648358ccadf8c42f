"""The specification of tensor lineage: its checker, its schema and its vectors agree with each other and with Herdbook."""

import base64
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from herdbook.errors import VerificationError
from herdbook.provenance.lineage import parse
from support import lineage_vectors

SPEC = Path(__file__).parents[2] / "docs" / "spec"
VECTORS = json.loads((SPEC / "vectors.json").read_text(encoding="utf-8"))
SCHEMA = json.loads((SPEC / "lineage.schema.json").read_text(encoding="utf-8"))
# What the form alone shows; the other vectors are wrong in their bytes.
WRONG_FORM = {"both-origins"}


def program(name):
    spec = importlib.util.spec_from_file_location(name, SPEC / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECKER = program("check_lineage")


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(base64.b64decode(content))


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["check_lineage.py", *map(str, arguments)])
    return CHECKER.main()


def text(vector):
    return base64.b64decode(vector["files"]["provenance/lineage.jsonl"]).decode()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_checker_decides_as_the_vectors_say(vector, tmp_path, monkeypatch, capsys):
    write(tmp_path / "release", vector["files"])
    sources = []
    for number, (uri, files) in enumerate(vector["sources"].items()):
        write(tmp_path / str(number), files)
        sources += ["--source", f"{uri}={tmp_path / str(number)}"]
    assert run(monkeypatch, tmp_path / "release", *sources) == (0 if vector["accept"] else 1)
    assert capsys.readouterr().out.startswith("ok" if vector["accept"] else "FAIL")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_schema_and_herdbook_accept_the_form_of_the_same_lines(vector):
    from jsonschema import Draft202012Validator

    lines = Draft202012Validator(SCHEMA)
    right = all(lines.is_valid(json.loads(line)) for line in text(vector).splitlines())
    assert right == (vector["name"] not in WRONG_FORM)
    if right:
        assert len(parse(text(vector))) == len(text(vector).splitlines())
    else:
        with pytest.raises(VerificationError):
            parse(text(vector))


def test_a_source_that_is_not_given_is_reported_as_not_compared(tmp_path, monkeypatch, capsys):
    write(tmp_path, VECTORS[0]["files"])
    assert run(monkeypatch, tmp_path) == 0
    output = capsys.readouterr().out
    assert output.count("skip") == 2
    assert "0 equal to a source, 2 computed, 4 not compared" in output


def test_the_vectors_are_those_of_the_tests_program():
    assert list(lineage_vectors.vectors()) == VECTORS


def test_the_checker_is_short_and_imports_only_the_standard_library():
    source = (SPEC / "check_lineage.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 200
    imported = {
        line.split()[1].partition(".")[0]
        for line in source.splitlines()
        if line.startswith(("import", "from"))
    }
    assert imported <= sys.stdlib_module_names
