"""Every route, driven by the real client; and the README's examples."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    ModelCard,
    get_session,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pytest_local_hub import LocalHub, OnDisk, client

REPO = "keeper/daisy"
LARGE = bytes(range(256)) * 5000
FILES = {"config.json": b"{}", "model.safetensors": LARGE, "folder/a.txt": b"a", "folder/deep/b.txt": b"b"}


@pytest.fixture
def api(local_hub_client):
    return HfApi(endpoint=local_hub_client.url)


@pytest.fixture
def hub(local_hub_client):
    return local_hub_client


def test_readme(tmp_path):
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "test_readme.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=kept", "test_readme.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_a_repository_is_made_once_and_goes(hub, api):
    assert api.whoami()["name"] == "keeper"
    assert api.create_repo(REPO, private=True).repo_id == REPO
    assert hub.repos[REPO].private
    api.create_repo(REPO, exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(REPO)
    api.update_repo_settings(REPO, private=False, gated="auto")
    assert (hub.repos[REPO].private, hub.repos[REPO].gated) == (False, "auto")
    api.delete_repo(REPO)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(REPO)


def test_a_folder_goes_up_and_comes_down_and_is_not_sent_twice(hub, api, tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=tmp_path / "up")
    down = Path(api.snapshot_download(REPO, local_dir=tmp_path / "down"))
    assert {name: (down / name).read_bytes() for name in FILES} == FILES
    hub.forget()
    assert api.upload_folder(repo_id=REPO, folder_path=tmp_path / "up").oid == first.oid
    assert not [request for request in hub.requests if request.method == "PUT"]
    checked = api.verify_repo_checksums(REPO, local_dir=tmp_path / "down")
    assert (checked.checked_count, checked.mismatches) == (5, [])  # .gitattributes too
    (down / "config.json").write_bytes(b"[]")
    assert [one["path"] for one in api.verify_repo_checksums(REPO, local_dir=down).mismatches] == [
        "config.json"
    ]


def test_one_commit_adds_deletes_and_copies(hub, api):
    start = hub.add_repo(REPO, FILES)
    done = api.create_commit(
        REPO,
        [
            CommitOperationAdd("new.txt", b"new"),
            CommitOperationAdd("weights.bin", b"large by its name"),
            CommitOperationDelete("folder/", is_folder=True),
            CommitOperationCopy("model.safetensors", "copy.safetensors"),
        ],
        commit_message="all at once",
        parent_commit=start,
    )
    files = hub.repos[REPO].commits[done.oid].files
    assert set(files) == {"config.json", "model.safetensors", "copy.safetensors", "new.txt", "weights.bin"}
    assert files["weights.bin"].content == b"large by its name"
    assert [one.title for one in api.list_repo_commits(REPO)] == ["all at once", "initial commit"]


def test_a_commit_for_a_head_that_has_moved_is_refused_whole(hub, api):
    start = hub.add_repo(REPO, FILES)
    head = hub.commit(REPO, {"other.txt": b"other"})
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(
            REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="late", parent_commit=start
        )
    assert caught.value.response.status_code == 412
    assert hub.repos[REPO].branches["main"] == head


def test_of_many_who_commit_on_one_head_one_wins(hub, api):
    start = hub.add_repo(REPO, FILES)
    together = threading.Barrier(6)
    made, refused = [], []

    def commit(number):
        together.wait()
        try:
            operations = [CommitOperationAdd(f"{number}.txt", str(number).encode())]
            made.append(api.create_commit(REPO, operations, commit_message="m", parent_commit=start).oid)
        except HfHubHTTPError as error:
            refused.append(error.response.status_code)

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), refused) == (1, [412] * 5)
    assert hub.repos[REPO].branches["main"] == made[0]


def test_tags_and_branches(hub, api):
    start = hub.add_repo(REPO, FILES)
    api.create_tag(REPO, tag="v1")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="side")
    hub.commit(REPO, {"config.json": b"[]"})
    refs = api.list_repo_refs(REPO)
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", start)]
    assert {branch.name: branch.target_commit for branch in refs.branches}["side"] == start
    assert Path(api.hf_hub_download(REPO, "config.json", revision="v1")).read_bytes() == b"{}"
    api.delete_tag(REPO, tag="v1")
    api.delete_branch(REPO, branch="side")
    assert not api.revision_exists(REPO, "v1")
    assert not api.revision_exists(REPO, "side")


def test_a_squashed_branch_loses_its_commits_but_not_those_that_a_tag_holds(hub, api):
    first = hub.add_repo(REPO, FILES)
    hub.tag(REPO, "v1")
    second = hub.commit(REPO, {"config.json": b"[1]"})
    hub.commit(REPO, {"config.json": b"[2]"})
    api.super_squash_history(REPO)
    assert api.revision_exists(REPO, first)
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision=second)
    assert Path(api.hf_hub_download(REPO, "config.json")).read_bytes() == b"[2]"


def test_a_renamed_repository_is_found_by_its_old_name(hub, api):
    hub.add_repo(REPO, FILES)
    api.move_repo(REPO, "keeper/daisy-2")
    assert api.model_info(REPO).id == "keeper/daisy-2"
    assert Path(api.hf_hub_download(REPO, "model.safetensors")).read_bytes() == LARGE


def test_trees_in_pages(hub, api):
    hub.add_repo(REPO, FILES)
    hub.page_size = 2
    listed = {entry.path for entry in api.list_repo_tree(REPO, recursive=True)}
    assert listed == {*FILES, "folder", "folder/deep"}
    assert {entry.path for entry in api.list_repo_tree(REPO)} == {
        "config.json",
        "model.safetensors",
        "folder",
    }
    [info] = api.get_paths_info(REPO, ["model.safetensors", "absent"])
    assert (info.size, info.lfs.sha256) == (len(LARGE), hashlib.sha256(LARGE).hexdigest())
    assert f"{REPO}/config.json" in HfFileSystem(endpoint=hub.url).ls(REPO, detail=False)


def test_data_sets(hub, api):
    hub.add_repo("keeper/texts", {"data.jsonl": b"{}\n"}, repo_type="dataset")
    hub.add_repo("keeper/texts", FILES)
    assert [one.rfilename for one in api.dataset_info("keeper/texts").siblings] == ["data.jsonl"]
    api.upload_file(
        path_or_fileobj=LARGE, path_in_repo="more.bin", repo_id="keeper/texts", repo_type="dataset"
    )
    path = api.hf_hub_download("keeper/texts", "more.bin", repo_type="dataset")
    assert Path(path).read_bytes() == LARGE
    assert (
        "more.bin" not in hub.repos["keeper/texts"].commits[hub.repos["keeper/texts"].branches["main"]].files
    )


@pytest.mark.parametrize("token", [LocalHub.reader, LocalHub.stranger, None])
def test_who_may_not_write(hub, token):
    hub.add_repo(REPO, FILES)
    api = HfApi(endpoint=hub.url, token=token or False)
    with pytest.raises(HfHubHTTPError) as caught:
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=REPO)
    assert caught.value.response.status_code == (403 if token else 401)
    assert len(hub.repos[REPO].commits) == 1


def test_an_owner_that_is_not_ones_own(hub, api):
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("society/daisy")
    hub.orgs.add("society")
    api.create_repo("society/daisy")
    assert api.whoami()["orgs"] == [{"name": "society", "roleInOrg": "write"}]


def test_a_trusted_publisher(hub, monkeypatch, tmp_path):
    client.use(hub, tmp_path, monkeypatch)
    hub.add_repo(REPO, FILES, private=True)
    hub.add_repo("keeper/other", FILES)
    hub.publishers[REPO] = "the job's identity".__eq__
    monkeypatch.setenv("HF_OIDC_RESOURCE", REPO)
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", "somebody else's")
    api = HfApi(endpoint=hub.url)
    with pytest.raises(HfHubHTTPError, match="invalid_grant"):
        api.model_info(REPO)
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", "the job's identity")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=REPO)
    for refused in (
        lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="keeper/other"),
        lambda: api.create_repo("keeper/new"),
        api.whoami,
    ):
        with pytest.raises(HfHubHTTPError, match="403"):
            refused()
    hub.expire()
    with pytest.raises(HfHubHTTPError, match="401"):
        api.model_info(REPO)


def test_private_and_gated(hub, api):
    hub.add_repo("herd/secret", FILES, private=True)
    hub.add_repo("herd/gated", FILES, gated="manual")
    stranger = HfApi(endpoint=hub.url, token=hub.stranger)
    with pytest.raises(RepositoryNotFoundError):
        stranger.model_info("herd/secret")
    assert stranger.model_info("herd/gated").gated == "manual"
    with pytest.raises(GatedRepoError):
        stranger.hf_hub_download("herd/gated", "config.json")
    reader = HfApi(endpoint=hub.url, token=hub.reader)
    assert Path(reader.hf_hub_download("herd/gated", "config.json")).read_bytes() == b"{}"
    assert reader.model_info("herd/secret").private


def test_front_matter_is_checked(hub):
    ModelCard("---\nlicense: mit\n---\n").validate()
    with pytest.raises(ValueError, match="base_model_relation"):
        ModelCard("---\nbase_model_relation: frankenmoe\n---\n").validate()


def test_ranges_of_a_file_of_holes(hub, tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.write(b"begin")
    hub.add_repo(REPO, {"model.safetensors": OnDisk(path, "0" * 64)})
    url = f"{hub.url}/{REPO}/resolve/main/model.safetensors"
    answer = get_session().get(url, headers={"Range": "bytes=3-9"}, follow_redirects=True)
    assert (answer.status_code, answer.content) == (206, b"in" + bytes(5))
    assert answer.headers["Content-Range"] == f"bytes 3-9/{1 << 40}"
    assert (
        get_session().get(url, headers={"Range": f"bytes={1 << 40}-"}, follow_redirects=True).status_code
        == 416
    )


def test_an_object_that_was_never_sent_cannot_be_committed(hub, api):
    hub.add_repo(REPO, FILES)
    line = '{"key":"header","value":{"summary":"s"}}\n{"key":"lfsFile","value":{"path":"x.bin","oid":"%s"}}'
    answer = get_session().post(
        f"{hub.url}/api/models/{REPO}/commit/main",
        content=line % ("1" * 64),
        headers={"Authorization": f"Bearer {hub.token}"},
    )
    assert answer.status_code == 400
    assert len(hub.repos[REPO].commits) == 1


def test_an_upload_with_another_digest_is_refused(hub):
    answer = get_session().put(f"{hub.url}/upload/{'1' * 64}?size=1", content=b"x")
    assert answer.status_code == 400
    assert not hub.lfs


@pytest.mark.parametrize("status", [401, 403, 404, 412, 500, 503])
def test_statuses_on_demand(hub, api, status):
    hub.add_repo(REPO, FILES)
    hub.fault("POST", "/commit/", status)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="m")
    assert caught.value.response.status_code == status
    assert len(hub.repos[REPO].commits) == 1


@pytest.mark.parametrize(("kind", "late"), [(500, True), ("lost", False)])
def test_a_commit_whose_answer_is_lost_is_made(hub, api, kind, late):
    hub.add_repo(REPO, FILES)
    hub.fault("POST", "/commit/", kind, late=late)
    with pytest.raises(Exception, match="500|disconnected"):
        api.create_commit(REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="m")
    assert len(hub.repos[REPO].commits) == 2


def test_an_upload_that_is_cut_can_be_sent_again(hub, api, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits between its tries
    hub.add_repo(REPO, FILES)
    hub.fault("PUT", "/upload/", "cut upload", times=20)
    with pytest.raises(RuntimeError):
        api.upload_file(path_or_fileobj=LARGE * 2, path_in_repo="more.bin", repo_id=REPO)
    assert hashlib.sha256(LARGE * 2).hexdigest() not in hub.lfs
    hub.faults.clear()
    api.upload_file(path_or_fileobj=LARGE * 2, path_in_repo="more.bin", repo_id=REPO)
    assert Path(api.hf_hub_download(REPO, "more.bin")).read_bytes() == LARGE * 2


def test_an_answer_without_an_end_ends_with_the_hub(tmp_path):
    with LocalHub() as hub:
        hub.add_repo(REPO, FILES)
        hub.fault("GET", "/lfs/", "endless")
        url = f"{hub.url}/{REPO}/resolve/main/model.safetensors"
        came = 0
        with get_session().stream("GET", url, follow_redirects=True) as answer:
            for piece in answer.iter_raw():
                came += len(piece)
                if came > len(LARGE) // 2 + 2:
                    break
    assert came < len(LARGE) // 2 + 100


def asked(hub):
    return get_session().get(f"{hub.url}/{REPO}/resolve/main/config.json", headers={"Range": "bytes=0-0"})


def test_wrong_answers_on_demand(hub):
    hub.add_repo(REPO, FILES)
    hub.fault("GET", "/resolve/", "long")
    hub.fault("GET", "/resolve/", "header", headers={"Content-Range": "daisies", "ETag": None})
    hub.fault("GET", "/resolve/", "garbage")
    assert asked(hub).content == b"{and more"
    answer = asked(hub)
    assert (answer.content, answer.headers["Content-Range"]) == (b"{", "daisies")
    assert "ETag" not in answer.headers
    with pytest.raises(Exception, match="illegal status line"):
        asked(hub)
    assert asked(hub).headers["Content-Range"] == "bytes 0-0/2"


def test_a_missing_file(hub, api):
    hub.add_repo(REPO, FILES)
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO, "absent.json")


@pytest.fixture
def serve(tmp_path):
    """Start a server of a folder in a process of its own, which is gone after the test whatever happens."""
    (tmp_path / "herd/daisy").mkdir(parents=True)
    (tmp_path / "herd/daisy/config.json").write_bytes(b"{}")
    started = []

    def start(*before):
        command = [*before, sys.executable, "-m", "pytest_local_hub", str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline().startswith("herd/daisy ")
        return process, process.stdout.readline()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_folders_are_served_to_other_processes(serve, tmp_path):
    _, line = serve()
    variables = dict(item.split("=", 1) for item in line.split()[1:])
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    script = "from huggingface_hub import HfApi; print(open(HfApi().hf_hub_download('herd/daisy', 'config.json')).read())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**mine, **variables, "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "{}\n"


IGNORING = ("sh", "-c", "trap '' INT TERM; exec \"$@\"", "sh")


@pytest.mark.parametrize("before", [(), IGNORING], ids=["", "started with signals ignored"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_server_ends_well_when_it_is_told_to(serve, before, number):
    process, _ = serve(*before)
    process.send_signal(number)
    assert process.wait() == 0
    assert process.stdout.read() == "stopped\n"


def test_the_environment_has_nothing_of_the_person_who_tests(monkeypatch, hub, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_somebodys")
    found = client.environment(hub, tmp_path)
    assert "HF_TOKEN" not in found
    assert found["HF_ENDPOINT"] == hub.url


def test_a_conversion_of_a_data_set_is_at_its_own_revision(hub, api):
    hub.add_repo("herd/data", {"data.py": b""}, repo_type="dataset")
    oid = hub.convert("datasets/herd/data", {"plain/test/0000.parquet": b"PAR1"})
    [converted] = api.list_repo_refs("herd/data", repo_type="dataset").converts
    assert (converted.ref, converted.target_commit) == ("refs/convert/parquet", oid)
    info = api.dataset_info("herd/data", revision="refs/convert/parquet")
    assert (info.sha, [file.rfilename for file in info.siblings]) == (oid, ["plain/test/0000.parquet"])
    assert api.dataset_info("herd/data").sha != oid
    path = api.hf_hub_download(
        "herd/data", "plain/test/0000.parquet", repo_type="dataset", revision="refs/convert/parquet"
    )
    assert Path(path).read_bytes() == b"PAR1"
