"""Sources and adapters in folders of the author's, verified from a copy of the author's folder (``--inputs``)."""

import hashlib
import json
import os
import shutil

import pytest

from herdbook import plain
from herdbook.cli.main import main
from herdbook.layout import LOCK, RECIPE
from herdbook.release.finding import Outcome
from herdbook.steps.card.step import render_card
from support import tiny
from support.inputs.tokens import rename
from support.verification import findings, status

# Two folders of one name, whose sources have one URI; a token of the second differs.
MODELS = {
    "base": {"folder": "one/model"},
    "tuned": {"folder": "two/model", "license": "mit"},
    "folded": {"adapter": "adapter", "on": "tuned"},
    "mix": {"moe": {"base": "base", "gate": "random", "experts": [{"model": "base"}, {"model": "folded"}]}},
}
SOURCES = {"base", "tuned", "adapter of folded"}
WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    root = tmp_path_factory.mktemp("author")
    for seed, name in enumerate(("one", "two")):
        tiny.write_model(root / name / "model", seed=seed)
    rename(root / "two/model", {"w48": "new"})
    tiny.write_adapter(root / "adapter", root / "one/model", seed=7)
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", MODELS), root / "results")
    render_card(plan, plan.layout.card_folder)
    tiny.release(plan)
    return root


@pytest.fixture
def copy(author, tmp_path):
    """The author's folder and the release in another place."""
    return shutil.copytree(author, tmp_path / "copy", ignore=shutil.ignore_patterns("results"))


@pytest.fixture
def release(author, tmp_path):
    return shutil.copytree(author / "results/Tiny/release", tmp_path / "release")


def verified(release, copy, level="upstream"):
    return findings(release, level, inputs=copy / "r.yaml", sample_bytes=None)


def bad(found, level="upstream"):
    """Return check, subject and outcome of what did not pass at a level."""
    wrong = [one for one in found if one.level == level and one.outcome is not Outcome.PASSED]
    return [(one.check, one.subject, str(one.outcome)) for one in wrong]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_all_is_verified_from_a_copy(release, copy):
    found = verified(release, copy, "equality")
    assert status(found) == 0, [one for one in found if one.outcome is not Outcome.PASSED]
    upstream = {(one.check, one.subject) for one in found if one.level == "upstream"}
    assert upstream == {(check, name) for check in ("pinned", "lock") for name in SOURCES}
    # what is copied: all of the base, and nothing of the expert that an adapter is folded into
    compared = [(one.check, one.subject) for one in found if one.level == "equality"]
    assert ("equal", "base") in compared
    assert ("equal", "tuned") not in compared


def test_without_a_copy_it_is_said_how_to_name_one(release):
    told = [one for one in findings(release, "equality") if one.outcome is not Outcome.PASSED]
    assert {one.outcome for one in told} == {Outcome.UNVERIFIED}
    assert {one.subject for one in told if "--inputs" in one.detail} == SOURCES


@pytest.mark.parametrize(
    ("place", "subject"),
    [
        (f"one/model/{WEIGHTS}", "base"),
        ("two/model/tokenizer.json", "tuned"),
        (f"adapter/{ADAPTER}", "adapter of folded"),
    ],
)
def test_a_file_of_other_content_fails_by_its_name(release, copy, place, subject):
    path = copy / place
    expected, content = sha256(path), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = [one for one in verified(release, copy) if one.outcome is Outcome.FAILED]
    assert [(one.check, one.subject) for one in found] == [("pinned", subject)]
    assert path.name in found[0].detail
    size = path.stat().st_size
    assert (found[0].expected, found[0].found) == (
        f"{expected}, {size} bytes",
        f"{sha256(path)}, {size} bytes",
    )


def test_a_file_of_another_size_is_not_read(release, copy):
    """However large it is: a file with a hole has a size, and no content to wait for."""
    os.truncate(copy / "one/model" / WEIGHTS, 1 << 42)
    (wrong,) = [one for one in verified(release, copy) if one.outcome is Outcome.FAILED]
    assert (wrong.check, wrong.subject, wrong.found) == ("pinned", "base", f"{1 << 42} bytes")


def test_no_report_is_written_over_what_the_copy_has(release, copy, capsys):
    for place in (
        "r.yaml",
        "r.lock.json",
        f"one/model/{WEIGHTS}",
        "two/model/new.json",
        f"adapter/{ADAPTER}",
    ):
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        words = ("verify", str(release), "--inputs", str(copy / "r.yaml"), "--json", str(copy / place))
        assert main(words) == 2
        assert "is only read here" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_a_missing_file_fails_by_its_name(release, copy):
    (copy / "one/model" / WEIGHTS).unlink()
    (wrong,) = [one for one in verified(release, copy) if one.outcome is Outcome.FAILED]
    assert (wrong.check, wrong.subject, wrong.found) == ("pinned", "base", "no such file")
    assert WEIGHTS in wrong.detail


def test_the_bytes_of_copied_tensors_are_compared(release, copy):
    path = copy / "one/model" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    wrong = bad(verified(release, copy, "equality"), "equality")
    assert {(check, outcome) for check, _, outcome in wrong} == {("equal", "failed")}


def test_a_file_that_the_lock_does_not_have_fails(release, copy):
    (copy / "two/model/generation_config.json").write_text('{"temperature": 0.5}')
    found = verified(release, copy)
    assert bad(found) == [("lock", "tuned", "failed")] * 4
    told = " ".join(one.detail for one in found if one.outcome is Outcome.FAILED)
    assert all(field in told for field in ("revision", "files", "members", "generation"))


def test_folders_of_one_name_are_not_mixed_up(release, copy):
    (copy / "one").rename(copy / "three")
    (copy / "two").rename(copy / "one")
    (copy / "three").rename(copy / "two")
    wrong = bad(verified(release, copy))
    assert {(subject, outcome) for check, subject, outcome in wrong if check == "pinned"} == {
        ("base", "failed"),
        ("tuned", "failed"),
    }


@pytest.mark.parametrize(
    ("of", "field", "value", "told"),
    [
        ("sources.base", "config", {"rope_theta": 1.0}, [("lock", "base", "failed")]),
        ("sources.tuned", "tokens", {"sha256": "0" * 64}, [("lock", "tuned", "failed")]),
        ("adapters.folded", "config", {"lora_alpha": 1}, [("lock", "adapter of folded", "failed")]),
    ],
)  # fmt: skip
def test_a_lock_with_other_facts_than_the_folder_fails(release, copy, of, field, value, told):
    """Whoever lies in the lock does so in both."""
    content = json.loads((release / LOCK).read_text())
    kind, name = of.split(".")
    content[kind][name][field] |= value
    for path in (release / LOCK, copy / "r.lock.json"):
        path.write_text(json.dumps(content))
    assert bad(verified(release, copy)) == told


def test_how_tokens_differ_is_compared(release, copy):
    """The only tokenizers in the lock are those of folders, which are read once more."""
    content = json.loads((release / LOCK).read_text())
    assert content["token_differences"]
    content["token_differences"] = []
    for path in (release / LOCK, copy / "r.lock.json"):
        path.write_text(json.dumps(content))
    assert bad(verified(release, copy)) == [("lock", "token_differences", "failed")]


@pytest.mark.parametrize("name", [RECIPE, LOCK])
def test_a_copy_of_another_recipe_or_lock_proves_nothing(release, copy, name):
    path = copy / {RECIPE: "r.yaml", LOCK: "r.lock.json"}[name]
    path.write_text(path.read_text() + "\n")
    found = verified(release, copy)
    told = {one.subject: one.detail for one in found if one.outcome is Outcome.UNVERIFIED}
    assert f"is not the {name} of the release" in told["base"]
    assert {subject for check, subject, _ in bad(found) if check == "pinned"} == SOURCES
    assert {outcome for *_, outcome in bad(found)} == {"unverified"}


def test_a_folder_that_the_copy_lacks_is_unverified(release, copy):
    shutil.rmtree(copy / "adapter")
    found = verified(release, copy)
    assert bad(found) == [("pinned", "adapter of folded", "unverified")]
    assert any(f"{copy / 'adapter'}: no such folder" in one.detail for one in found)


def test_links_in_a_copy_are_followed_to_plain_files(release, copy):
    """In the cache of the Hub's client, all files of a model are links, and the author's folder may be one to it."""
    (copy / "cache/blobs").mkdir(parents=True)
    (copy / "cache/snapshot").mkdir()
    for path in sorted((copy / "one/model").iterdir()):
        blob = path.rename(copy / "cache/blobs" / sha256(path))
        (copy / "cache/snapshot" / path.name).symlink_to(f"../blobs/{blob.name}")
    (copy / "one/model").rmdir()
    (copy / "one/model").symlink_to("../cache/snapshot")
    assert status(verified(release, copy, "equality")) == 0


@pytest.mark.parametrize("what", ["a link that leads nowhere", "a link to a pipe", "a pipe"])
def test_what_is_no_plain_file_fails_and_is_not_opened(release, copy, what):
    place = {"a pipe": f"adapter/{ADAPTER}"}.get(what, f"one/model/{WEIGHTS}")
    path = copy / place
    path.unlink()
    if what != "a link that leads nowhere":
        os.mkfifo(copy / "pipe" if "link" in what else path)
    if "link" in what:
        path.symlink_to(copy / "pipe")
    (wrong,) = [one for one in verified(release, copy) if one.outcome is Outcome.FAILED]
    assert wrong.detail.startswith(f"{path.name}: is {what}")


def test_a_file_that_changes_while_it_is_verified_is_not_judged(release, copy, monkeypatch):
    opened = plain.open_file

    def open_file(folder, name):
        if name == WEIGHTS:
            os.utime(folder / name, (0, 0))
        return opened(folder, name)

    monkeypatch.setattr(plain, "open_file", open_file)
    found = bad(verified(release, copy, "upstream"))
    assert ("pinned", "base", "unverified") in found
    assert all(outcome == "unverified" for _, _, outcome in found)
