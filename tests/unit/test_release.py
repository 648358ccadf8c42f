"""Releases: whole, self-contained, the same on every build; and every kind of damage is found."""

import hashlib
import json
import shutil
from xml.etree import ElementTree as ET

import pytest

from herdbook import limits
from herdbook.cli.main import main
from herdbook.errors import StepError
from herdbook.files import sha256_file
from herdbook.layout import CLAIMS, OUTSIDE_SUMS, SUMS
from herdbook.plan import parsed
from herdbook.plan.release import contents
from herdbook.release.finding import Outcome
from herdbook.steps.card.step import render_card
from herdbook.verify import levels
from support import tiny
from support.project import Project
from support.verification import failures, findings

MODELS = {
    "base": {"folder": "base"},
    "tuned": {"adapter": "adapter", "on": "base"},
    "cut": {"laser": "tuned", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [{"model": "cut", "prompts": ["w1"]}, {"model": "base", "prompts": ["w2"]}],
        }
    },
}


def write(recipe):
    """Write the sources and a recipe of them."""
    tiny.write_model(recipe.parent / "base", seed=1, shards=2)
    tiny.write_adapter(recipe.parent / "adapter", recipe.parent / "base", seed=2)
    return tiny.write_recipe(recipe, MODELS)


def make(folder):
    plan = tiny.build(write(folder / "r.yaml"), folder / "results")
    render_card(plan, plan.layout.card_folder)
    tiny.release(plan)
    return plan


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return make(tmp_path_factory.mktemp("release"))


@pytest.fixture
def folder(plan, tmp_path):
    """A copy of the release, to damage."""
    return shutil.copytree(plan.layout.release_folder, tmp_path / "copy")


def resum(folder, change=None):
    """Write checksums and the first claim anew, as a forger would."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / SUMS).write_text(
        "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names if name not in OUTSIDE_SUMS)
    )
    first, *others = (folder / CLAIMS).read_text().splitlines()
    statement = json.loads(first)
    for subject in statement["subject"]:
        subject["digest"]["sha256"] = sha256_file(folder / subject["name"])
    if change:
        change(statement)
    (folder / CLAIMS).write_text("\n".join([json.dumps(statement), *others]) + "\n")


def test_good_release_passes_wherever_it_lies(plan, folder):
    assert failures(plan.layout.release_folder) == set()
    assert failures(folder) == set()


def test_checksums_are_those_of_sha256sum(plan):
    for line in (plan.layout.release_folder / SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert digest == hashlib.sha256((plan.layout.release_folder / name).read_bytes()).hexdigest()


def test_nothing_in_it_is_a_link_or_tells_the_machine(plan):
    for path in plan.layout.release_folder.rglob("*"):
        assert not path.is_symlink()
        if path.suffix in {".json", ".md", ".yaml", ".svg"}:
            assert str(plan.recipe_path.parent) not in path.read_text(encoding="utf-8")


def test_two_builds_are_the_same_byte_for_byte(plan, tmp_path):
    """Once here; once by the workflow in another folder, whose processes have sets in another order."""
    project = Project(tmp_path / "elsewhere")
    write(project.recipe)
    tiny.lock(project.recipe)
    project.run()

    def content(folder):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    again = content(project.results / "Tiny/release")
    assert again.keys() == content(plan.layout.release_folder).keys()
    assert [name for name, data in content(plan.layout.release_folder).items() if again[name] != data] == []


@pytest.mark.parametrize("model_type", ["llama", "granite"])
def test_a_release_that_does_not_load_whole_is_not_made(tmp_path, model_type):
    """Of the table's types, and of one that only transformers knows."""
    tiny.write_model(tmp_path / "base", model_type=model_type)
    models = {
        "base": {"folder": "base"},
        "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    }
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", models), tmp_path / "results")
    render_card(plan, plan.layout.card_folder)
    assert failures(tiny.release(plan)) == set()
    path = contents(plan)["config.json"].resolve()
    config = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    path.write_text(json.dumps({**config, "num_hidden_layers": 3}), encoding="utf-8")
    lacks = r"release: does not load whole: its config\.json implies the tensor model\.layers\.2\..*, which it lacks"
    with pytest.raises(StepError, match=lacks):
        tiny.release(plan)


def test_what_an_earlier_build_left_is_removed(plan):
    (plan.layout.release_folder / "old").mkdir()
    (plan.layout.release_folder / "old/stale.txt").write_text("x")
    tiny.release(plan)
    assert not (plan.layout.release_folder / "old").exists()
    assert failures(plan.layout.release_folder) == set()


def test_weights_that_were_changed_and_summed_anew(folder):
    path = sorted(folder.glob("model-*.safetensors"))[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    resum(folder)
    assert ("files", "records", path.name) in failures(folder)


def test_record_that_was_changed_to_fit(folder):
    """Weights, their record, sums and statement forged together: the lineage no longer leads back to the parent."""
    path = next(path for path in (folder / "provenance/records").glob("mix.expert2-1*.json"))
    record = json.loads(path.read_text())
    weights = next(
        file for file in folder.glob("model-*.safetensors") if sha256_file(file) == record["file"]["sha256"]
    )
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    last = max(record["tensors"])
    from herdbook.weights.checkpoint import digest_shard

    whole, entries = digest_shard(weights)
    record["file"]["sha256"] = whole
    record["tensors"][last]["sha256"] = entries[last]["sha256"]
    path.write_text(json.dumps(record))
    resum(folder)
    assert any(check == "origins" for _, check, _ in failures(folder))


def test_release_of_this_version_has_the_code_of_this_version(folder, monkeypatch):
    monkeypatch.setattr("herdbook.plan.parsed.module_digest", lambda _: "of someone else")
    assert failures(folder) >= {
        ("claims", "code", "laser"),
        ("claims", "code", "provenance"),
    }


def test_release_of_other_packages_is_checked_by_the_versions_that_it_names(folder, monkeypatch):
    version = parsed.package_version
    monkeypatch.setattr(
        parsed, "package_version", lambda name: version(name) if name == "herdbook" else "9.9"
    )
    assert failures(folder) == set()


def test_other_code_than_the_statement_names(folder):
    def lie(statement):
        said = statement["predicate"]["buildDefinition"]["internalParameters"]["operations"]
        said["laser"]["modules"]["herdbook.steps.laser.reduce"] = "0" * 64

    resum(folder, lie)
    assert {("claims", "keys", "cut"), ("claims", "keys", "mix"), ("claims", "code", "laser")} <= failures(
        folder
    )


def test_another_recipe_than_was_built(folder):
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("- w2", "- w3"))
    resum(folder)
    assert ("claims", "keys", "mix") in failures(folder)


def test_command_line(folder, tmp_path, capsys):
    base = ["verify", str(folder)]
    files = [*("--json", str(tmp_path / "found.json")), *("--junit", str(tmp_path / "found.xml"))]
    files += [*("--summary", str(tmp_path / "found.md")), *("--vsa", str(tmp_path / "found.vsa"))]
    assert main([*base, *files]) == 0
    assert "level claims: passed" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["outcome"] == "passed"
    assert [level["name"] for level in found["levels"]] == ["files", "claims"]
    assert found["levels"][0]["read_bytes"] > sum(
        path.stat().st_size for path in folder.glob("*.safetensors")
    )
    suites = ET.parse(tmp_path / "found.xml").getroot()
    assert sum(int(suite.get("tests")) for suite in suites) == len(suites.findall(".//testcase"))
    assert (tmp_path / "found.md").read_text().startswith("## `")
    summary = json.loads((tmp_path / "found.vsa").read_text())
    assert summary["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert summary["predicate"]["verificationResult"] == "PASSED"
    assert summary["predicate"]["verifiedLevels"] == ["HERDBOOK_FILES", "HERDBOOK_CLAIMS"]
    expected = sha256_file(folder / "README.md")
    (folder / "README.md").write_text("lies")
    assert main([*base, *files]) == 8
    seen = capsys.readouterr().out
    assert "FAIL       sums: README.md: does not have the digest" in seen
    assert f"expected {expected}" in seen
    assert f"found    {hashlib.sha256(b'lies').hexdigest()}" in seen
    failed = ET.parse(tmp_path / "found.xml").getroot().findall(".//failure")
    assert any(expected in one.get("message") for one in failed)
    assert expected in (tmp_path / "found.md").read_text()
    assert json.loads((tmp_path / "found.vsa").read_text())["predicate"]["verificationResult"] == "FAILED"


def test_statuses_of_the_command_line(tmp_path, capsys, monkeypatch, folder):
    assert main(["verify", str(tmp_path / "absent")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["verify", str(tmp_path / "empty")]) == 2
    assert "is not a release" in capsys.readouterr().err
    assert main(["verify", str(folder), "--key", str(tmp_path / "absent.pub")]) == 2
    assert main(["verify", str(folder), "--sample", "much"]) == 2

    def broken(release, options):
        raise ZeroDivisionError

    monkeypatch.setitem(levels.LEVELS, "claims", (levels.LEVELS["claims"][0], broken))
    assert main(["verify", str(folder)]) == 10
    seen = capsys.readouterr().out
    assert "internal error of the verifier (ZeroDivisionError" in seen
    assert "Please report it" in seen


def test_an_edited_file_is_one_finding(folder):
    """Of who adapts the checksums, and nothing else: the claims name the file, with its digest as they state it."""
    before = sha256_file(folder / "README.md")
    with (folder / "README.md").open("a", encoding="utf-8") as file:
        file.write("and more\n")
    sums = (folder / SUMS).read_text(encoding="utf-8")
    after = sha256_file(folder / "README.md")
    (folder / SUMS).write_text(sums.replace(before, after), encoding="utf-8")
    (found,) = [one for one in findings(folder) if one.outcome is not Outcome.PASSED]
    assert (found.check, found.subject, found.file) == ("claims", "README.md", "README.md")
    assert (found.expected, found.found) == (before, after)


def test_what_is_no_release_is_told_once_with_what_was_looked_for_and_what_else_there_is(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2  # nothing was verified, and nothing was forged
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"herdbook verify: {tmp_path}: is not a release of Herdbook: it is empty"
    (tmp_path / "notes.txt").touch()
    assert main(["verify", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.count("is not a release of Herdbook") == 1
    assert "it has none of SHA256SUMS, claims.jsonl" in line
    assert f"herdbook audit {tmp_path}" in line
    assert "--of RELEASE" in line


def test_a_folder_that_contains_releases_leads_to_them(tmp_path, capsys):
    for name in ("One/release", "Two/release", "Others"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "SHA256SUMS").touch()
    (tmp_path / "One/release/claims.jsonl").touch()
    (tmp_path / "Two/release/recipe.lock.json").touch()
    for place, said in (
        ("One/", f"a release is in {tmp_path}/One/release"),
        ("", f"releases are in {tmp_path}/One/release and {tmp_path}/Two/release"),
    ):
        assert main(["verify", f"{tmp_path}/{place}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(f"is not a release itself: {said}")


@pytest.mark.parametrize("left", ["claims.jsonl", "recipe.lock.json", "provenance/records/a.1.json"])
def test_a_release_without_its_checksums_is_no_mere_folder(tmp_path, capsys, left):
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).touch()
    assert main(["verify", str(tmp_path)]) == 8
    assert f"has no SHA256SUMS, although it has {left}" in capsys.readouterr().out


def test_the_folder_of_a_recipe_is_no_release_that_lost_its_checksums(tmp_path, capsys):
    for name in ("recipe.yaml", "recipe.lock.json", "README.md"):
        (tmp_path / name).touch()
    assert main(["verify", f"{tmp_path}/"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}: is not a release, but the folder of a recipe" in line
    assert "build it with `snakemake`" in line
    assert (
        main(["verify", str(tmp_path), "--expect", "a" * 64]) == 8
    )  # who demands a digest does not mean a recipe
    capsys.readouterr()
    (tmp_path / "results/Mine/release").mkdir(parents=True)
    for name in ("SHA256SUMS", "claims.jsonl"):
        (tmp_path / "results/Mine/release" / name).touch()
    assert main(["verify", str(tmp_path)]) == 2
    assert f"a release is in {tmp_path}/results/Mine/release" in capsys.readouterr().err
    for lost in ("config.json", "Tiny.Q8_0.gguf", "claims.jsonl"):
        (tmp_path / lost).touch()
        assert main(["verify", str(tmp_path)]) == 8, lost
        assert "has no SHA256SUMS, although" in capsys.readouterr().out
        (tmp_path / lost).unlink()


@pytest.mark.parametrize(
    ("files", "status", "said"),
    [
        ([], 2, "has more than 5 files and folders, and is not a release itself. Name the folder"),
        (
            ["results/A/release/SHA256SUMS"],
            2,
            "is not a release itself: a release is in {0}/results/A/release",
        ),
        (["recipe.yaml", "recipe.lock.json"], 2, "is not a release, but the folder of a recipe"),
        (["SHA256SUMS"], 8, "more than a release can have: others are among its own"),
        (["recipe.yaml", "recipe.lock.json", "claims.jsonl"], 8, "more than a release can have"),
        (["provenance/records/a.json"], 8, "more than a release can have"),
    ],
)
def test_too_many_files_are_told_of_a_release_and_of_what_is_none(
    tmp_path, monkeypatch, capsys, files, status, said
):
    monkeypatch.setattr(limits, "FILES", 5)
    for name in [*files, *map(str, range(6))]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert main(["verify", str(tmp_path)]) == status
    shown = capsys.readouterr()
    assert said.format(tmp_path) in shown.out + shown.err
    assert main(["audit", str(tmp_path)]) == 9
    assert "has more than 5 files and folders, so it was not read" in capsys.readouterr().out


def test_checksums_that_are_a_link_are_named_and_the_repository_of_the_copy(folder, tmp_path, capsys):
    """As the Hub's client keeps what it downloads."""
    snapshot = tmp_path / f"models--herd--tiny/snapshots/{'c' * 40}"
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert main(["verify", str(snapshot)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{snapshot}: SHA256SUMS is a link; only plain files are read" in line
    assert "`cp -rL`" in line
    assert line.endswith(f"herdbook verify herd/tiny@{'c' * 40}")
    (snapshot / "claims.jsonl").unlink()
    (snapshot / "claims.jsonl").touch()
    assert main(["verify", str(snapshot)]) == 8
    assert "SHA256SUMS is a link" in capsys.readouterr().out


def test_a_file_that_may_not_be_read_is_unverified_in_words_of_the_system(folder, monkeypatch, capsys):
    def refuse(self, name, *_):
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr("herdbook.release.subject.FolderSubject.read_range", refuse)
    assert main(["verify", str(folder)]) == 9
    shown = capsys.readouterr().out
    assert f"unverified release: {folder}: SHA256SUMS: Permission denied" in shown
    assert "Errno" not in shown


def test_what_lost_all_that_was_demanded_of_it_fails_as_a_forgery_does(tmp_path, capsys):
    report, empty = tmp_path / "r.json", tmp_path / "empty"
    empty.mkdir()
    assert main(["verify", str(empty), "--expect", "a" * 64, "--json", str(report)]) == 8
    assert report.exists()
    assert "is not a release of Herdbook" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["as it is", "renamed", "edited"])
def test_one_file_is_verified_by_its_content(plan, tmp_path, capsys, how):
    folder = plan.layout.release_folder
    weights = next(folder.glob("*.safetensors"))
    mine = tmp_path / ("mine.bin" if how == "renamed" else weights.name)
    shutil.copy(weights, mine)
    if how == "edited":
        with mine.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"!")
    status = main(["verify", str(mine), "--of", str(folder), "--json", str(tmp_path / "r.json")])
    (level, *_) = json.loads((tmp_path / "r.json").read_text())["levels"]
    one = next(one for one in level["findings"] if one["check"] == "this file")
    assert one["found"] == sha256_file(mine)
    if how == "edited":
        assert status == 8
        assert one["expected"] == sha256_file(weights)
        assert f"FAIL       this file: {mine}: is no file of {folder}" in capsys.readouterr().out
    else:
        assert status == 0
        assert f"{mine}: is {weights.name} of {folder}, byte for byte" in capsys.readouterr().out
