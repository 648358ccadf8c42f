"""Data sets on the Hub: which files are pinned, and what is refused before anything is fetched."""

import json

import pytest

from herdbook.errors import Gathered, GoneError, SourceError
from herdbook.lock.data_set import pin_data_sets
from herdbook.lock.evaluation import LockedTask
from herdbook.sources.data_set import card_of, reading_of
from support import benchmarks

ROWS = [{"question": "w1", "answer": "w2"}]
CHOICE = {
    "dataset_path": "allenai/ai2_arc",
    "dataset_name": "ARC-Challenge",
    "test_split": "test",
    "output_type": "multiple_choice",
}


def pin(*configs):
    """Pin the data sets of tasks with these definitions."""
    tasks = {
        f"t{number}": LockedTask(
            name=f"t{number}", definitions={f"t{number}": {"task": f"t{number}", **config}}
        )
        for number, config in enumerate(configs)
    }
    return pinned(tasks)


def pinned(tasks):
    found = Gathered()
    locked = pin_data_sets(tasks, lambda _: None, found)
    found.end()
    return locked


def names(locked):
    return [file.name for file in locked.files]


def test_the_files_of_the_configurations_that_are_read_are_pinned(local_hub_client):
    commit = benchmarks.arc(local_hub_client)
    locked = pin(CHOICE)["allenai/ai2_arc"]
    assert (locked.revision, locked.branch, locked.gated) == (commit, "main", False)
    splits = ("test", "train", "validation")
    assert names(locked) == [
        *(f"ARC-Challenge/{split}-00000-of-00001.parquet" for split in splits),
        "README.md",
    ]
    stored = local_hub_client.repos["datasets/allenai/ai2_arc"].commits[commit].files
    assert all(stored[file.name].sha256 == file.sha256 for file in locked.files if file.sha256)
    both = pin(CHOICE, {**CHOICE, "dataset_name": "ARC-Easy"})["allenai/ai2_arc"]
    assert len(both.files) == 7


def test_a_revision_that_a_task_asks_for_is_pinned_by_itself(local_hub_client):
    first = benchmarks.arc(local_hub_client)
    last = local_hub_client.commit("datasets/allenai/ai2_arc", {"more.txt": b"more"})
    asked = {**CHOICE, "dataset_kwargs": {"revision": first}}
    locked = pin(CHOICE, asked)
    assert {key: one.revision for key, one in locked.items()} == {
        "allenai/ai2_arc": last,
        f"allenai/ai2_arc@{first}": first,
    }
    gone = {**CHOICE, "dataset_kwargs": {"revision": "0" * 40}}
    with pytest.raises(GoneError, match=r"datasets/allenai/ai2_arc@0+: the repository has no such revision"):
        pin(gone)


def test_a_script_is_not_run_but_its_conversion_is_read(local_hub_client):
    commit = benchmarks.scripted(local_hub_client, ROWS)
    locked = pin({"dataset_path": "herd/scripted", "dataset_name": "plain", "test_split": "test"})[
        "herd/scripted"
    ]
    assert (locked.revision, locked.branch) == (commit, "refs/convert/parquet")
    assert names(locked) == ["plain/test/0000.parquet"]
    with pytest.raises(SourceError, match="has no split 'train'"):
        pin({"dataset_path": "herd/scripted", "dataset_name": "plain", "training_split": "train"})
    local_hub_client.add_repo("herd/unconverted", {"unconverted.py": b""}, repo_type="dataset")
    with pytest.raises(GoneError, match="refs/convert/parquet: the repository has no such revision"):
        pin({"dataset_path": "herd/unconverted"})
    local_hub_client.add_repo("herd/long", {"long.py": b""}, repo_type="dataset")
    part = {"plain/partial-train/0000.parquet": benchmarks.parquet(ROWS)}
    local_hub_client.convert("datasets/herd/long", part)
    with pytest.raises(SourceError, match="converted only a part of plain/partial-train"):
        pin({"dataset_path": "herd/long", "dataset_name": "plain", "test_split": "train"})


def test_a_gated_data_set_is_pinned_and_its_token_is_not_recorded(local_hub_client, monkeypatch):
    said = benchmarks.card({"default": {"test": "test.parquet"}})
    files = {"test.parquet": benchmarks.parquet(ROWS), "README.md": said}
    local_hub_client.add_repo(benchmarks.GATED, files, repo_type="dataset", gated="auto")
    asked = {"dataset_path": benchmarks.GATED, "test_split": "test"}
    locked = pin(asked)[benchmarks.GATED]
    assert locked.gated == "auto"
    assert local_hub_client.token not in locked.model_dump_json()
    monkeypatch.setenv("HF_TOKEN", local_hub_client.stranger)
    local_hub_client.commit(f"datasets/{benchmarks.GATED}", {"README.md": said + b"more"})
    with pytest.raises(SourceError, match=f"Accept its terms on .*/datasets/{benchmarks.GATED}, log in"):
        pin(asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset_name": "ARC-Chalenge"},
            "has no configuration 'ARC-Chalenge'; did you mean 'ARC-Challenge'?",
        ),
        (
            {"dataset_name": None},
            r"has several configurations \(ARC-Challenge, ARC-Easy\), and the task names none",
        ),
        ({"test_split": "tests"}, "ARC-Challenge: has no split 'tests'; did you mean 'test'?"),
        ({"fewshot_config": {"split": "dev"}}, "ARC-Challenge: has no split 'dev'"),
        (
            {"dataset_kwargs": {"data_files": "*.zip"}},
            r"has no files in a supported format that match \*\.zip",
        ),
        ({"dataset_path": "allenai/ai3_arc"}, "datasets/allenai/ai3_arc: "),
    ],
)
def test_what_a_data_set_does_not_have_is_refused(local_hub_client, changes, message):
    benchmarks.arc(local_hub_client)
    with pytest.raises(SourceError, match=message.replace("?", r"\?")):
        pin({**CHOICE, **changes})


def test_a_split_that_the_card_says_is_empty_is_refused(local_hub_client):
    splits = [{"name": "test", "num_examples": 0}]
    said = benchmarks.card({"default": {"test": "t.parquet"}}, dataset_info={"splits": splits})
    local_hub_client.add_repo("herd/empty", {"t.parquet": b"", "README.md": said}, repo_type="dataset")
    with pytest.raises(
        SourceError, match="t0: .*default: its split 'test' is empty, so nothing can be measured"
    ):
        pin({"dataset_path": "herd/empty", "test_split": "test"})


def test_a_card_of_settings_elsewhere_is_refused(local_hub_client):
    local_hub_client.add_repo("herd/odd", {"t.parquet": b"", ".huggingface.yaml": b""}, repo_type="dataset")
    with pytest.raises(
        SourceError, match=r"\.huggingface\.yaml chooses the files that are read, which is not supported"
    ):
        pin({"dataset_path": "herd/odd"})


def test_a_damaged_card_is_refused(local_hub_client):
    files = {"t.parquet": b"", "README.md": b"---\nconfigs: [\n---\n"}
    local_hub_client.add_repo("herd/damaged", files, repo_type="dataset")
    with pytest.raises(
        SourceError, match=r"README\.md: its front matter: .*, so which files are read is not known"
    ):
        pin({"dataset_path": "herd/damaged"})


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ("a/*.parquet", {"a/x.parquet"}),
        (["a", "b/y.jsonl"], {"a/x.parquet", "a/deep/z.csv", "b/y.jsonl"}),
        ({"test": "**/*.csv"}, {"a/deep/z.csv"}),
        ([{"split": "test", "path": ["b/y.*"]}], {"b/y.jsonl"}),
    ],
)
def test_patterns_are_those_of_datasets(tmp_path, local_hub_client, patterns, found):
    """As `datasets` itself resolves them, but for whole folders, which are pinned rather once too often."""
    from datasets.data_files import DataFilesDict, sanitize_patterns

    files = {"a/x.parquet": b"1", "a/deep/z.csv": b"2", "b/y.jsonl": b"3", "c.py": b"4"}
    local_hub_client.add_repo("herd/files", files, repo_type="dataset")
    asked = {"dataset_path": "herd/files", "dataset_kwargs": {"data_files": patterns}}
    if isinstance(patterns, list) and isinstance(patterns[0], dict):
        said = json.dumps({"configs": [{"config_name": "default", "data_files": patterns}]}).encode()
        local_hub_client.commit("datasets/herd/files", {"README.md": b"---\n" + said + b"\n---\n"})
        asked = {"dataset_path": "herd/files"}
    assert set(names(pin(asked)["herd/files"])) - {"README.md"} == found
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    if patterns != ["a", "b/y.jsonl"]:
        theirs = DataFilesDict.from_patterns(sanitize_patterns(patterns), base_path=str(tmp_path))
        resolved = {str(file) for listed in theirs.values() for file in listed}
        assert resolved == {str(tmp_path / name) for name in found}


def test_a_copy_s_card_says_nothing_of_other_files():
    front = {
        "configs": [{"config_name": name, "data_files": f"{name}/*"} for name in ("a", "b")],
        "dataset_info": [{"config_name": name, "features": []} for name in ("a", "b")],
        "license": "mit",
    }
    reading = reading_of({"dataset_name": "b", "test_split": "test"})
    said = json.loads(card_of(reading, front, "here").decode().split("---")[1])
    assert said == {
        "configs": [{"config_name": "b", "data_files": "b/*", "default": True}],
        "dataset_info": [{"config_name": "b", "features": []}],
    }


def test_the_level_upstream_pins_data_sets_again(local_hub_client):
    from herdbook.lock.data_set import readings
    from herdbook.verify.upstream import _data_set

    benchmarks.arc(local_hub_client)
    tasks = {"t": LockedTask(name="t", definitions={"t": {"task": "t", **CHOICE}})}
    [(asked, read)] = readings(tasks).items()
    locked = pinned(tasks)[asked]
    fewer = locked.model_copy(update={"files": locked.files[1:]})
    other = locked.files[0].model_copy(update={"sha256": "0" * 64})
    gone = locked.model_copy(update={"revision": "0" * 40})
    local_hub_client.commit("datasets/allenai/ai2_arc", {"more.txt": b"more"})
    for claimed, outcomes in (
        (locked, ["passed"]),
        (fewer, ["failed"]),
        (locked.model_copy(update={"files": (other, *locked.files[1:])}), ["failed"]),
        (gone, ["failed"]),
    ):
        found = list(_data_set(asked, claimed, read))
        assert [finding.outcome.value for finding in found] == outcomes, found
