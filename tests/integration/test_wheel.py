"""The wheel: what it contains works in an environment with the dependencies that it names, and no others."""

import email
import importlib.metadata
import json
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.project import REPOSITORY

RELEASE = REPOSITORY / "results/Miniature-4x135M-laser/release"
CONFIGURATION = {"merge_method": "linear", "models": [{"model": "a/x", "parameters": {"weight": 1}}]}
pytestmark = [pytest.mark.slow, pytest.mark.own_process]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", folder, REPOSITORY], check=True)
    (path,) = folder.glob("*.whl")
    return path


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def needed(lines):
    """Return the installed distributions that requirements lead to, without extras of the first."""
    found, waiting = {}, [Requirement(line) for line in lines]
    while waiting:
        wanted = waiting.pop()
        if wanted.marker and not any(
            wanted.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)
        ):
            continue
        name = canonicalize_name(wanted.name)
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            waiting += [Requirement(line) for line in found[name].requires or []]
    return found


@pytest.fixture(scope="module")
def core(wheel, tmp_path_factory):
    """An environment with the wheel and what it needs without extras, linked from this one: nothing is downloaded."""
    root = tmp_path_factory.mktemp("core")
    venv.create(root, symlinks=True)
    (site,) = root.glob("lib/python*/site-packages")
    for distribution in needed(metadata(wheel).get_all("Requires-Dist")).values():
        for top in {path.parts[0] for path in distribution.files} - {".."}:
            source, link = Path(distribution.locate_file(top)), site / top
            if source.exists() and not link.exists():
                link.symlink_to(source)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    subprocess.run(
        [root / "bin/python", "-m", "compileall", "-q", site / "herdbook/workflow"], check=True
    )  # as pip does
    return root / "bin/python"


def run(python, folder, *arguments):
    return subprocess.run([python, "-I", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_it_works_with_its_own_dependencies_alone(core, tmp_path):
    absent = "import importlib.util as u; print([n for n in ('torch', 'snakemake', 'transformers') if u.find_spec(n)])"
    assert run(core, tmp_path, "-c", absent).stdout == "[]\n"
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(CONFIGURATION), encoding="utf-8")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    for arguments, status, said in (
        (["import", "merge.yml", "-o", "recipe.yaml"], 0, "recipe.yaml"),
        (["new", "herd"], 0, "herd: a repository for recipes"),
        (["plan", "herd/recipes/example.yaml"], 3, "the lock does not exist"),
        (["audit", "nowhere"], 2, "neither a folder nor"),
        (["schema"], 0, '"$defs"'),
    ):
        done = run(core, tmp_path, "-m", "herdbook", *arguments)
        assert (done.returncode, said in done.stdout + done.stderr) == (status, True), done
    assert (tmp_path / "herd/profiles/default").is_dir()
    assert not list((tmp_path / "herd").rglob("*.pyc"))


@pytest.mark.skipif(not (RELEASE / "SHA256SUMS").exists(), reason="needs what `make demo` builds")
def test_it_verifies_a_release_without_torch(core, tmp_path):
    done = run(core, tmp_path, "-m", "herdbook", "verify", RELEASE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_address_is_that_of_the_project_and_none_is_made_up(wheel):
    urls = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    assert metadata(wheel).get_all("Project-URL", []) == [f"{name}, {url}" for name, url in urls.items()]
    assert not [url for url in urls.values() if "example." in url or ".invalid" in url]
