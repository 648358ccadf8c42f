"""The cache under the real workflow: another checkout makes nothing, fetches nothing, and gives the same bytes."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest
import yaml
from pytest_local_hub import LocalHub, client

from herdbook.cache import configured
from support import rebuilds, s3_server, tiny
from support.project import Project, shards_made, steps_of

MODELS = {
    "base": {"hub": "herd/base"},
    "other": {"hub": "herd/other"},
    "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "mix": {
        "moe": {
            "base": "cut",
            "experts": [{"model": "cut", "prompts": ["w1 w2"]}, {"model": "other", "prompts": ["w9 w8"]}],
        }
    },
}
MADE = {"fetch", "laser", "moe", "routing"}  # and folders, which are links
HUB = f"hub-{os.getuid()}"  # what was fetched, in a cache that is a folder
AFTER = {"card", "release", "attest", "verify"}


class Herd:
    """Two models on a local Hub, a recipe of them, checkouts in which it is built, and a cache that they share."""

    def __init__(self, root, hub, monkeypatch, place):
        self.root, self.hub, self.place = root, hub, place
        for number, name in enumerate(("base", "other")):
            folder = tiny.write_model(root / "upstream" / name, seed=number)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            hub.add_repo(
                f"herd/{name}", files, license="apache-2.0", gated="auto" if name == "other" else False
            )
        client.use(hub, root / "home", monkeypatch, hub.token)
        self.recipe = tiny.write_recipe(root / "recipe/tiny.yaml", MODELS)
        tiny.lock(self.recipe)

    def checkout(self, name, edit=None):
        """Return a checkout with the recipe and its lock, on a machine that has fetched nothing yet."""
        project = Project(self.root / name)
        for path in self.recipe.parent.iterdir():
            shutil.copy(path, project.recipe.parent)
        if edit:
            recipe = yaml.safe_load(project.recipe.read_text(encoding="utf-8"))
            edit(recipe)
            project.recipe.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
            tiny.lock(project.recipe)
        with (project.recipe.parent / "config.yaml").open("a", encoding="utf-8") as file:
            file.write(f"cache: {self.place}\ngated: herd/other\n")
        self.away()
        return project

    def away(self):
        """Go to a machine that has fetched nothing yet, and forget what the Hub was asked."""
        for folder in (self.root / "home/hub", self.root / "cache" / HUB):
            shutil.rmtree(folder, ignore_errors=True)
        self.hub.forget()

    def asked(self):
        """Return what the Hub was asked since."""
        return [one.path for one in self.hub.requests]


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    with LocalHub() as hub:
        yield Herd(tmp_path, hub, monkeypatch, tmp_path / "cache")


@pytest.fixture
def in_s3(tmp_path, monkeypatch):
    with LocalHub() as hub, s3_server.serve(monkeypatch):
        yield Herd(tmp_path, hub, monkeypatch, "s3://herd/team")


def rules(steps):
    return {re.sub(r"_.*", "", rule) for rule, _ in steps}


def sums(project):
    return (project.results / "Tiny/release/SHA256SUMS").read_text(encoding="utf-8")


def prompt(recipe):
    recipe["models"]["mix"]["moe"]["experts"][0]["prompts"] = ["w5 w6"]


def build_twice(herd):
    """Build in a checkout, and in another one, which makes and fetches nothing; return both."""
    first = herd.checkout("first")
    assert rules(first.run()) == {*MADE, *AFTER, "files", "assemble"}
    assert any(path.endswith(".safetensors") for path in herd.asked())

    second = herd.checkout("second")
    shown = second.snakemake("-n").stdout
    assert not re.search(r"^(fetch|laser|moe|routing|files_\w+) +\d", shown, re.MULTILINE)
    assert not second.results.exists()
    made = second.run()
    assert rules(made) == {"restore", "assemble", *AFTER}
    assert {rule for rule, _ in made if rule.startswith("assemble")} == {
        "assemble_mix"
    }  # links to what was taken
    assert herd.asked() == []
    assert sums(second) == sums(first)
    return first, second


@pytest.mark.slow
def test_another_checkout_makes_and_fetches_nothing_with_s3(in_s3):
    build_twice(in_s3)


@pytest.mark.slow
def test_another_checkout_makes_and_fetches_nothing(in_folder):
    herd = in_folder
    first, second = build_twice(herd)
    assert not list((second.results / "shards").glob("base.*.safetensors"))  # nobody needs a source's weights
    assert second.run() == set()
    assert first.run() == set()  # a hard link that somebody else took is no change here

    # another prompt: routers are made of what can be taken, and what was taken is not made again
    third = herd.checkout("third", prompt)
    assert shards_made(step for step in third.run() if step[0] != "restore") == {"mix.routers"}
    assert herd.asked() == []
    shutil.copy(third.recipe, second.recipe)
    shutil.copy(third.recipe.with_suffix(".lock.json"), second.recipe.with_suffix(".lock.json"))
    assert rules(steps_of(second.snakemake("-n").stdout)) == {"restore", "assemble", *AFTER}

    # names count for nothing, but in the report on routers, which has them
    renamed = herd.checkout("renamed", lambda recipe: rebuilds.rename(recipe, "cut", "less"))
    assert rules(renamed.run()) == {"restore", "routing", "assemble", *AFTER}
    assert herd.asked() == []

    # what is gone is made again from what remains, with the same bytes
    cache = configured(str(herd.place))
    kept = [entry for entry in cache.entries() if entry.kind in {"fetch", "files"}]
    for entry in cache.entries():
        if entry not in kept:
            cache.remove(entry.name)
    fourth = herd.checkout("fourth")
    made = fourth.run()
    assert rules(made) == {"restore", "laser", "moe", "routing", "assemble", *AFTER}
    assert herd.asked() == []
    assert sums(fourth) == sums(first)


@pytest.mark.slow
def test_two_at_once_a_kill_and_a_flipped_bit(in_folder):
    herd = in_folder
    projects = [herd.checkout(name) for name in ("one", "two")]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "1"],
            cwd=project.root,
            env=project.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for project in projects
    ]
    cache = configured(str(herd.place))
    while not any(entry.kind == "moe" for entry in cache.entries()):
        assert runs[1].poll() is None, "the builds ended before one could be killed"
        time.sleep(0.02)
    os.killpg(runs[0].pid, signal.SIGKILL)  # in the middle
    assert [run.wait() for run in runs][1] == 0
    for entry in cache.entries():
        assert cache.damaged(entry) == {}
    projects[0].run()
    assert sums(projects[0]) == sums(projects[1])
    assert projects[0].run() == set()

    gated = [path for path in (herd.place / "gated").rglob("*") if path.is_file()]
    assert gated
    assert {stat.S_IMODE(path.stat().st_mode) for path in gated} == {0o600}
    assert {path.parts[len(herd.place.parts)] for path in herd.place.glob("*/*")} == {"open", "gated", HUB}
    assert stat.S_IMODE((herd.place / HUB).stat().st_mode) == 0o700
    held = {entry.id.partition(".")[0]: entry.gated for entry in cache.entries() if "." in entry.id}
    assert {name: held[name] for name in ("base", "cut", "other")} == {
        "base": False,
        "cut": False,
        "other": True,
    }
    assert all(entry.gated for entry in cache.entries() if entry.id.startswith("mix"))

    entry = next(one for one in cache.entries() if one.id.startswith("mix.routers"))
    path = herd.place / entry.name / entry.files["shard"][0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    third = herd.checkout("three")
    done = third.snakemake("--keep-going", check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "The entry was damaged and has been removed from the cache. Run the build again" in said
    assert "Traceback" not in said
    assert shards_made(step for step in third.run() if step[0] != "restore") == {"mix.routers"}
    assert herd.asked() == []
    assert sums(third) == sums(projects[1])
    assert json.loads((third.results / "Tiny/verification.json").read_text())["outcome"] == "passed"

    # A finished release with a damaged file, in the cache as well: what removes both has the next build make them again.
    # (Larger files are hard links of the cache's; these are copies.)
    shard = next((third.results / "shards").glob("mix.routers-*.safetensors"))
    for damaged in (path, shard):
        with damaged.open("r+b") as file:
            file.write(bytes([damaged.read_bytes()[0] ^ 1]))
    said = third.herdbook("cache", "verify").stdout
    assert "the same damaged file in the results; run the build again" in said
    assert not (third.results / "Tiny/release/SHA256SUMS").exists()
    assert shards_made(step for step in third.run() if step[0] != "restore") == {"mix.routers"}
    assert sums(third) == sums(projects[1])


def test_a_cache_that_cannot_be_used_is_found_before_anything_runs(tmp_path):
    project = Project(tmp_path)
    tiny.write_model(project.recipe.parent / "base")
    tiny.write_recipe(project.recipe, {"base": {"folder": "base"}})
    tiny.lock(project.recipe)
    (project.root / "empty").mkdir()
    project.snakemake("--config", "cache=empty", "--dry-run")
    assert not list((project.root / "empty").iterdir())
    for place, message in {
        "absent": "absent: the cache's folder does not exist",
        "gs://lab/herd": "gs://lab/herd: a cache is in a folder or in s3://bucket/prefix",
        "/proc/self": "is not writable",
    }.items():
        done = project.snakemake("--config", f"cache={place}", check=False)
        said = done.stdout + done.stderr
        assert done.returncode != 0
        assert message in said
        assert "Traceback" not in said
    assert not project.results.exists()
