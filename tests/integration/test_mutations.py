"""Damaged inputs: each is refused with a message and the documented exit status, or accepted; none ends in a traceback.

The mutations come from a fixed seed. Those that once ended in a traceback are kept in ``tests/support/kept.py``.
"""

import os
import shutil
from random import Random

import pytest

from herdbook import errors
from herdbook.cli.main import main
from support import mutations, tiny

SEED = 20261129
BUDGET = int(os.environ.get("HERDBOOK_MUTATIONS", "40"))  # of each kind
REFUSALS = {
    error.exit_status
    for error in (errors.RecipeError, errors.LockError, errors.SourceError, errors.CheckpointError)
}
VERIFIED = {0, 8, 9}


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


def attempts(path, mutate=mutations.mutated, budget=BUDGET):
    """Yield after writing each mutation of a file in its place; restore it at the end."""
    content = path.read_bytes()
    for number in range(budget):
        path.write_bytes(mutate(content, Random(f"{SEED} {path.name} {number}")))
        yield number
    path.write_bytes(content)


def told(capsys, arguments, accepted):
    """Return what is wrong with the end of a command; empty if nothing is."""
    try:
        status = main(arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what is looked for
        import traceback

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


FILES = [
    "base/config.json", "base/tokenizer.json", "base/tokenizer_config.json", "base/model.safetensors.index.json",
    "adapter/adapter_config.json", "tasks/held_out.yaml", "recipe.yaml",
]  # fmt: skip
HEADERS = ["calf/model.safetensors", "adapter/adapter_model.safetensors"]


@pytest.mark.usefixtures("transformers_here")
@pytest.mark.parametrize("name", [*FILES, *HEADERS])
def test_lock_of_a_damaged_input(name, copy, capsys):
    mutate = mutations.mutated_header if name in HEADERS else mutations.mutated
    wrong = {}
    for number in attempts(copy / name, mutate):
        problem = told(capsys, ["lock", "--recipe", str(copy / "recipe.yaml")], {0, *REFUSALS})
        if problem:
            wrong.setdefault(problem, []).append(number)
    assert not wrong, "\n".join(f"{numbers}: {problem}" for problem, numbers in wrong.items())


def test_plan_of_a_damaged_lock(copy, capsys):
    wrong = {}
    for number in attempts(copy / "recipe.lock.json", budget=3 * BUDGET):
        problem = told(capsys, ["plan", "--elsewhere", "--recipe", str(copy / "recipe.yaml")], {0, *REFUSALS})
        if problem:
            wrong.setdefault(problem, []).append(number)
    assert not wrong, "\n".join(f"{numbers}: {problem}" for problem, numbers in wrong.items())
