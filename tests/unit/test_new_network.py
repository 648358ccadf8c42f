"""``herdbook new --from owner/name`` over a network that fails: one message, and nothing is left behind."""

import pytest
from huggingface_hub import constants
from pytest_local_hub import LocalHub, client

from herdbook.cli.main import main
from herdbook.hub import transport
from support import tiny

REPO = "herd/merge"
CONFIG = """
merge_method: linear
dtype: float32
models:
  - {model: herd/a, parameters: {weight: 0.5}}
  - {model: herd/b, parameters: {weight: 0.5}}
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The files of two models, by their repositories."""
    found = {}
    for seed, name in enumerate("ab"):
        folder = tmp_path_factory.mktemp(name)
        tiny.write_model(folder, seed=seed)
        found[f"herd/{name}"] = {path.name: path.read_bytes() for path in folder.iterdir()}
        found[f"herd/{name}"]["README.md"] = b"---\nlicense: apache-2.0\n---\n"
    return found


@pytest.fixture
def hub(tmp_path, monkeypatch, models):
    with LocalHub() as served:
        client.use(served, tmp_path / "home", monkeypatch)
        monkeypatch.setattr("time.sleep", lambda _: None)
        monkeypatch.chdir(tmp_path)
        served.add_repo(REPO, {"mergekit_config.yml": CONFIG.encode(), "README.md": b"# Merge\n"})
        for name, files in models.items():
            served.add_repo(name, files)
        yield served


def new(capsys):
    status = main(["new", "here", "--from", REPO])
    return status, capsys.readouterr().err


FAULTS = [
    ("^/api/models/herd/merge", 404, "has no such repository, or it is private"),
    ("^/api/models/herd/merge", 401, "has no such repository, or it is private"),
    ("^/api/models/herd/merge", 403, "access denied (HTTP 403)"),
    ("^/api/models/herd/merge", 503, "failed several times (HTTP 503)"),
    ("^/api/models/herd/merge", "drop", "sent no complete response"),
    ("^/api/models/herd/merge", "endless", "did not finish in time"),
    ("mergekit_config", 404, "has no such repository"),
    ("mergekit_config", 503, "failed several times (HTTP 503)"),
    ("mergekit_config", "corrupt", "The Hub serves other bytes than it describes"),
]


def check_nothing_is_left(tmp_path, said, message):
    lines = [line for line in said.splitlines() if line.startswith("herdbook new:")]
    assert len(lines) == 1, said
    assert message in lines[0]
    assert "Traceback" not in said
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(("path", "kind", "message"), FAULTS)
def test_a_failing_answer_leaves_nothing(hub, tmp_path, capsys, monkeypatch, path, kind, message):
    monkeypatch.setattr(transport, "ANSWER_S", 0.5)
    hub.fault("*", path, kind, times=100)
    status, said = new(capsys)
    assert status == (5 if kind == "corrupt" else 4)
    check_nothing_is_left(tmp_path, said, message)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://hub.invalid"])
def test_a_hub_that_is_not_reached_leaves_nothing(hub, tmp_path, capsys, monkeypatch, address):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    status, said = new(capsys)
    assert status == 4
    check_nothing_is_left(tmp_path, said, f"{address} sent no complete response")


def test_a_network_that_fails_after_the_recipe_was_made_is_not_the_recipe_s_fault(
    hub, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("herdbook.cli.lock.check", lambda _: [])  # other programs load the models
    hub.fault("*", "^/api/models/herd/b", 503, times=100)
    status, said = new(capsys)
    assert status == 4
    check_nothing_is_left(tmp_path, said, "failed several times (HTTP 503)")
    hub.faults.clear()
    status, said = new(capsys)
    assert status == 0, said
    assert (tmp_path / "here/recipes/merge.lock.json").exists()


def test_what_was_in_the_folder_before_stays(hub, tmp_path, capsys):
    (tmp_path / "here/.git").mkdir(parents=True)
    hub.fault("*", "^/api/models/herd/b", 503, times=100)
    status, said = new(capsys)
    assert status == 4
    assert "Nothing was written to here." in said
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".git"]


def test_a_model_that_does_not_exist_leaves_the_recipe_to_be_changed(hub, tmp_path, capsys):
    del hub.repos["herd/b"]
    status, said = new(capsys)
    assert status == 4
    assert "here: was made, but recipes/" in said
    assert "has no such repository" in said
    assert list((tmp_path / "here/recipes").glob("*.yaml"))
