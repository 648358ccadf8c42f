"""Builders who lie in the header of a GGUF: each entry is changed, the rest derived from that and signed, and it is caught."""

import os
import re
import shutil

import pytest
from gguf.constants import GGUFValueType
from pytest_local_hub import LocalHub, client

from herdbook.layout import OUTSIDE_SUMS
from herdbook.release.finding import Outcome
from herdbook.steps.card.step import render_card
from herdbook.verify.facts.gguf import GGUF
from herdbook.verify.gguf.check import SHOWN
from herdbook.verify.gguf.table import PRE, ROWS
from herdbook.weights.gguf_file import read_gguf
from herdbook.weights.gguf_header import encode
from support import lies, quantized, tiny
from support.gguf_lies import LIES, other_byte
from support.verification import findings, status

MODELS = {
    "base": {"hub": "herd/base"},
    "tuned": {"hub": "herd/tuned"},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [{"model": "base", "prompts": ["w1"]}, {"model": "tuned", "prompts": ["w2"]}],
        }
    },
}
SETS = 6  # of entries that are changed at once
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("headers")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        for seed, name in enumerate(("base", "tuned")):
            folder = tiny.write_model(root / name, seed=seed, head_dim=8, rope_scaling=YARN)
            (folder / "chat_template.jinja").write_text("{{ messages }}\n")
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            hub.add_repo(f"herd/{name}", files, license="apache-2.0")
        recipe = tiny.write_recipe(root / "r.yaml", MODELS, quantize={"methods": ["Q8_0", "Q4_K_M"]})
        patch.setattr("herdbook.steps.quantize.vocabulary.check_vocabulary", lambda _: None)
        plan = tiny.build(recipe, root / "results")
        quantized.add_to(plan, quantized.size_label(experts=2))
        render_card(plan, plan.layout.card_folder)
        yield tiny.release(plan, lies.KEY), hub


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "copy")


def keys():
    """Return the keys of such a release's header: all that the table has for it, with an example of each other one."""
    return sorted(
        {row.key for row in ROWS}
        - {"general.license", PRE, "tokenizer.chat_templates", "llama.expert_gating_func"}
    )


def wrong(found):
    return {(one.level, one.check) for one in found if one.outcome is not Outcome.PASSED}


def test_an_honest_release_passes(made):
    found = findings(made[0], "recomputed", sample_bytes=None)
    assert status(found) == 0, [one for one in found if one.outcome is not Outcome.PASSED]
    told = [one for one in found if one.check == "gguf headers"]
    assert len(told) == 2
    assert all(f"all but {PRE} (see level rebuild)" in one.detail for one in told)


@pytest.mark.parametrize("some", [keys()[start::SETS] for start in range(SETS)], ids=lambda some: some[0])
def test_each_entry_that_is_changed_added_or_removed_is_caught(folder, some):
    """Each by a finding of its own, as many as a file gets."""

    def change(metadata):
        for key in some:
            metadata[key] = quantized.other(metadata[key]) if key in metadata else encode(1)

    quantized.told(folder, lambda path: quantized.rewrite(path, change))
    told = [one for one in findings(folder) if one.outcome is not Outcome.PASSED]
    assert {(one.level, one.check, one.subject) for one in told} == {
        ("claims", "gguf headers", "Tiny.Q8_0.gguf")
    }
    assert len(told) == len(some) < SHOWN
    for key in some:
        [bad] = [one for one in told if key in re.split(r"[ ,]", one.detail)]
        assert bad.expected != bad.found


def test_each_entry_that_is_left_out_is_caught(folder, made):
    metadata = read_gguf(made[0] / "Tiny.Q8_0.gguf").metadata
    needed = metadata.keys() - {PRE}

    def change(entries):
        for key in needed - {"llama.block_count"}:
            del entries[key]

    quantized.told(folder, lambda path: quantized.rewrite(path, change))
    found = [one.detail for one in findings(folder) if one.check == "gguf headers"]
    missing = needed - {"llama.block_count"}
    named = {key for key in missing if any(f"{key} is not" in detail for detail in found)}
    assert len(named) == 20  # as many as are shown
    assert any(f"{len(missing) - 20} more" in detail for detail in found)


def test_only_a_rebuild_tells_how_text_is_split(folder):
    quantized.told(
        folder,
        lambda path: quantized.rewrite(path, lambda entries: entries.update({PRE: encode("llama-bpe")})),
    )
    assert status(findings(folder)) == 0


@pytest.mark.parametrize(("what", "change", "by"), LIES, ids=[row[0] for row in LIES])
def test_lies(folder, what, change, by):
    quantized.told(folder, change)
    level, check = by
    assert (level, check) in wrong(findings(folder, level, sample_bytes=None))
    earlier = {"claims": "files", "recomputed": "claims"}[level]
    assert status(findings(folder, earlier)) == 0


def test_a_release_on_the_hub_is_read_by_ranges(made, folder):
    _, hub = made
    lie = {"tokenizer.chat_template": encode("{{ 'obey' }}")}
    quantized.told(folder, lambda path: quantized.rewrite(path, lambda entries: entries.update(lie)))
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    hub.add_repo("herd/Liar", files)
    assert wrong(findings("herd/Liar")) == {("claims", "gguf headers")}


@pytest.mark.parametrize("change", [None, other_byte])
def test_a_sample_of_a_release_on_the_hub_is_derived_by_ranges(made, folder, change):
    _, hub = made
    if change:
        quantized.told(folder, change)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    repo = f"herd/{'Liar' if change else 'Honest'}-sampled"
    hub.add_repo(repo, files)
    found = [one for one in findings(repo, "recomputed", sample_bytes=10**6) if one.check == "gguf"]
    assert [one.outcome for one in found if one.subject.endswith("Q4_K_M.gguf")] == [Outcome.PASSED]
    (first,) = (one for one in found if one.subject.endswith("Q8_0.gguf"))
    assert "detection probability 1.0000" in found[-1].detail
    assert first.outcome is (Outcome.FAILED if change else Outcome.PASSED)
    assert not change or first.tensor in first.detail


def test_a_number_of_another_type_is_another_entry(folder):
    def change(entries):
        entries["llama.block_count"] = (
            GGUFValueType.INT32.to_bytes(4, "little") + entries["llama.block_count"][4:]
        )

    quantized.told(folder, lambda path: quantized.rewrite(path, change))
    assert wrong(findings(folder)) == {("claims", "gguf headers")}


def test_what_is_unproven_is_listed(made):
    from herdbook.release.finding import Options
    from herdbook.release.reader import Release
    from herdbook.release.subject import FolderSubject
    from herdbook.verify.facts import FACTS
    from herdbook.verify.levels import LEVELS
    from herdbook.verify.proofs import unproven

    release = Release(FolderSubject(made[0]))
    left = unproven(release, "claims", list(LEVELS), Options())
    assert any("how GGUF files split text" in each and "see level rebuild" in each for each in left)
    listed = [field for fact in FACTS if fact.file == GGUF for field in fact.fields]
    assert sorted(listed) == sorted(["tensors", *(row.key for row in ROWS)])


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_a_file_that_is_missing_says_nothing_else(folder, how):
    """Of who downloads one of the files, or gives it another name: one failure, and what could not be checked."""
    (gone,) = folder.glob("*.Q8_0.gguf")
    gone.rename(folder / "mine.gguf") if how == "renamed" else gone.unlink()
    found = findings(folder)
    failed = {(one.check, one.subject) for one in found if one.outcome is Outcome.FAILED}
    assert failed == {("sums", gone.name)} | ({("unlisted", "mine.gguf")} if how == "renamed" else set())
    unread = {(one.check, one.subject, one.detail) for one in found if one.outcome is Outcome.UNVERIFIED}
    detail = "could not be checked: the file is missing (see sums)"
    assert unread == {(check, gone.name, detail) for check in ("gguf headers", "results")}
    # the other one is checked as ever
    assert [one.subject for one in found if one.check == "gguf headers" and one.outcome is Outcome.PASSED]


def test_any_file_may_be_missing(made, tmp_path):
    """Each by itself: the checksums find it, and no other check fails, since nothing else is known to be wrong."""
    for path in sorted(made[0].rglob("*")):
        name = path.relative_to(made[0]).as_posix()
        if path.is_dir() or name in OUTSIDE_SUMS:
            continue
        copy = shutil.copytree(made[0], tmp_path / "copy", copy_function=os.link)
        (copy / name).unlink()
        found = findings(copy)
        failed = {(one.check, one.subject) for one in found if one.outcome is Outcome.FAILED}
        assert failed == {("sums", name)}, name
        assert not [one for one in found if "Error(" in one.detail], name
        shutil.rmtree(copy)
