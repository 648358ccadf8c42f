"""The house: dependencies point one way, the controller loads no torch, what is written twice is equal."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from herdbook import recipe as recipes
from herdbook import yamlio
from herdbook.settings import json_schema

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "herdbook"
# From the bottom up. A module may import from its own layer's package and from layers below.
LAYERS = (
    ("apart", "changes", "errors", "flock", "graph", "humanize", "limits", "visible"),
    ("faults",),
    (
        "architectures",
        "escape",
        "files",
        "forkserver",
        "jsonio",
        "key",
        "layout",
        "licensing",
        "plain",
        "progress",
        "quantization",
        "settings",
        "traffic",
        "yamlio",
    ),
    ("figures", "journal", "recipe", "sources", "tools", "weights"),
    ("hub", "importing"),
    ("lock",),
    ("plan",),
    ("comparison", "made"),
    ("cache", "inference", "needs", "provenance", "tuning", "unreferenced"),
    ("release", "signing"),
    ("steps",),
    ("publish", "verify"),
    ("audit", "explain", "export", "extract", "refresh", "view"),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules():
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def layer(parts):
    """Return the layer of a module: its package at the top. `python -m herdbook` is the command line."""
    return "cli" if parts[0] == "__main__" else parts[0]


def imported(path):
    """Return the names of layers below ``herdbook`` that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "herdbook":
            found |= {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("herdbook."):
            found.add(layer(node.module.split(".")[1:]))
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("herdbook.")}
    return found


def test_dependencies_point_one_way():
    upward = []
    for path in modules():
        name = path.relative_to(SOURCE)
        own = layer(name.with_suffix("").parts)
        upward += [f"{name} imports {one}" for one in imported(path) - {own} if LEVEL[one] >= LEVEL[own]]
    assert upward == []


def test_contributing_lists_the_layers():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Architecture")[2]
    rows = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    assert [tuple(re.findall("`([a-z_]+)`", row)) for row in reversed(rows)] == list(LAYERS)


def test_no_module_is_a_drawer():
    assert not [path for path in modules() if path.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_the_controller_loads_no_torch():
    rules = (path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    script = "\n".join(
        [
            *(line for text in rules for line in text.splitlines() if line.startswith("from herdbook")),
            "import sys, herdbook.cli.main, pathlib",
            "import herdbook.plan",
            "herdbook.plan.load(pathlib.Path('config/miniature.yaml'))",
            "print([name for name in ('torch', 'transformers', 'lm_eval', 'datasets', 'gguf') if name in sys.modules])",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_schema_for_editors_is_that_of_the_recipe():
    from jsonschema import Draft202012Validator

    path = ROOT / "config/recipe.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == recipes.json_schema(), (
        "run: herdbook schema > config/recipe.schema.json"
    )
    Draft202012Validator.check_schema(recipes.json_schema())


def test_schema_of_settings_is_that_of_the_code():
    path = ROOT / "config/config.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == json_schema(), (
        "run: herdbook schema --settings > config/config.schema.json"
    )


def test_schema_accepts_the_miniature_and_refuses_a_misspelt_key():
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(recipes.json_schema())
    text = (ROOT / "config/miniature.yaml").read_text(encoding="utf-8")
    data = yamlio.load(text)
    assert not list(validator.iter_errors(data))
    data["release"]["licence"] = data["release"].pop("license")
    assert list(validator.iter_errors(data))


def pins():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.partition("==")[0]): line for line in lines if line and line[0] != "#"}


def test_lock_answers_what_the_package_asks():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]:
        requirement = Requirement(line)
        if requirement.name != "herdbook":
            version = pins()[canonicalize_name(requirement.name)].partition("==")[2]
            assert requirement.specifier.contains(version), line


def test_the_readme_s_map_is_the_house():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = readme.partition("## The map")[2].partition("\n## ")[0].splitlines()
    named = {
        word.strip("`/").split("/")[0]
        for row in rows
        if row.startswith("| `")
        for word in row.split("|")[1].split(",")
        for word in [word.strip()]
    }
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    folders = {name.split("/")[0] for name in tracked if "/" in name and not name.startswith(".")}
    assert folders <= named
    assert all((ROOT / name).exists() for name in named)


def test_the_committed_lock_tells_no_path_of_a_machine():
    def texts(value):
        if isinstance(value, dict):
            return [text for item in value.values() for text in texts(item)]
        if isinstance(value, list):
            return [text for item in value for text in texts(item)]
        return [value] if isinstance(value, str) else []

    found = texts(json.loads((ROOT / "config/miniature.lock.json").read_text(encoding="utf-8")))
    assert [text for text in found if text.startswith(("/", "~")) or str(Path.home()) in text] == []
