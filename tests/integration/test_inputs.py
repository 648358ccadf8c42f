"""Inputs that must not become a release: each is refused in time, by a message that names what is wrong.

The table is that of docs/inputs.md.
"""

import importlib
import pkgutil
from pathlib import Path

import pytest

from herdbook.cli.main import main
from herdbook.errors import LockError, RecipeError, SourceError
from support import inputs

DOCS = Path(__file__).parents[2] / "docs/inputs.md"
KINDS = [
    importlib.import_module(f"support.inputs.{module.name}")
    for module in pkgutil.iter_modules(inputs.__path__)
]
CASES = [case for kind in KINDS for case in kind.CASES]
REFUSALS = {error.exit_status for error in (LockError, RecipeError, SourceError)}


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.wrong, marks=[pytest.mark.slow] * case.slow) for case in CASES]
)
def test_an_input_that_is_not_understood_is_refused_by_name(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # whose config/config.yaml is read
    recipe = case.make(tmp_path)
    assert main(["lock", "--recipe", str(recipe)]) in REFUSALS
    message = capsys.readouterr().err
    assert case.message in message
    assert "Traceback" not in message
    assert not recipe.with_suffix(".lock.json").exists()


def table():
    """Return the documentation's tables of what is refused."""
    lines = []
    for kind in KINDS:
        heading = f"## {kind.__doc__.splitlines()[0].rstrip('.')}"
        lines += ["", heading, "", "| input | message |", "| --- | --- |"]
        lines += [f"| {case.wrong} | `{case.message}` ... |" for case in kind.CASES]
    return "\n".join(lines).strip()


def test_the_documentation_lists_what_is_refused():
    assert table() in DOCS.read_text(encoding="utf-8")
