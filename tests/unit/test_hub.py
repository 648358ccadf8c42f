"""The Hub's reader, against a local Hub over real HTTP with the real client."""

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from pytest_local_hub import LocalHub, client

from herdbook import hub as reader
from herdbook.errors import DigestMismatchError, SourceError, UnreachableError, WrongAnswerError
from herdbook.files import git_blob_id
from herdbook.hub import RemoteFile, repository, transport
from herdbook.weights.checkpoint import FIRST_BYTES

REPO = "herd/daisy"
CONFIG = b'{"architectures": ["MistralForCausalLM"]}'
INDEX = "model.safetensors.index.json"


def safetensors(tensors):
    """A safetensors file made by hand: by name, dtype, shape and size in bytes."""
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    return raw_safetensors(
        json.dumps(header).encode(), (bytes(range(251)) * (position // 251 + 1))[:position]
    )


def raw_safetensors(header, data=b""):
    return len(header).to_bytes(8, "little") + header + data


WEIGHTS = safetensors({"a": ("BF16", [256, 1024], 524288), "b": ("F32", [3], 12), "c": ("F16", [], 2)})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with LocalHub() as served:
        client.use(served, tmp_path / "home", monkeypatch)
        served.add_repo(
            REPO,
            {"config.json": CONFIG, "model.safetensors": WEIGHTS, "README.md": b"# Daisy\n"},
        )
        yield served


@pytest.fixture
def waits(monkeypatch):
    """How long was waited between tries, in seconds, without waiting."""
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


def pinned(name, repo=REPO):
    remote = reader.resolve(repo, None)
    return remote.commit, next(file for file in remote.files if file.name == name)


def fetch(name, repo=REPO):
    commit, file = pinned(name, repo)
    return reader.download(repo, commit, file)


def content_requests(hub):
    return [
        request for request in hub.requests if request.method == "GET" and request.path.startswith("/lfs/")
    ]


def blobs(hub):
    return sorted(path.name for path in Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*"))


# --- resolve ---------------------------------------------------------------------------------------------------------


def test_resolve_says_what_the_hub_knows(hub):
    remote = reader.resolve(REPO, None)
    by_name = {file.name: file for file in remote.files}
    assert remote.repo == REPO
    assert remote.commit == hub.repos[REPO].branches["main"]
    assert [file.name for file in remote.files] == ["README.md", "config.json", "model.safetensors"]
    assert by_name["config.json"] == RemoteFile("config.json", len(CONFIG), None, git_blob_id(CONFIG))
    weights = by_name["model.safetensors"]
    assert (weights.size_bytes, weights.git_blob) == (len(WEIGHTS), None)
    assert weights.sha256 in hub.lfs
    assert remote.gated is False
    assert len(hub.requests) == 1


def test_resolve_of_a_branch_a_tag_and_a_commit(hub):
    first = hub.repos[REPO].branches["main"]
    hub.tag(REPO, "v1.0")
    second = hub.commit(REPO, {"config.json": b"{}"})
    third = hub.commit(REPO, {"new.json": b"[]", "README.md": None}, branch="feature/oats")
    assert len({first, second, third}) == 3
    for revision, commit in [
        (None, second), ("main", second), ("v1.0", first), (first, first), ("feature/oats", third),
        ("refs/heads/feature/oats", third),
    ]:  # fmt: skip
        assert reader.resolve(REPO, revision).commit == commit, revision
    assert [file.name for file in reader.resolve(REPO, third).files] == [
        "config.json",
        "model.safetensors",
        "new.json",
    ]
    assert reader.resolve(REPO, first).files != reader.resolve(REPO, second).files


@pytest.mark.parametrize(
    "name", ["../escape.json", "a/../../escape.json", "/etc/passwd.json", "a\\b.json", "C:/x.json", "a//b.json",
             "./a.json", "a\nb.json", "\x1b[31m.json"],
)  # fmt: skip
def test_names_that_lead_out_of_the_folder_are_refused(hub, name):
    hub.add_repo("herd/thief", {name: b"{}", "config.json": CONFIG})
    with pytest.raises(SourceError, match="leads out of its folder") as caught:
        reader.resolve("herd/thief", None)
    assert "herd/thief" in str(caught.value)
    commit = hub.repos["herd/thief"].branches["main"]
    hub.forget()
    with pytest.raises(SourceError, match="leads out of its folder"):
        reader.download("herd/thief", commit, RemoteFile(name, 2, None, "0" * 40))
    with pytest.raises(SourceError, match="leads out of its folder"):
        reader.tensor_headers("herd/thief", commit, name)
    with pytest.raises(SourceError, match="leads out of its folder"):
        reader.weights_of([RemoteFile(name, 2, None, "0" * 40)])
    assert hub.requests == []


def test_odd_names_that_stay_inside_are_let_be(hub):
    odd = "images/Screen shot at 5.00\u202fPM.png"
    hub.commit(REPO, {odd: b"png", "..hidden/...json": b"{}"})
    assert {odd, "..hidden/...json"} <= {file.name for file in reader.resolve(REPO, None).files}


def test_a_hub_that_contradicts_itself_is_not_believed(hub, monkeypatch):
    commit = hub.repos[REPO].branches["main"]
    other = hub.commit(REPO, {"config.json": b"{}"})
    read = repository.read_whole

    def answer(**changes):
        monkeypatch.setattr(
            repository, "read_whole", lambda url: json.dumps({**json.loads(read(url)), **changes})
        )

    answer(sha=other)
    with pytest.raises(WrongAnswerError, match=f"another commit, {other}"):
        reader.resolve(REPO, commit)
    answer(sha="main")
    with pytest.raises(WrongAnswerError, match="'main' as its commit"):
        reader.resolve(REPO, None)
    answer(siblings=[{"rfilename": "x.json", "size": 1}])
    with pytest.raises(WrongAnswerError, match=r"no valid size and digest of x\.json"):
        reader.resolve(REPO, None)


def test_an_answer_that_is_no_hubs(hub, monkeypatch, waits):
    monkeypatch.setattr(
        "pytest_local_hub.reading._sibling", lambda _: {"size": 1, "blobId": "0" * 40, "lfs": {"surprise": 1}}
    )
    with pytest.raises(SourceError, match="unexpected response: the response does not describe a repository"):
        reader.resolve(REPO, None)


# --- tensor_headers --------------------------------------------------------------------------------------------------


def test_headers_are_read_without_the_weights(hub):
    commit, _ = pinned("model.safetensors")
    hub.forget()
    headers = reader.tensor_headers(REPO, commit, "model.safetensors")
    start = 8 + int.from_bytes(WEIGHTS[:8], "little")
    assert list(headers) == ["a", "b", "c"]
    assert headers["a"] == reader.TensorHeader("a", "BF16", (256, 1024), start, start + 524288)
    assert headers["c"] == reader.TensorHeader("c", "F16", (), start + 524300, start + 524302)
    assert [request.method for request in hub.requests] == ["GET", "GET"]  # the redirect, and one range
    assert content_requests(hub)[0].status == 206
    assert sum(request.bytes_sent for request in hub.requests) < 140_000 < len(WEIGHTS)
    assert not Path(constants.HF_HUB_CACHE).exists()


def test_a_long_header_takes_a_second_range(hub):
    many = safetensors({f"layer.{i:05}.weight": ("F32", [16], 64) for i in range(5000)})
    commit = hub.commit(REPO, {"many.safetensors": many})
    length = int.from_bytes(many[:8], "little")
    assert length > FIRST_BYTES
    assert len(reader.tensor_headers(REPO, commit, "many.safetensors")) == 5000
    ranges = [request.range for request in content_requests(hub)]
    assert ranges == [f"bytes=0-{FIRST_BYTES - 1}", f"bytes={FIRST_BYTES}-{8 + length - 1}"]
    assert sum(request.bytes_sent for request in content_requests(hub)) == 8 + length


def test_a_server_without_ranges_is_not_read_to_the_end(hub):
    big = safetensors({"a": ("U8", [40_000_000], 40_000_000)})
    commit = hub.commit(REPO, {"big.safetensors": big})
    hub.fault("GET", "^/lfs/", "whole")
    assert reader.tensor_headers(REPO, commit, "big.safetensors")["a"].shape == (40_000_000,)
    assert content_requests(hub)[0].bytes_sent < 20_000_000  # what fits into the sockets' buffers


def test_a_long_header_from_a_server_without_ranges(hub):
    many = safetensors({f"layer.{i:05}.weight": ("F32", [16], 64) for i in range(5000)})
    commit = hub.commit(REPO, {"many.safetensors": many})
    expected = reader.tensor_headers(REPO, commit, "many.safetensors")
    hub.fault("GET", "^/lfs/", "whole", times=2)
    assert reader.tensor_headers(REPO, commit, "many.safetensors") == expected


def headers(**changes):
    return {"kind": "header", "headers": {name.replace("_", "-"): value for name, value in changes.items()}}


WRONG = {
    "less than was requested": ({"kind": "short"}, "bytes 10 to 99 were requested, but 45 bytes arrived"),
    "more than was requested": ({"kind": "long"}, "bytes 10 to 99 were requested, but 91 bytes arrived|98 bytes arrived"),
    "another range": (headers(Content_Range="bytes 5-9/10"), "the answer has 'bytes 5-9/10'"),
    "a range of another length": (headers(Content_Range=f"bytes 10-98/{len(WEIGHTS)}"), "the answer has 'bytes 10-98"),
    "a range without a size": (headers(Content_Range="bytes 10-99/*"), "the answer has '\\*' as the file's size"),
    "a range of garbage": (headers(Content_Range="daisies"), "the answer has 'daisies' as the file's size"),
    "a size without an end": (headers(Content_Range=f"bytes 10-99/{'9' * 5000}"), "the answer has '999"),
    "no range": (headers(Content_Range=None), "the answer has '' as the file's size"),
    "a length of garbage": (headers(Content_Length="daisies"), "is not HTTP"),
    "no HTTP": ({"kind": "garbage"}, "is not HTTP"),
    "nothing, and garbage for a size": (
        {"kind": 416, "headers": {"Content-Range": "bytes */daisies"}},
        "the answer has 'daisies' as the file's size",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_no_missing_answer(hub, waits, fault, message):
    commit, _ = pinned("model.safetensors")

    def read():
        return reader.read_file(REPO, commit, "model.safetensors", 10, 100)

    hub.fault("GET", "^/lfs/", times=len(reader.WAITS_S) + 1, **fault)
    with pytest.raises(WrongAnswerError, match=message):
        read()
    assert waits == list(reader.WAITS_S)
    assert read() == (WEIGHTS[10:100], len(WEIGHTS))
    hub.fault("GET", "^/lfs/", **fault)  # once may be an accident on the way
    assert read() == (WEIGHTS[10:100], len(WEIGHTS))


@pytest.mark.parametrize("kind", ["cut", "reset", "drop", 503, 429])
def test_a_missing_answer_is_no_wrong_answer(hub, waits, kind):
    commit, _ = pinned("model.safetensors")
    hub.fault("GET", "^/lfs/", kind, times=100)
    with pytest.raises(SourceError) as caught:
        reader.read_file(REPO, commit, "model.safetensors", 10, 100)
    assert type(caught.value) is UnreachableError


@pytest.mark.parametrize("last", ["drop", "cut", 503, 403])
def test_a_wrong_answer_is_not_undone_by_silence(hub, waits, last):
    commit, _ = pinned("model.safetensors")
    hub.fault("GET", "^/lfs/", "long")
    hub.fault("GET", "^/lfs/", last, times=100)
    with pytest.raises(WrongAnswerError, match="bytes arrived"):
        reader.read_file(REPO, commit, "model.safetensors", 10, 100)


def test_an_answer_that_never_ends_is_a_missing_answer(hub, waits, monkeypatch):
    commit, _ = pinned("model.safetensors")
    monkeypatch.setattr(transport, "ANSWER_S", 0.5)
    hub.fault("GET", "^/lfs/", "endless")
    with pytest.raises(SourceError, match="did not finish") as caught:
        reader.read_file(REPO, commit, "model.safetensors", 10, 100)
    assert type(caught.value) is SourceError


def test_ranges_one_after_the_other_share_a_connection(hub, monkeypatch):
    commit, _ = pinned("model.safetensors")
    opened = []
    monkeypatch.setattr(
        "pytest_local_hub.server.Server.opened", lambda _, connection: opened.append(connection)
    )
    for start in range(5):
        reader.read_file(REPO, commit, "model.safetensors", start, start + 10)
    assert len(opened) <= 2  # one for each of the two host names


def test_small_files_that_are_not_in_lfs_have_headers_too(hub):
    commit = hub.commit(REPO, {"plain.json": safetensors({"x": ("F32", [1], 4)})})
    assert list(reader.tensor_headers(REPO, commit, "plain.json")) == ["x"]


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"x": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too few for a header"),
        (b"short", "too few for a header"),
        ((10**12).to_bytes(8, "little") + b"{}" * 100, "its header claims 1000000000000 bytes"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "its header claims 18446744073709551615 bytes"),
        ((30_000_000).to_bytes(8, "little") + b"{}" * 100, "truncated inside its header"),
        (raw_safetensors(b"not json"), "damaged"),
        (raw_safetensors(b"\xff\xfe"), "damaged"),
        (raw_safetensors(b"[]"), "damaged"),
        (raw_safetensors(b'{"x": 1}'), "damaged"),
        (raw_safetensors(b"[" * 100_000), "damaged"),
        (raw_safetensors(json.dumps(entry(dtype=["F32"])).encode(), b"1234"), "damaged"),
        (raw_safetensors(json.dumps(entry(dtype="F31")).encode(), b"1234"), "tensor x: dtype F31"),
        (raw_safetensors(json.dumps(entry(shape=[-1])).encode(), b"1234"), "tensor x: shape"),
        (raw_safetensors(json.dumps(entry(shape=[True])).encode(), b"1234"), "damaged at tensor x"),
        (raw_safetensors(json.dumps(entry(offsets=[0.0, 4.0])).encode(), b"1234"), "damaged at tensor x"),
        (raw_safetensors(json.dumps(entry(shape=[2])).encode(), b"1234"), "tensor x: its byte range"),
        (
            raw_safetensors(json.dumps(entry(offsets=[4, 8])).encode(), b"12345678"),
            "tensor x: its byte range",
        ),
        (raw_safetensors(json.dumps(entry()).encode(), b"12"), "is truncated"),
        (raw_safetensors(json.dumps(entry()).encode(), b"12345678"), "bytes after its last tensor"),
    ],
)
def test_hostile_headers_are_refused(hub, waits, content, message):
    commit = hub.commit(REPO, {"bad.safetensors": content})
    with pytest.raises(WrongAnswerError, match=message) as caught:
        reader.tensor_headers(REPO, commit, "bad.safetensors")
    assert f"hub: {REPO}@{commit}: bad.safetensors" in str(caught.value)
    assert len(content_requests(hub)) == 1  # a claim of a huge header asks for nothing more
    assert waits == []


@pytest.mark.parametrize("kind", ["cut", "reset", "drop", "short", 500, 503])
def test_headers_survive_a_bad_moment(hub, waits, kind):
    commit, _ = pinned("model.safetensors")
    hub.fault("GET", "^/lfs/", kind)
    assert len(reader.tensor_headers(REPO, commit, "model.safetensors")) == 3
    assert waits == [reader.WAITS_S[0]]


# --- download --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "content"), [("config.json", CONFIG), ("model.safetensors", WEIGHTS)])
def test_a_second_download_makes_no_request(hub, name, content):
    commit, file = pinned(name)
    first = reader.download(REPO, commit, file)
    assert first.read_bytes() == content
    assert first.is_relative_to(constants.HF_HUB_CACHE)
    asked = len(hub.requests)
    assert reader.download(REPO, commit, file) == first
    assert len(hub.requests) == asked


def test_what_another_program_downloaded_is_used(hub):
    commit, file = pinned("model.safetensors")
    theirs = HfApi(endpoint=hub.url).hf_hub_download(REPO, file.name, revision=commit)
    hub.forget()
    assert str(reader.download(REPO, commit, file)) == theirs
    assert hub.requests == []


def test_the_same_content_at_another_commit_is_not_downloaded_again(hub):
    fetch("model.safetensors")
    hub.commit(REPO, {"config.json": b"{}"})
    fetch("model.safetensors")
    assert len(content_requests(hub)) == 1


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_corrupted_bytes_of_the_same_size_are_found_and_removed(hub, name):
    commit, file = pinned(name)
    hub.fault("GET", "^/lfs/" if file.sha256 else "/resolve/", "corrupt")
    with pytest.raises(DigestMismatchError) as caught:
        reader.download(REPO, commit, file)
    text, error = str(caught.value), caught.value
    assert f"hub: {REPO}@{commit}: {name}" in text
    assert error.expected == (file.sha256 or file.git_blob)
    assert error.found != error.expected
    assert error.expected in text
    assert error.found in text
    assert "has been removed from the cache" in text
    assert f"hf cache rm hf://models/{REPO}/{name}" in text
    assert blobs(hub) == []
    again = reader.download(REPO, commit, file)
    assert again.read_bytes() == {"config.json": CONFIG, "model.safetensors": WEIGHTS}[name]


def test_a_copy_that_was_damaged_on_this_disk_is_found_and_removed(hub):
    commit, file = pinned("model.safetensors")
    path = reader.download(REPO, commit, file)
    content = bytearray(WEIGHTS)
    content[-1] ^= 1
    path.resolve().write_bytes(content)
    with pytest.raises(DigestMismatchError, match="has been removed"):
        reader.download(REPO, commit, file)
    assert not path.is_symlink()
    assert reader.download(REPO, commit, file).read_bytes() == WEIGHTS


def test_a_shared_payload_that_was_damaged_is_removed_too(hub):
    commit, file = pinned("model.safetensors")
    path = reader.download(REPO, commit, file)
    blob = path.resolve()
    shared = Path(constants.HF_HUB_CACHE) / "blobs" / "ab" / "shared"  # as the client lays out Xet files
    shared.parent.mkdir(parents=True)
    shared.write_bytes(WEIGHTS[:-1] + b"!")
    blob.unlink()
    blob.symlink_to(shared)
    with pytest.raises(DigestMismatchError, match="has been removed"):
        reader.download(REPO, commit, file)
    assert not shared.exists()
    assert not blob.is_symlink()
    assert reader.download(REPO, commit, file).read_bytes() == WEIGHTS


def test_an_intact_file_that_is_not_the_pinned_one_stays(hub):
    commit, file = pinned("model.safetensors")
    path = reader.download(REPO, commit, file)
    with pytest.raises(DigestMismatchError, match="another file than the pinned one") as caught:
        reader.download(REPO, commit, dataclasses.replace(file, sha256="0" * 64))
    assert "removed" not in str(caught.value)
    assert path.read_bytes() == WEIGHTS
    commit, file = pinned("config.json")
    path = reader.download(REPO, commit, file)
    with pytest.raises(DigestMismatchError, match="another file than the pinned one"):
        reader.download(REPO, commit, dataclasses.replace(file, git_blob="0" * 40))
    assert path.read_bytes() == CONFIG


def test_a_damaged_copy_outside_the_usual_layout_is_left_to_the_person(hub, tmp_path):
    commit, file = pinned("model.safetensors")
    path = reader.download(REPO, commit, file)
    elsewhere = tmp_path / "elsewhere" / str(file.sha256)
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"another's")
    path.unlink()
    path.symlink_to(elsewhere)
    with pytest.raises(DigestMismatchError, match="Remove it with `hf cache rm") as caught:
        reader.download(REPO, commit, file)
    assert str(path) in str(caught.value)
    assert elsewhere.read_bytes() == b"another's"


def test_the_command_in_the_message_removes_the_copy(hub):
    path = fetch("model.safetensors")
    subprocess.run(
        [Path(sys.executable).with_name("hf"), "cache", "rm", "--yes", f"hf://models/{REPO}/model.safetensors"],
        env=client.environment(hub, Path(constants.HF_HOME)), check=True, capture_output=True,
    )  # fmt: skip
    assert not path.exists()


@pytest.mark.parametrize("times", [1, 3])
def test_a_cut_connection_is_resumed_where_it_was_cut(hub, waits, times):
    large = safetensors(
        {"a": ("U8", [25_000_000], 25_000_000)}
    )  # the client writes, and so keeps, pieces of 10 MB
    hub.commit(REPO, {"model.safetensors": large})
    hub.fault("GET", "^/lfs/", "cut", times)
    assert fetch("model.safetensors").read_bytes() == large
    asked = content_requests(hub)
    assert len(asked) == times + 1
    assert asked[0].range is None
    assert {request.range for request in asked[1:]} == {f"bytes={constants.DOWNLOAD_CHUNK_SIZE}-"}


@pytest.mark.parametrize("kind", ["reset", "drop", "short", 500, 502, 503, 504])
def test_other_bad_moments_are_outlasted(hub, waits, kind):
    hub.fault("GET", "^/lfs/", kind)
    assert fetch("model.safetensors").read_bytes() == WEIGHTS
    assert len(content_requests(hub)) == 2


@pytest.mark.parametrize("kind", ["reset", "short", 503])
def test_a_bad_day_ends_in_one_clear_error(hub, waits, kind):
    commit, file = pinned("model.safetensors")
    hub.fault("GET", "^/lfs/", kind, times=100)
    with pytest.raises(
        SourceError, match=r"the Hub failed several times|sent no complete response|Consistency check failed"
    ) as caught:
        reader.download(REPO, commit, file)
    assert type(caught.value) is (WrongAnswerError if kind == "short" else UnreachableError)
    assert "signature" not in str(caught.value)
    assert waits == list(reader.WAITS_S)
    assert blobs(hub) == []


def test_head_failures_are_the_clients_to_retry(hub, waits):
    commit, file = pinned("config.json")
    hub.fault("HEAD", "/resolve/", 503, times=2)
    assert reader.download(REPO, commit, file).read_bytes() == CONFIG


def test_a_hub_that_is_down_is_said_to_be_down(hub, waits):
    commit, file = pinned("config.json")
    hub.fault("HEAD", "/resolve/", 503, times=100)
    with pytest.raises(SourceError, match=r"the Hub failed several times \(HTTP 503\)"):
        reader.download(REPO, commit, file)


def test_a_file_without_a_digest_is_refused(hub):
    commit, _ = pinned("config.json")
    with pytest.raises(SourceError, match="contains no digest"):
        reader.download(REPO, commit, RemoteFile("config.json", len(CONFIG), None, None))


@pytest.mark.parametrize("commit", ["main", "abc", "", "../" * 13 + "a", "0" * 41, "G" * 40])
def test_only_commits_are_downloaded(hub, commit):
    with pytest.raises(SourceError, match="not a commit of 40"):
        reader.download(REPO, commit, RemoteFile("config.json", 1, None, "0" * 40))
    with pytest.raises(SourceError, match="not a commit of 40"):
        reader.tensor_headers(REPO, commit, "model.safetensors")
    assert hub.requests == []


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "modeling_daisy.py", "x.pt", "run.sh", "LICENSE.py", "notes.txt"]
)
def test_only_weights_and_what_goes_with_them_is_downloaded(hub, name):
    commit = hub.commit(REPO, {name: b"import os"})
    _, file = pinned(name)
    hub.forget()
    with pytest.raises(SourceError, match="refused"):
        reader.download(REPO, commit, file)
    assert hub.requests == []


@pytest.mark.parametrize(
    "name", ["model-00001-of-00002.safetensors", "sub/config.json", "tokenizer.model", "merges.txt", "vocab.txt",
             "chat_template.jinja", "LICENSE", "LICENSE.txt", "License-Llama.md", "README.md"],
)  # fmt: skip
def test_kinds_of_files_that_are_wanted(name):
    assert reader.is_wanted(name)


# --- weights_of ------------------------------------------------------------------------------------------------------


def files(*names):
    return [RemoteFile(name, 1, "0" * 64, None) for name in names]


def names(chosen):
    return [file.name for file in chosen]


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_the_weights_are_what_the_index_names():
    both = files("consolidated.safetensors", *reversed(SHARDS), INDEX, "config.json", "pytorch_model.bin")
    assert names(reader.weights_of(both)) == SHARDS
    index = json.dumps({"weight_map": {"a": "consolidated.safetensors"}}).encode()
    assert names(reader.weights_of(both, index)) == ["consolidated.safetensors"]
    assert names(reader.weights_of(files("model.safetensors", "consolidated.safetensors"))) == [
        "model.safetensors"
    ]


@pytest.mark.parametrize(
    ("given", "index", "message"),
    [
        (files("pytorch_model.bin", "config.json"), None, "weights are only pickles"),
        (files("model.ckpt"), None, "save_pretrained.*conversion space"),
        (files("config.json"), None, "no weights in safetensors"),
        (files(INDEX, SHARDS[0]), None, "model-00002-of-00002.safetensors belongs to"),
        (files(INDEX, *SHARDS, "model-00001-of-00003.safetensors"), None, "several sets of shards"),
        (files(INDEX), b'{"weight_map": {"a": "../../x.safetensors"}}', "x.safetensors belongs to"),
        (
            files(INDEX, "a.bin"),
            b'{"weight_map": {"a": "a.bin"}}',
            "'a.bin', which is not a safetensors file",
        ),
        (files(INDEX), b"[]", "is damaged"),
        (files(INDEX), b"[" * 100_000, "is damaged"),
        (files(INDEX), b'{"weight_map": 3}', "is damaged"),
    ],
)
def test_weights_that_cannot_be_had(given, index, message):
    with pytest.raises(SourceError, match=message) as caught:
        reader.weights_of(given, index, "hub: herd/daisy")
    assert "hub: herd/daisy" in str(caught.value)


def test_a_pickle_only_repository(hub):
    hub.add_repo("herd/pickle", {"config.json": CONFIG, "pytorch_model-00001-of-00002.bin": b"\x80\x04."})
    with pytest.raises(SourceError, match="can run code when they are opened"):
        reader.weights_of(reader.resolve("herd/pickle", None).files)


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [429, 500, 502, 503, 504, "drop", "reset", "cut"])
def test_resolve_outlasts_a_bad_moment(hub, waits, kind):
    hub.fault("GET", "/api/models/", kind, times=2)
    assert reader.resolve(REPO, None).repo == REPO
    assert waits == list(reader.WAITS_S[:2])


def test_a_slow_answer_is_waited_for_only_so_long(hub, waits, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    hub.fault("GET", "/api/models/", "slow", seconds=60)
    assert reader.resolve(REPO, None).repo == REPO
    assert waits == [reader.WAITS_S[0]]


def test_the_hub_says_how_long_to_wait(hub, waits):
    hub.fault("GET", "/api/models/", 429, headers={"Retry-After": "42"})
    hub.fault("GET", "/api/models/", 429, headers={"RateLimit": '"api";r=0;t=55'})
    hub.fault("GET", "/api/models/", 429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    assert reader.resolve(REPO, None).repo == REPO
    assert waits == [42, 55, reader.WAITS_S[2]]


def test_too_long_a_wait_is_a_persons_decision(hub, waits):
    hub.fault("GET", "/api/models/", 429, headers={"Retry-After": "86400"})
    with pytest.raises(SourceError, match="HTTP 429"):
        reader.resolve(REPO, None)
    assert waits == []


def test_a_rate_limit_on_content_is_waited_out(hub, waits):
    hub.fault("GET", "^/lfs/", 429, headers={"Retry-After": "7"})
    assert fetch("model.safetensors").read_bytes() == WEIGHTS
    assert len(waits) == 1
    assert waits[0] >= 7


@pytest.mark.parametrize("token", [None, LocalHub.stranger])
def test_private_and_unknown_repositories_read_the_same(hub, monkeypatch, tmp_path, waits, token):
    hub.add_repo("herd/secret", {"config.json": CONFIG}, private=True)
    client.use(hub, tmp_path / "home", monkeypatch, token)
    for repo in ("herd/secret", "herd/nobody"):
        with pytest.raises(
            SourceError, match=r"no such repository, or it is private.*`hf auth login`"
        ) as caught:
            reader.resolve(repo, None)
        assert repo in str(caught.value)
        assert hub.url in str(caught.value)
        with pytest.raises(SourceError, match="no such repository, or it is private"):
            reader.download(repo, "0" * 40, RemoteFile("config.json", 1, None, "0" * 40))
    assert waits == []


def test_a_private_repository_opens_to_its_owner(hub, monkeypatch, tmp_path):
    hub.add_repo("herd/secret", {"config.json": CONFIG, "model.safetensors": WEIGHTS}, private=True)
    client.use(hub, tmp_path / "home", monkeypatch, hub.token)
    assert fetch("model.safetensors", "herd/secret").read_bytes() == WEIGHTS
    commit, _ = pinned("model.safetensors", "herd/secret")
    assert len(reader.tensor_headers("herd/secret", commit, "model.safetensors")) == 3
    sent = {request.path.startswith("/lfs/"): request.token for request in hub.requests}
    assert sent == {False: hub.token, True: None}  # other hosts do not get the token


@pytest.mark.parametrize("token", [None, LocalHub.stranger])
def test_a_gated_repository_names_the_page_with_its_terms(hub, monkeypatch, tmp_path, waits, token):
    commit = hub.add_repo("herd/fence", {"config.json": CONFIG, "model.safetensors": WEIGHTS}, gated="manual")
    client.use(hub, tmp_path / "home", monkeypatch, token)
    assert reader.resolve("herd/fence", None).gated == "manual"
    _, file = pinned("model.safetensors", "herd/fence")
    for act in (
        lambda: reader.download("herd/fence", commit, file),
        lambda: reader.tensor_headers("herd/fence", commit, "model.safetensors"),
    ):
        with pytest.raises(SourceError, match=f"Accept its terms on {hub.url}/herd/fence,.*`hf auth login`"):
            act()
    assert waits == []
    client.use(hub, tmp_path / "home", monkeypatch, hub.token)
    assert reader.download("herd/fence", commit, file).read_bytes() == WEIGHTS


def test_other_things_that_are_not_there(hub, waits):
    commit, _ = pinned("config.json")
    with pytest.raises(SourceError, match=f"hub: {REPO}@v9: the repository has no such revision"):
        reader.resolve(REPO, "v9")
    with pytest.raises(SourceError, match="no such revision"):
        reader.download(REPO, "0" * 40, RemoteFile("config.json", 1, None, "0" * 40))
    with pytest.raises(SourceError, match="no such file at this commit"):
        reader.download(REPO, commit, RemoteFile("other.json", 1, None, "0" * 40))
    with pytest.raises(SourceError, match="no such file at this commit"):
        reader.tensor_headers(REPO, commit, "other.safetensors")
    with pytest.raises(SourceError, match="not the name of a repository"):
        reader.resolve("a/b/c", None)
    with pytest.raises(SourceError, match="not the name of a repository"):
        reader.tensor_headers("a/b/c", commit, "model.safetensors")
    assert waits == []


def test_other_refusals(hub, waits, monkeypatch):
    for status, message in [
        (403, "access denied.*The Hub's message: no, really"),
        (401, "no such repository"),
        (418, "HTTP 418"),
    ]:
        hub.fault("GET", "/api/models/", status, message="no, really")
        with pytest.raises(SourceError, match=message):
            reader.resolve(REPO, None)
    hub.fault("GET", "/api/models/", 403, message="Access to this resource is disabled.")
    with pytest.raises(SourceError, match="has disabled this repository"):
        reader.resolve(REPO, None)
    hub.fault("HEAD", "/resolve/", 200)
    with pytest.raises(SourceError, match="does not behave like a Hub"):
        fetch("config.json")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.fault("GET", "/api/models/", 401, headers={"X-Error-Code": "RepoNotFound"})
    with pytest.raises(SourceError, match="no such repository"):
        reader.resolve(REPO, None)
    monkeypatch.setenv("HF_TOKEN", "hf_expiredexpired")
    with pytest.raises(SourceError, match=r"rejected your token.*`hf auth login`"):
        reader.resolve(REPO, None)
    assert waits == []


def test_offline_mode(hub, monkeypatch, waits):
    commit, file = pinned("config.json")
    reader.download(REPO, commit, file)
    weights = pinned("model.safetensors")[1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert reader.download(REPO, commit, file).read_bytes() == CONFIG
    for act in (
        lambda: reader.resolve(REPO, None),
        lambda: reader.download(REPO, commit, weights),
        lambda: reader.tensor_headers(REPO, commit, "model.safetensors"),
    ):
        with pytest.raises(SourceError, match=r"offline mode is on.*HF_HUB_OFFLINE"):
            act()
    assert waits == []


def test_no_network(tmp_path, monkeypatch, waits):
    with LocalHub() as gone:
        pass
    monkeypatch.setattr(LocalHub, "url", "http://127.0.0.1:9")  # discard: nobody listens
    client.use(gone, tmp_path / "home", monkeypatch)
    for act in (
        lambda: reader.resolve(REPO, None),
        lambda: reader.download(REPO, "0" * 40, RemoteFile("config.json", 1, None, "0" * 40)),
        lambda: reader.tensor_headers(REPO, "0" * 40, "model.safetensors"),
    ):
        with pytest.raises(
            SourceError, match=r"http://127.0.0.1:9 sent no complete response \(ConnectError\)"
        ):
            act()


def test_a_cache_that_cannot_be_written(hub, monkeypatch, tmp_path, waits):
    commit, file = pinned("config.json")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(SourceError, match="cannot be written to the cache"):
        reader.download(REPO, commit, file)
    assert waits == []


@pytest.fixture
def logged(monkeypatch):
    """What is logged during a test, wherever it would go."""
    texts = []
    written = logging.Formatter().format
    monkeypatch.setattr(logging.Logger, "callHandlers", lambda _, record: texts.append(written(record)))
    return texts


def test_the_token_appears_in_no_error(hub, monkeypatch, tmp_path, waits, logged, capfd):
    commit, file = pinned("model.safetensors")
    for token in (hub.token, "oddly-formed-secret"):
        client.use(hub, tmp_path / "home", monkeypatch, token)
        for status in (400, 401, 403, 404, 409, 429, 500, 503):
            for act in (
                lambda: reader.resolve(REPO, None),
                lambda: reader.download(REPO, commit, file),
                lambda: reader.tensor_headers(REPO, commit, "model.safetensors"),
            ):
                hub.fault("*", "", status, times=100, message="you sent {token}, not hf_another_one")
                hub.forget()
                with pytest.raises(SourceError) as caught:
                    act()
                hub.faults.clear()
                assert any(request.token == token for request in hub.requests)
                assert token not in str(caught.value)
                assert "hf_another_one" not in str(caught.value)
    assert hub.token not in "".join([*logged, *capfd.readouterr()])


def test_a_fresh_process_obeys_the_environment_and_loads_no_torch(hub, tmp_path):
    script = (
        "import sys; from herdbook import hub; remote = hub.resolve('herd/daisy', 'main');"
        "file = next(f for f in remote.files if f.name == 'config.json');"
        "print(remote.commit, hub.download(remote.repo, remote.commit, file).read_text(), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=client.environment(hub, tmp_path / "other"), text=True, capture_output=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split(" ", 1) == [hub.repos[REPO].branches["main"], f"{CONFIG.decode()} False\n"]
    assert list((tmp_path / "other" / "hub").glob("models--herd--daisy/snapshots/*/config.json"))


# --- the local Hub itself --------------------------------------------------------------------------------------------


def test_the_local_hub_gives_the_same_ids_every_time():
    ids = set()
    for _ in range(2):
        with LocalHub() as one:
            one.add_repo(REPO, {"a.json": b"1"})
            ids.add(one.commit(REPO, {"b.json": b"2"}))
    assert len(ids) == 1


def test_the_local_hub_answers_the_clients_other_questions(hub):
    api = HfApi(endpoint=hub.url)
    hub.commit(REPO, {"sub/deep/x.json": b"{}"}, title="deeper")
    hub.tag(REPO, "v1")
    tree = api.list_repo_tree(REPO, recursive=True)
    assert [entry.path for entry in tree if hasattr(entry, "size")] == [
        "README.md", "config.json", "model.safetensors", "sub/deep/x.json",
    ]  # fmt: skip
    assert [entry.path for entry in api.list_repo_tree(REPO)][:1] == ["sub"]
    assert [entry.path for entry in api.list_repo_tree(REPO, "sub/deep")] == ["sub/deep/x.json"]
    (info,) = api.get_paths_info(REPO, ["model.safetensors"])
    assert (info.size, info.lfs.sha256 in hub.lfs) == (len(WEIGHTS), True)
    refs = api.list_repo_refs(REPO)
    assert [ref.name for ref in refs.branches + refs.tags] == ["main", "v1"]
    assert [commit.title for commit in api.list_repo_commits(REPO)] == ["deeper", "initial commit"]
    assert api.whoami(token=hub.token)["name"] == "keeper"
    assert api.file_exists(REPO, "config.json")
    assert not api.file_exists(REPO, "other.json")
    assert api.revision_exists(REPO, "v1")
    assert not api.revision_exists(REPO, "v2")
    assert api.get_safetensors_metadata(REPO).files_metadata["model.safetensors"].tensors["b"].shape == [3]


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [("bytes=0-3", 206, b"0123"), ("bytes=8-", 206, b"89"), ("bytes=-2", 206, b"89"), ("bytes=5-99", 206, b"56789"),
     ("bytes=10-", 416, None), ("nonsense", 200, b"0123456789")],
)  # fmt: skip
def test_the_local_hub_serves_ranges(hub, asked, status, body):
    from huggingface_hub import get_session

    hub.commit(REPO, {"digits.bin": b"0123456789"})
    answer = get_session().get(f"{hub.url}/{REPO}/resolve/main/digits.bin", headers={"Range": asked})
    assert answer.status_code == status
    assert body is None or answer.content == body
