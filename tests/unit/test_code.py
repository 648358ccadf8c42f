"""Code in keys: what of a module counts, which modules and packages a step imports, and what is declared neutral."""

import ast
import importlib
import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from herdbook.errors import UnverifiedError, VerificationError
from herdbook.plan import code, parsed
from herdbook.plan.code import (
    NEUTRAL_MODULES,
    NEUTRAL_PACKAGES,
    Code,
    RecordedCode,
    as_recorded,
)
from herdbook.plan.merge import MERGE_CODE
from herdbook.plan.parsed import DISTRIBUTIONS, package_version
from herdbook.plan.quantize import QUANTIZE_CODE

SOURCE = Path(parsed.__file__).parents[1]
PLAIN = '''\
"""A module."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Thing:
    """A thing."""

    size = 4


def formula(x: float, of: Path, *more: int) -> float:
    """Return a number."""
    values = [0.1 * x, 1e-5, "text", b"bytes", None, ...]
    said = f"{x!r:>{x + 1}} of {of}" "joined"
    match values:
        case [first, *_] if first and (second := said):
            return first[1:2] ** 2 if second else -first
    return sum(value for value in more)
'''
# The same to Python.
SPELLED = """\
# A comment.
from __future__ import annotations
from typing import TYPE_CHECKING



if TYPE_CHECKING:
    from pathlib import Path, PurePath
class Thing:
    size = 0x4
def formula(
    x: float,
    of: Path,  # a place
    *more: int,
) -> float:
    \'\'\'Return
    a number, in other words.\'\'\'
    values = [(0.1 * x), 0.00001, \'text\', b\'bytes\', None, ...,]
    said = (
        f\'{x!r:>{x + 1}} of {of}joined\'
    )
    match values:
        case [first, *_] if first and (second := said):
            return (first[1:2] ** 2) if (second) else (-first)
    return sum((value for value in more))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in place of ours; return a function that writes its modules, by their names."""
    monkeypatch.setattr(parsed, "ROOT", tmp_path)

    def write(**sources):
        for name, text in sources.items():
            path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in path.parent.relative_to(tmp_path).parents:
                (tmp_path / folder / "__init__.py").touch()
            (path.parent / "__init__.py").touch()
            path.write_text(text, encoding="utf-8")
        forget()

    yield write
    monkeypatch.undo()
    forget()


def forget():
    code._closure.cache_clear()
    for name in ("_parsed", "imports", "_is_module"):
        getattr(parsed, name).cache_clear()


def digest_of(package, text):
    package(m=text)
    return parsed.module_digest("herdbook.m")


def test_how_a_module_is_written_does_not_count(package):
    assert digest_of(package, SPELLED) == digest_of(package, PLAIN)
    assert digest_of(package, PLAIN.replace("\n", "\r\n")) == digest_of(package, PLAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.1 * x", "0.2 * x"),
        ("0.1 * x", "x * 0.1"),
        ("size = 4", "size = 4.0"),
        ("size = 4", "size = True"),
        ('"text"', 'b"text"'),
        ('"text"', '"text "'),
        ("first[1:2]", "first[:2]"),
        ("[0.1 * x, 1e-5", "[1e-5, 0.1 * x"),
        ("{x!r:>{x + 1}}", "{x!s:>{x + 1}}"),
        ("{x!r:>{x + 1}}", "{x!r:<{x + 1}}"),
        ("-first", "+first"),
        ("*more: int", "more: int"),
        ("return sum(value for value in more)", "return sum([value for value in more])"),
        ("def formula(", "@staticmethod\ndef formula("),
        ("case [first, *_] if first", "case [first] if first"),
        ("    size = 4\n", "    size: int = 4\n"),
    ],
)
def test_what_a_module_says_counts(package, old, new):
    assert old in PLAIN
    assert digest_of(package, PLAIN.replace(old, new)) != digest_of(package, PLAIN)


def test_the_form_is_the_same_in_all_versions_of_python(package, tmp_path):
    """The digest was noted with 3.11; CI runs this with each version, and here those that are installed are asked, too."""
    noted = "551a6c884f008b096b59bca929d5b290975f7679250ca9604c981a0c96749411"
    assert digest_of(package, PLAIN) == noted
    script = (
        "import importlib.util, pathlib, sys, types\n"
        "sys.modules['herdbook.settings'] = types.SimpleNamespace(PINS=None)\n"
        f"spec = importlib.util.spec_from_file_location('code_in_keys', {str(SOURCE / 'plan/parsed.py')!r})\n"
        "sys.modules['code_in_keys'] = parsed = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(parsed)\n"
        f"parsed.ROOT = pathlib.Path({str(tmp_path)!r})\n"
        "print(parsed.module_digest('herdbook.m'))\n"
    )
    for version in ("3.11", "3.12", "3.13", "3.14"):
        python = shutil.which(f"python{version}")
        works = (
            python and subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0
        )
        if works:
            done = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, check=True)
            assert done.stdout.strip() == noted, version


def test_what_is_kept_of_a_module_is_believed_for_its_source_alone(package, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = digest_of(package, PLAIN)
    (kept,) = (tmp_path / "__pycache__").glob("m.*.json")
    with monkeypatch.context() as patch:
        patch.setattr(parsed, "_tree", lambda module: pytest.fail(f"{module} is parsed again"))
        forget()
        assert parsed.module_digest("herdbook.m") == first
    second = digest_of(package, PLAIN.replace("0.1 * x", "0.2 * x"))
    assert second != first
    for damage in (b"", b"[]", b"{}", b"\xff"):
        kept.write_bytes(damage)
        forget()
        assert parsed.module_digest("herdbook.m") == second


def test_nothing_is_kept_where_python_keeps_no_bytecode(package, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    digest_of(package, PLAIN)
    assert not (tmp_path / "__pycache__").exists()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "__pycache__").touch()  # no folder can be made here
    assert digest_of(package, SPELLED) == digest_of(package, PLAIN)


def test_what_is_imported_counts_wherever_it_is_imported(package):
    package(
        step="import json\nfrom herdbook import a\n\n\ndef f():\n    from herdbook.b import thing\n",
        a="import torch.nn.functional as F\nimport numpy as np\n",
        b="try:\n    from yaml import safe_load\nexcept ImportError:\n    import herdbook.inner.c\nelse:\n    thing = 1\n",
        inner__c="class C:\n    def f(self):\n        with open('x') as x:\n            import gguf\n",
        d="",
    )
    found = Code("step", ("herdbook.step",))
    assert found.modules == ("herdbook.a", "herdbook.b", "herdbook.inner.c", "herdbook.step")
    assert found.distributions == ("PyYAML", "gguf", "numpy", "torch")


def test_what_only_types_need_does_not_count(package):
    package(
        step="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n    from herdbook.a import A\n",
        a="",
    )
    found = Code("step", ("herdbook.step",))
    assert (found.modules, found.distributions) == (("herdbook.step",), ())


def test_packages_around_a_module_count_if_they_hold_something(package, tmp_path):
    package(step="import herdbook.inner.deep.c\n", inner__deep__c="c = 1\n")
    (tmp_path / "inner/__init__.py").write_text('"""Words alone."""\n', encoding="utf-8")
    (tmp_path / "inner/deep/__init__.py").write_text("x = 1\n", encoding="utf-8")
    forget()
    assert Code("step", ("herdbook.step",)).modules == (
        "herdbook.inner.deep",
        "herdbook.inner.deep.c",
        "herdbook.step",
    )


def test_neutral_modules_and_branches_that_are_not_taken_are_not_followed(package):
    package(
        step="import herdbook.errors, herdbook.branch, herdbook.plan.laser, torch, tqdm\n",
        errors="import herdbook.behind\n",
        branch="import herdbook.behind\n",
        behind="x = 1\n",
        other="import herdbook.errors\n",
        plan__laser="",
    )
    assert Code("step", ("herdbook.step",), without=("herdbook.branch", "torch")).modules == (
        "herdbook.step",
    )
    assert Code("step", ("herdbook.step",), without=("herdbook.branch", "torch")).distributions == ()
    assert Code("step", ("herdbook.step",)).modules == ("herdbook.behind", "herdbook.branch", "herdbook.step")
    assert Code("step", ("herdbook.other",)).modules == ("herdbook.other",)
    assert "herdbook.errors" in Code("step", ("herdbook.step", "herdbook.errors")).modules


def test_an_undeclared_package_is_an_error(package):
    package(step="import never_heard_of\n")
    with pytest.raises(KeyError, match="never_heard_of"):
        Code("step", ("herdbook.step",)).describe()


def test_unknown_module_is_an_error():
    with pytest.raises(ModuleNotFoundError):
        Code("step", ("herdbook.no_such_module",)).describe()


def test_local_version_labels_do_not_count(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.13.0+cpu")
    parsed._installed_version.cache_clear()
    assert parsed.package_version("torch") == "2.13.0"
    parsed._installed_version.cache_clear()


def test_code_is_digests_and_versions(package):
    package(step="import tqdm, yaml\n")
    found = Code("step", ("herdbook.step",), packages=("no-such-package",)).describe()
    assert found.json == {
        "herdbook.step": parsed.module_digest("herdbook.step"),
        "PyYAML": importlib.metadata.version("PyYAML"),
        "no-such-package": "absent",
    }
    said = RecordedCode(
        "0.0.1", {"step": {"modules": {"herdbook.gone": "?", **found.modules}, "packages": {"PyYAML": "0.1"}}}
    )
    with as_recorded(said):
        recorded = found.of.describe()
    assert recorded.json == {"herdbook.gone": "?", **found.modules, "PyYAML": "0.1"}
    assert recorded.changed_modules == ["herdbook.gone"]
    assert recorded.changed_packages == ["PyYAML", "no-such-package"]
    assert (found.changed_modules, found.changed_packages) == ([], [])


def every_module():
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(("herdbook", *parts)).removesuffix(".__init__")


def test_every_package_that_is_imported_is_declared_with_its_distribution():
    """As far as it is installed here, the distribution is that which the installation names."""
    wanted = set()
    for module in every_module():
        for node in ast.walk(parsed._tree(module)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            wanted |= {name.partition(".")[0] for name in names}
    wanted -= sys.stdlib_module_names
    assert wanted >= set(DISTRIBUTIONS), "declared, and imported nowhere"
    assert wanted == set(DISTRIBUTIONS)
    installed = importlib.metadata.packages_distributions()
    for name in wanted & installed.keys():
        assert parsed._plain(DISTRIBUTIONS[name]) in map(parsed._plain, installed[name]), name


def test_what_is_declared_neutral_exists_and_says_why():
    modules = set(every_module())
    assert all(NEUTRAL_MODULES.values())
    assert all(NEUTRAL_PACKAGES.values())
    assert {name.removesuffix(".*") for name in NEUTRAL_MODULES} <= modules
    assert set(NEUTRAL_PACKAGES) <= set(DISTRIBUTIONS.values())


def test_a_branch_that_is_left_out_is_one_that_the_entries_import():
    """Else a module that was renamed would count again, unnoticed."""
    planning = [
        importlib.import_module(f"herdbook.plan.{path.stem}") for path in (SOURCE / "plan").glob("[a-z]*.py")
    ]
    codes = {name: one for module in planning for name, one in vars(module).items() if isinstance(one, Code)}
    assert len(codes) >= 20
    for name, one in codes.items():
        whole = Code("whole", one.entries, packages=one.packages)
        without = set(one.without)
        assert without <= {*whole.modules, *whole.distributions}, name
        assert without.isdisjoint(one.modules), name


def test_which_tensors_are_quantized_counts_in_gguf_files():
    """Types within a budget depend on it, and are in no parameter; those of a method are in the parameters."""
    assert "herdbook.quantization.tensor" in QUANTIZE_CODE.modules
    assert "herdbook.quantization.mixture" not in QUANTIZE_CODE.modules


def test_no_two_operations_have_one_name():
    """A release records code by it."""
    ours = {
        id(one): one
        for name in every_module()
        if name.startswith(("herdbook.plan", "herdbook.steps.laser"))
        for one in vars(importlib.import_module(name)).values()
        if isinstance(one, Code)
    }
    names = [one.name for one in ours.values()]
    assert len(names) >= 25
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("version", ["0.0.1", package_version("herdbook")])
def test_what_a_record_lacks_is_a_failure_only_of_this_version(version):
    """Of another one it is unverified: neither proven nor refuted."""
    described = MERGE_CODE.describe()
    other = {
        "modules": {**described.modules, "herdbook.steps.merge.step": "0" * 64},
        "packages": described.packages,
    }
    lacking, differing = RecordedCode(version, {}), RecordedCode(version, {MERGE_CODE.name: other})
    with as_recorded(lacking), pytest.raises(VerificationError, match="`merge`") as missing:
        MERGE_CODE.describe()
    with as_recorded(differing), pytest.raises(VerificationError, match="`merge`.*merge.step") as changed:
        differing.require_installed(MERGE_CODE.describe())
    for raised in (missing, changed):
        assert isinstance(raised.value, UnverifiedError) is (version == "0.0.1")
        assert ("pip install herdbook==0.0.1" in str(raised.value)) is (version == "0.0.1")
    same = RecordedCode(
        version, {MERGE_CODE.name: {"modules": described.modules, "packages": {"torch": "0.1"}}}
    )
    with as_recorded(same):
        same.require_installed(MERGE_CODE.describe())  # versions of packages do not forbid it
