"""Snapshots of leaderboards from elsewhere: fetched once, pinned by their digest, and kept."""

import hashlib
import http.server
import threading

import pytest
import yaml

from herdbook import plan as plans
from herdbook.errors import LockError, SourceError
from herdbook.steps.card.step import card_texts
from support import measured, tiny
from support.boards import BOARD

ROWS = "name,bpb\nfirst,0.7\nsecond,0.95\n"
OTHER_ROWS = "name,bpb\nfirst,0.7\n"


class Server(http.server.BaseHTTPRequestHandler):
    """A server of one file, which remembers what it was sent."""

    content, seen = ROWS.encode(), []

    def do_GET(self):
        self.seen.append(dict(self.headers))
        status = 200 if self.path == "/board.csv" else 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Server, "content", ROWS.encode())
    monkeypatch.setattr(Server, "seen", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def recipe(folder, fetch):
    tiny.write_model(folder / "base", seed=1)
    tiny.write_task(folder / "task.yaml")
    return tiny.write_recipe(
        folder / "r.yaml",
        {"base": {"folder": "base"}},
        evaluate={"tasks": ["task.yaml"], "models": ["base"]},
        leaderboards={"board": {**BOARD, "fetch": fetch}},
    )


def test_an_address_is_read_once_and_sees_no_token(tmp_path, server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    path = recipe(tmp_path, {"url": f"{server}/board.csv"})
    pinned = tiny.lock(path).leaderboards["board"]
    assert pinned.sha256 == hashlib.sha256(ROWS.encode()).hexdigest()
    assert (pinned.uri, pinned.revision) == (f"{server}/board.csv", None)
    assert (tmp_path / "board.csv").read_text() == ROWS
    assert len(Server.seen) == 1
    assert not any("secret" in value for value in Server.seen[0].values())
    Server.content = OTHER_ROWS.encode()  # it moves on
    assert tiny.lock(path).leaderboards["board"] == pinned
    assert len(Server.seen) == 1
    (tmp_path / "board.csv").unlink()
    assert tiny.lock(path).leaderboards["board"].sha256 == hashlib.sha256(OTHER_ROWS.encode()).hexdigest()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("gone.csv", "gone.csv: the server answered HTTP 404"),
        ("board.csv", "the answer has more than 10 bytes"),
    ],
)
def test_what_an_address_does_not_have_is_named(tmp_path, server, monkeypatch, place, message):
    monkeypatch.setattr("herdbook.limits.SNAPSHOT_BYTES", 10)
    with pytest.raises(SourceError, match=message):
        tiny.lock(recipe(tmp_path, {"url": f"{server}/{place}"}))
    assert not (tmp_path / "board.csv").exists()


@pytest.mark.parametrize("name", ["contents.csv", "data/contents.parquet"])  # small, and in LFS
def test_a_data_set_is_pinned_by_commit_and_digest(tmp_path, local_hub_client, name):
    commit = local_hub_client.add_repo("herd/board", {name: ROWS.encode()}, repo_type="dataset")
    path = recipe(tmp_path, {"dataset": "herd/board", "file": name})
    pinned = tiny.lock(path).leaderboards["board"]
    assert (pinned.uri, pinned.revision) == (f"hf://datasets/herd/board/{name}", commit)
    assert (tmp_path / "board.csv").read_text() == ROWS
    assert tiny.lock(path).leaderboards["board"] == pinned
    (tmp_path / "board.csv").write_text(OTHER_ROWS)
    with pytest.raises(SourceError, match=f"differs from {pinned.uri} at {commit}. Delete it to fetch"):
        tiny.lock(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "herd/none"}, "hub: datasets/herd/none: "),
        (
            {"dataset": "herd/board@gone"},
            "hub: datasets/herd/board@gone: the repository has no such revision",
        ),
        ({"file": "other.csv"}, "hub: datasets/herd/board@.*: has no file other.csv"),
    ],
)
def test_what_a_data_set_does_not_have_is_named(tmp_path, local_hub_client, changes, message):
    local_hub_client.add_repo("herd/board", {"contents.csv": ROWS.encode()}, repo_type="dataset")
    with pytest.raises(SourceError, match=message):
        tiny.lock(recipe(tmp_path, {"dataset": "herd/board", "file": "contents.csv", **changes}))


def test_a_snapshot_that_was_changed_after_the_lock_is_refused(tmp_path, server):
    path = recipe(tmp_path, {"url": f"{server}/board.csv"})
    plan = tiny.build(path, tmp_path / "results")
    [item] = plan.evaluations
    measured.write(plan, item, [0.75], stderr=None)
    assert "2nd of 3 on Board" in card_texts(plan)["README.md"]
    (tmp_path / "board.csv").write_text(OTHER_ROWS)
    with pytest.raises(LockError, match=r"leaderboards\.board: .* has changed since it was locked"):
        card_texts(plan)


def test_a_lock_of_another_origin_is_refused(tmp_path, server):
    path = recipe(tmp_path, {"url": f"{server}/board.csv"})
    tiny.lock(path)
    content = yaml.safe_load(path.read_text())
    content["leaderboards"]["board"]["fetch"]["url"] = f"{server}/other.csv"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(LockError, match="leaderboards.board"):
        plans.load(path, tmp_path / "results")
