"""What jobs made is noted: what was changed by hand since is not released, and what is damaged is named with its repair."""

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from herdbook import made
from herdbook import plan as plans
from herdbook.cli.main import main
from herdbook.cli.steps import words
from herdbook.errors import StepError
from herdbook.layout import Layout
from herdbook.plan.job import Job
from herdbook.plan.jobs import jobs
from support import tiny

LAYOUT = Layout(Path("results"), "Tiny")
REPAIR = "to repair it where it was built: rm "
BUILD = "snakemake --cores all --config recipe=recipe.yaml"


def job(rule="evaluate", key="a" * 64, outputs=("evaluations/x-aaaaaaaaaaaa.json",), id_="x-aaaaaaaaaaaa"):
    """Return a job whose files exist, each with its own name as its content."""
    paths = tuple(LAYOUT.root / name for name in outputs)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    return Job(rule, id_, key, (), paths)


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("inside")
def test_only_what_was_changed_since_is_refused_and_its_job_is_named():
    one = job()
    card = job("card", "b" * 64, ("Tiny/card/README.md", "Tiny/card/NOTICE"), id_="")
    for each in (one, card):
        made.note(LAYOUT, each)
    every = [one, card]
    paths = [*one.outputs, *card.outputs, Path("recipe.yaml")]
    made.check(LAYOUT, every, paths)
    card.outputs[0].write_text("mine")
    with pytest.raises(StepError) as refused:
        made.check(LAYOUT, every, paths)
    first, last = str(refused.value).split("\n")
    before, after = (hashlib.sha256(text).hexdigest() for text in (b"README.md", b"mine"))
    assert first == (
        f"results/Tiny/card/README.md: was changed after `card` made it: expected sha256 {before}, found {after}"
    )
    assert "Run `rm results/Tiny/card/README.md` and build again" in last
    made.check(LAYOUT, every, one.outputs)
    made.check(LAYOUT, [one], paths)  # no job of the plan makes it
    card.outputs[0].unlink()
    made.check(LAYOUT, every, paths)  # whoever reads it will say that it is missing


@pytest.mark.usefixtures("inside")
def test_what_is_not_known_is_accepted():
    """Another key's note, a damaged one, none, and that of a job that is being done again."""
    one = job()
    made.note(LAYOUT, one)
    one.outputs[0].write_text("other")
    with pytest.raises(StepError):
        made.check(LAYOUT, [one], one.outputs)
    made.check(LAYOUT, [job(key="c" * 64)], one.outputs)
    made.note(LAYOUT, one)
    one.outputs[0].write_text("other")
    note = LAYOUT.made("evaluate", one.id)
    note.write_text('{"files": []}')
    made.check(LAYOUT, [one], one.outputs)
    made.note(LAYOUT, one)
    made.forget(LAYOUT, one)
    assert not note.exists()
    one.outputs[0].write_text("again other")
    made.check(LAYOUT, [one], one.outputs)


@pytest.mark.usefixtures("inside")
def test_large_files_are_left_to_their_records():
    one = job("laser", outputs=("shards/x.safetensors", "shards/x.json"))
    states = job("reference", "d" * 64, ("losses/y.npy", "losses/y.json"), "y")
    data = job("data", "e" * 64, ("data/z/a.parquet",), "z")
    for each in (one, states, data):
        made.note(LAYOUT, each)
    assert list(json.loads(LAYOUT.made("laser", one.id).read_text())["files"]) == ["shards/x.json"]
    assert list(json.loads(LAYOUT.made("reference", "y").read_text())["files"]) == ["losses/y.json"]
    assert not LAYOUT.made("data", "z").exists()


def step(one):
    """Do a job as its rule does; return its exit status."""
    return main(words(one, 1) if one.rule != "attest" else ["attest"])


def build():
    """Do what a build would do, without Snakemake: the jobs that lack a file, in order."""
    for one in jobs(plans.load(Path("recipe.yaml"), Path("results"))):
        if one.rule != "verify" and not all(path.exists() for path in one.outputs):
            assert step(one) == 0


@pytest.fixture(scope="module")
def herd(tmp_path_factory):
    """Build a release of a lasered model with the commands of its rules, each in the folder of the recipe."""
    root = tmp_path_factory.mktemp("herd")
    tiny.write_model(root / "base", seed=1)
    models = {
        "base": {"folder": "base"},
        "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["self_attn.o_proj"]},
    }
    tiny.write_recipe(root / "recipe.yaml", models)
    tiny.lock(root / "recipe.yaml")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(root)
        patched.setenv("HERDBOOK_RECIPE", "recipe.yaml")
        build()
    return root


@pytest.fixture
def copy(herd, tmp_path, monkeypatch):
    """Copy the build, with its links, and go there."""
    root = tmp_path / "herd"
    shutil.copytree(herd, root, symlinks=True)
    shard = next((root / "results/shards").glob("cut.*.safetensors"))
    (released,) = (root / "results/Tiny/release").glob("*.safetensors")
    released.unlink()
    released.hardlink_to(shard)
    monkeypatch.chdir(root)
    monkeypatch.setenv("HERDBOOK_RECIPE", "recipe.yaml")
    return root


def of_rule(rule):
    every = jobs(plans.load(Path("recipe.yaml"), Path("results")))
    return next(one for one in reversed(every) if one.rule == rule)


@pytest.mark.parametrize(
    ("pattern", "rule", "maker"),
    [
        ("Tiny/card/README.md", "release", "card"),
        ("Tiny/card/figures/lineage.svg", "release", "card"),
        ("shards/cut.*.json", "card", "laser cut.1-"),
        ("models/base-*/config.json", "assemble", "files base-"),
        ("Tiny/release/README.md", "attest", "release"),
    ],
)
@pytest.mark.usefixtures("copy")
def test_a_file_that_a_person_edits_is_refused_and_made_again_once_deleted(pattern, rule, maker, capsys):
    (path,) = Path("results").glob(pattern)
    before = path.read_bytes()
    path.write_bytes(before.replace(b"0", b"1").replace(b"e", b"a", 1))
    assert step(of_rule(rule)) == 7
    said = capsys.readouterr().err
    assert f"{path}: was changed after `{maker}" in said
    path.unlink()
    build()
    assert step(of_rule(rule)) == 0
    assert path.read_bytes() == before


@pytest.mark.usefixtures("copy")
def test_a_file_that_a_model_takes_over_by_a_link_is_refused_behind_it(capsys):
    (linked,) = Path("results/models").glob("cut-*/tokenizer_config.json")
    (behind,) = Path("results/models").glob("base-*/tokenizer_config.json")
    behind.write_text(behind.read_text().replace("<s>", "<t>"))
    assert step(of_rule("release")) == 7
    assert f"{linked}: was changed after `assemble cut-" in capsys.readouterr().err
    linked.unlink()
    assert step(of_rule("assemble")) == 7  # it would take it over once more
    assert f"{behind}: was changed after `files base-" in capsys.readouterr().err


@pytest.mark.usefixtures("copy")
def test_a_release_edited_together_with_its_checksums_is_not_published(capsys):
    folder = Path("results/Tiny/release")
    card, sums = folder / "README.md", folder / "SHA256SUMS"
    old = hashlib.sha256(card.read_bytes()).hexdigest()
    card.write_text(card.read_text() + "best of all\n")
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(card.read_bytes()).hexdigest()))
    assert main(["publish", "--to", "there"]) == 7
    assert f"{card}: was changed after `release` made it" in capsys.readouterr().err
    assert not Path("there").exists()


@pytest.mark.usefixtures("copy")
def test_explain_names_what_was_edited_and_who_is_refused_because_of_it(capsys):
    def explained(*target):
        assert main(["explain", *target]) == 0
        heads, lines = {}, capsys.readouterr().out.splitlines()
        for line in lines:
            if not line.startswith("  ") and ": " in line:
                name, _, heads[name.partition("-")[0]] = line.partition(": ")
        return heads, lines

    heads, lines = explained()
    assert set(heads.values()) == {"up to date", "would be built"}  # the verification was not done
    assert not any("build again" in line for line in lines)
    card = Path("results/Tiny/card/README.md")
    (behind,) = Path("results/models").glob("base-*/tokenizer_config.json")
    for path in (card, behind):
        path.write_text(path.read_text() + " ")
    heads, lines = explained()
    refused = {name for name, state in heads.items() if "would be refused" in state}
    edited = {name for name, state in heads.items() if "changed by hand" in state}
    assert refused == {"assemble cut", "release"}
    assert edited == {"files base", "assemble cut", "card"}  # what `cut` takes over is a link
    assert f"  {card}: was changed after `card` made it" in lines
    assert f"  reads {card}: was changed after `card` made it" in lines
    (taken,) = Path("results/models").glob("cut-*/tokenizer_config.json")
    command = re.search("`rm (.*)` and build again", lines[-1])[1]
    assert set(shlex.split(command)) == {str(card), str(behind), str(taken)}
    for rule in ("assemble", "release"):
        assert step(of_rule(rule)) == 7  # as it was told
    capsys.readouterr()
    assert explained("release")[0] == {"release": "would be refused"}
    sums = Path("results/Tiny/release/SHA256SUMS")
    sums.write_text(sums.read_text() + " ")
    assert explained("verify")[0] == {"verify": "would be built"}  # which says itself what is wrong
    assert explained("attest")[0] == {"attest": "would be refused"}
    card.unlink()
    heads, lines = explained("card")
    assert heads == {"card": "would be rebuilt"}
    assert f"  {card} is missing" in lines


@pytest.mark.parametrize("damaged", ["shard", "card", "claims", "recipe"])
@pytest.mark.usefixtures("copy")
def test_verification_names_what_to_delete_to_repair_a_release(damaged, capsys):
    folder = Path("results/Tiny/release")
    (weights,) = folder.glob("*.safetensors")
    path = {
        "shard": weights,
        "card": folder / "README.md",
        "claims": folder / "claims.jsonl",
        "recipe": folder / "recipe.yaml",
    }[damaged]
    with path.open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"!")
    assert main(["verify", str(folder)]) == 8
    lines = capsys.readouterr().out.splitlines()
    shard = next(Path("results/shards").glob("cut.*.safetensors"))
    told = [line for line in lines if "is damaged, too" in line]
    assert told == (
        [f"{shard}: is damaged, too; `laser {shard.stem}` makes it"] if damaged == "shard" else []
    )
    (line,) = [line for line in lines if line.startswith(REPAIR)]
    names = shlex.split(re.fullmatch(rf"{REPAIR}(.*); {BUILD}", line)[1])
    expected = {folder / ("claims.jsonl" if damaged == "claims" else "SHA256SUMS")}
    assert set(map(Path, names)) == expected | ({shard} if damaged == "shard" else set())
    for name in names:
        Path(name).unlink()
    build()
    assert main(["verify", str(folder)]) == 0


def repair(capsys):
    """Verify a release whose card was changed; return the lines of the advice."""
    folder = Path("results/Tiny/release")
    (folder / "README.md").write_text("mine")
    assert main(["verify", str(folder)]) == 8
    lines = capsys.readouterr().out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith(REPAIR)]
    return [*(line for line in lines[:at] if "stands for" in line), lines[at].partition("; ")[2]]


@pytest.mark.usefixtures("copy")
def test_the_repair_names_the_recipe_that_is_not_the_configured_one(capsys):
    """By its bytes; edited since, by the name of its release; neither, or several, and it is left open."""
    config, own = Path("config/config.yaml"), Path("recipe.yaml")
    config.parent.mkdir()
    other = Path("config/other.yaml")
    other.write_text(own.read_text().replace("name: Tiny", "name: Other"))
    assert other.read_bytes() != own.read_bytes()
    config.write_text("recipe: config/other.yaml\n")
    third = Path("third.yaml")
    third.write_text(own.read_text() + "# of the same name\n")
    assert repair(capsys) == [BUILD]
    third.unlink()
    own.write_text(own.read_text() + "# edited\n")
    assert repair(capsys) == [BUILD]
    config.write_text("recipe: recipe.yaml\n")
    assert repair(capsys) == ["snakemake --cores all"]
    config.write_text("recipe: config/other.yaml\n")
    third.write_text(own.read_text() + "# again\n")
    unknown = [
        "RECIPE stands for the recipe that it was built from, which was not found here",
        "snakemake --cores all --config recipe=RECIPE",
    ]
    assert repair(capsys) == unknown
    third.unlink()
    own.write_text(other.read_text())
    assert repair(capsys) == unknown
    own.write_text("models: [")
    assert repair(capsys) == unknown


@pytest.mark.usefixtures("copy")
def test_the_repair_of_a_signed_release_says_that_it_is_signed_again(capsys, monkeypatch):
    monkeypatch.setenv("HERDBOOK_SIGNING_KEY", "")  # the command would set it from the file, and leave it set
    Path("results/Tiny/release/model.sig").write_text("{}")
    signed, command = repair(capsys)
    assert signed.startswith("it is signed: KEY stands for the private key")
    assert command == f"{BUILD} signing_key=KEY"
    Path("config").mkdir()
    Path("config/config.yaml").write_text("recipe: recipe.yaml\nsigning_key: mine.key\n")
    assert repair(capsys) == ["snakemake --cores all"]


@pytest.mark.usefixtures("copy")
def test_a_release_elsewhere_gets_no_advice_for_its_build(capsys):
    shutil.copytree("results/Tiny/release", "download")
    Path("download/README.md").write_text("mine")
    assert main(["verify", "download"]) == 8
    assert REPAIR not in capsys.readouterr().out
    assert main(["verify", "results/Tiny"]) == 2
    assert (
        "results/Tiny: is not a release itself: a release is in results/Tiny/release"
        in capsys.readouterr().err
    )
