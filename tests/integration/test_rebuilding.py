"""Building a release again: `herdbook new --from` lays out what it has, says what it lacks, and lets nothing out of its folder."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from pytest_local_hub import LocalHub, client

from herdbook import plan as plans
from herdbook.cli.main import main
from herdbook.recipe import SECTIONS
from herdbook.steps.card.step import render_card
from support import tiny

MODELS = {
    "base": {"hub": "herd/base"},
    "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["self_attn.o_proj"], "layers": "0-0"},
    "mix": {"moe": {"base": "base", "gate": "random", "experts": [{"model": "base"}, {"model": "cut"}]}},
}
CARD = {"card": {"sections": [*SECTIONS, "thanks"], "templates": "../words/own"}}
OWN = Path("recipes/tiny")  # of a release named Tiny
TEXT = "\n".join(json.dumps({"text": f"w{n} w{n + 1} w{n + 2} " * 3}) for n in range(60))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with LocalHub() as hub, pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("hub")
        client.use(hub, home / "hf", patch)
        source = tiny.write_model(home / "base", seed=1)
        hub.add_repo(
            "herd/base", {path.name: path.read_bytes() for path in source.iterdir()}, license="apache-2.0"
        )
        yield hub


@pytest.fixture(scope="module")
def built(hub, tmp_path_factory):
    """A release whose recipe names a template above its folder."""
    author = tmp_path_factory.mktemp("author")
    (author / "words/own").mkdir(parents=True)
    (author / "words/own/thanks.md.j2").write_text("## Thanks\n\nTo nobody.\n", encoding="utf-8")
    recipe = tiny.write_recipe(author / "config/mine.yaml", MODELS, **CARD)
    return make(recipe, author / "results")


def make(recipe, results):
    tiny.lock(recipe)
    return again(recipe, results)


def again(recipe, results):
    """Build what a recipe and the lock beside it say; return the release."""
    plan = tiny.build_locked(recipe, results)
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan)


def write_sums(folder):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in names
        if name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def unbuilt(hub, tmp_path, monkeypatch):
    """What the author of a recipe would release of it, without the weights; a task, data and code, an adapter, texts."""
    monkeypatch.chdir(tmp_path)
    beside = tmp_path / "author/herd/config"
    tiny.write_model(tmp_path / "base", seed=1)
    tiny.write_adapter(beside.parent / "adapters/one", tmp_path / "base", seed=2)
    for folder in (beside.parent / "data", beside / "tasks"):
        folder.mkdir(parents=True)
    tiny.write_task(beside / "tasks/plain.yaml", data="../../data/plain.jsonl")
    (beside / "texts.jsonl").write_text(TEXT, encoding="utf-8")
    models = {
        "base": MODELS["base"],
        "folded": {"adapter": "../adapters/one", "on": "base", "license": "mit"},
    }
    recipe = tiny.write_recipe(
        beside / "mine.yaml",
        models,
        calibration={"words": {"data": ["texts.jsonl"], "split": "validation", "windows": 30, "tokens": 8}},
        evaluate={"tasks": ["tasks/plain.yaml"], "models": ["folded"]},
    )
    tiny.lock(recipe)
    folder = tmp_path / "release"
    task = beside / "tasks/plain.yaml"
    carried = (
        folder / "provenance/inputs" / f"{hashlib.sha256(task.read_bytes()).hexdigest()[:12]}-plain.yaml"
    )
    carried.parent.mkdir(parents=True)
    shutil.copy(task, carried)
    shutil.copy(recipe, folder / "recipe.yaml")
    shutil.copy(recipe.with_suffix(".lock.json"), folder / "recipe.lock.json")
    write_sums(folder)
    return folder


def written(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("where", ["folder", "hub"])
def test_a_release_is_built_again_with_the_same_bytes(built, hub, tmp_path, monkeypatch, capsys, where):
    monkeypatch.chdir(tmp_path)
    source = str(built)
    if where == "hub":
        source = "keeper/Tiny"
        files = {name: (built / name).read_bytes() for name in written(built)}
        hub.add_repo(source, files)
    assert main(["new", "herd", "--from", source]) == 0
    said = capsys.readouterr()
    recipe = Path("herd") / OWN / "recipe/recipe.yaml"
    assert recipe.read_bytes() == (built / "recipe.yaml").read_bytes()
    assert recipe.with_suffix(".lock.json").read_bytes() == (built / "recipe.lock.json").read_bytes()
    assert written(Path("herd") / OWN) == {
        "recipe/recipe.yaml",
        "recipe/recipe.lock.json",
        "words/own/thanks.md.j2",
    }
    assert f"{recipe}: recipe and lock of the release, and 1 input\n" in said.out
    assert "not in the release" not in said.err
    assert said.out.endswith("  snakemake --cores all\n")
    settings = yaml.safe_load(Path("herd/config/config.yaml").read_text(encoding="utf-8"))
    assert settings["recipe"] == f"{OWN}/recipe/recipe.yaml"
    assert not Path("herd/recipes/example.yaml").exists()
    monkeypatch.chdir("herd")
    rebuilt = again(Path(settings["recipe"]), Path("results"))
    names = written(built) - {"claims.jsonl"}  # which has times
    assert names == written(rebuilt) - {"claims.jsonl"}
    assert [name for name in names if (rebuilt / name).read_bytes() != (built / name).read_bytes()] == []


def test_what_a_release_lacks_is_named_with_its_place(unbuilt, capsys):
    assert main(["new", "herd", "--from", "release"]) == 0
    said = capsys.readouterr()
    place = Path("herd") / OWN
    assert written(place) == {"recipe/recipe.yaml", "recipe/recipe.lock.json", "recipe/tasks/plain.yaml"}
    for line in (
        f"  models.folded.adapter: {place}/adapters/one (2 files)\n",
        f"  the task tasks/plain.yaml: {place}/data/plain.jsonl (1 file)\n",
        f"  calibration.words: {place}/recipe/texts.jsonl (1 file)\n",
    ):
        assert line in said.err, said.err
    assert "The jobs that read them fail without them" in said.err
    assert said.out.endswith("  snakemake --cores all    # once the missing files are there\n")
    # there, they are what the lock pins
    shutil.copytree("author/herd/adapters", place / "adapters")
    plan = plans.load(place / "recipe/recipe.yaml", Path("herd/results"))
    (part,) = [part for part in plan.parts.values() if part.model == "folded"][:1]
    assert (
        plan.beside_recipe(plan.nodes[part.model].recipe.adapter).resolve()
        == (place / "adapters/one").resolve()
    )


def test_code_that_tasks_run_is_named(unbuilt, capsys):
    recipe = unbuilt / "recipe.yaml"
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    content["evaluate"]["trust"] = ["tasks/code.py"]
    recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
    write_sums(unbuilt)
    main(["new", "herd", "--from", "release"])
    said = capsys.readouterr().err
    assert (
        f"its tasks run code of its author's. Read it before you build: herd/{OWN}/recipe/tasks/code.py"
        in said
    )


ABOVE = "../" * 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/cron.d/x", "is an absolute path"),
        ("~/x", "is an absolute path"),
        ("C:/x", "is an absolute path"),
        (f"{ABOVE}x", "5 levels above the recipe's folder, over the limit of 4"),
        (f"a/b/{ABOVE}{ABOVE}x", "8 levels above"),
        (".git/config", "is hidden"),
        ("../.snakemake/x", "is hidden"),
        ("a\0b", "control characters"),
        ("recipe.yaml", "is another file as well"),
        ("recipe.lock.json", "is another file as well"),
        ("recipe.yaml/x", "would be a file and the folder of x"),
        ("..", "would be a file and the folder of"),
    ],
)
def test_no_path_of_a_release_leads_out_or_over_other_files(unbuilt, capsys, name, message):
    rename_task(unbuilt, name)
    before = written(Path())
    assert main(["new", "herd", "--from", "release"]) != 0
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert written(Path()) == before


def test_whatever_a_release_names_stays_in_a_folder_of_its_own(unbuilt):
    """As many levels up as are allowed, and names of files that Snakemake, git or Python would read in the repository."""
    for name in ("../../../../Snakefile", "../../torch.py", "../../../profiles/default/config.yaml"):
        shutil.rmtree("herd", ignore_errors=True)
        rename_task(unbuilt, name)
        main(["new", "herd", "--from", "release"])
        task = next((unbuilt / "provenance/inputs").iterdir()).read_bytes()
        (path,) = [path for path in Path("herd").rglob("*") if path.is_file() and path.read_bytes() == task]
        assert path == Path("herd") / OWN / name.replace("../", "")
        assert main(["new", "plain"]) == 0
        assert Path("herd/Snakefile").read_bytes() == Path("plain/Snakefile").read_bytes()
        shutil.rmtree("plain")


def test_one_input_at_any_number_of_places_is_refused_by_its_bytes(unbuilt, capsys, monkeypatch):
    size = next((unbuilt / "provenance/inputs").iterdir()).stat().st_size
    path = unbuilt / "recipe.lock.json"
    lock = json.loads(path.read_text(encoding="utf-8"))
    (task,) = lock["tasks"].values()
    task["sources"] = [{**task["file"], "name": f"{number}.yaml"} for number in range(100)]
    path.write_text(json.dumps(lock), encoding="utf-8")
    write_sums(unbuilt)
    monkeypatch.setattr("herdbook.limits.TEXTS_BYTES", max(path.stat().st_size, 90 * size))
    assert main(["new", "herd", "--from", "release"]) == 8
    assert "its inputs have more than" in capsys.readouterr().err
    assert not Path("herd").exists()


def rename_task(release, name):
    """Give the file of the task another name in the lock, and no data, which would be beside it."""
    path = release / "recipe.lock.json"
    lock = json.loads(path.read_text(encoding="utf-8"))
    (task,) = lock["tasks"].values()
    task["file"]["name"], task["data"] = name, []
    path.write_text(json.dumps(lock), encoding="utf-8")
    write_sums(release)


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe.lock.json", "provenance/inputs/*-plain.yaml"])
def test_a_file_that_is_not_the_one_of_the_checksums_is_refused(unbuilt, capsys, name):
    (path,) = unbuilt.glob(name)
    path.write_bytes(path.read_bytes() + b"\n")
    assert main(["new", "herd", "--from", "release"]) == 8
    assert "is not the file that SHA256SUMS lists" in capsys.readouterr().err
    assert not Path("herd").exists()


def test_a_lock_of_another_recipe_leaves_a_repository_and_its_reason(unbuilt, capsys):
    recipe = unbuilt / "recipe.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("herd/base", "herd/other"), encoding="utf-8")
    write_sums(unbuilt)
    assert main(["new", "herd", "--from", "release"]) == 3
    said = capsys.readouterr().err
    assert "was made, but the release cannot be planned here" in said
    assert "the lock does not match the recipe at models.base" in said


def test_names_in_a_configuration_are_not_for_a_release(unbuilt, capsys):
    assert main(["new", "herd", "--from", "release", "--map", "a=b"]) == 2
    assert "--from is a release of Herdbook" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["", "/recipe.yaml", "/recipe.lock.json", "/README.md"])
def test_what_is_for_merges_of_mergekit_says_what_a_release_is_for(unbuilt, capsys, name):
    (unbuilt / "README.md").write_text("# A card\n", encoding="utf-8")
    assert main(["import", f"release{name}"]) == 2
    said = capsys.readouterr().err
    assert (
        f"release{name}: is of a release of Herdbook, which needs no import: herdbook new FOLDER --from release"
        in said
    )
    if name:
        assert main(["new", "herd", "--from", f"release{name}"]) == 2
        assert "name its folder: herdbook new herd --from release" in capsys.readouterr().err
        assert not Path("herd").exists()


def test_a_folder_is_no_configuration(tmp_path, capsys):
    assert main(["import", str(tmp_path)]) == 2
    assert "is a folder; name the file with the configuration" in capsys.readouterr().err


def test_an_audit_of_a_release_says_how_it_is_verified_before_it_reads(unbuilt, capsys):
    # no weights are there: they are not looked for
    assert main(["audit", "release"]) == 9
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "audit: nothing is compared: release is a release of Herdbook"
    assert second.startswith("unverified merge     release: has records of all that it was made from")
    assert "herdbook verify release" in second
    assert main(["audit", "release", "--candidates", "base"]) == 9
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "audit: release is compared with base: is it made of it?"
    assert second == "unverified merge     release: contains no weights in safetensors"  # now they are
