"""The cache, in a folder and in a bucket: the same promises, asked of both."""

import dataclasses
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from herdbook import plan as plans
from herdbook.cache import Cache, Product, configured, products
from herdbook.cache.cache import ENTRY, LEFT_OVER_S, CacheEntry
from herdbook.cache.folder import LINKED_BYTES, FolderStore
from herdbook.cache.maintenance import repair, to_prune
from herdbook.cache.step import add, available, restore, save
from herdbook.cli.main import main
from herdbook.errors import CacheError, DigestMismatchError, StepError
from herdbook.made import check
from herdbook.plan.job import Job, find
from herdbook.plan.jobs import all_jobs
from herdbook.steps.assemble.step import assemble, write_config_files
from herdbook.steps.fetch.step import fetch
from support import bucket_gateway, s3_server, tiny

LARGE = LINKED_BYTES + 1


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch, s3_server.serve(patch) as url:
        yield url


@pytest.fixture(scope="module")
def gateway():
    with bucket_gateway.serve() as url:
        yield url


@pytest.fixture(params=["folder", "s3", pytest.param("hub", marks=pytest.mark.slow)])
def cache(request, tmp_path, monkeypatch):
    """An empty cache of each kind: a folder, a bucket of S3, and one of the Hub behind its gateway."""
    if request.param != "folder":
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it keeps the credentials of the first client
    if request.param == "s3":
        for name, value in s3_server.environment(request.getfixturevalue("server")).items():
            monkeypatch.setenv(name, value)
        return configured(f"s3://herd/{tmp_path.name}-{os.urandom(4).hex()}")
    if request.param == "hub":
        for name, value in s3_server.environment(request.getfixturevalue("gateway"), "HFAK").items():
            monkeypatch.setenv(name, value)
        return configured(f"s3://{bucket_gateway.BUCKET}/{tmp_path.name}-{os.urandom(4).hex()}")
    (tmp_path / "cache").mkdir()
    return configured(str(tmp_path / "cache"))


def product(folder, *, content=b"w" * LARGE, key="a" * 64, gated=False, names=(), said=None):
    """Make a shard and its record, of no model; ``said`` is what the record says that the shard's digest is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.safetensors").write_bytes(content)
    record = {"file": {"sha256": said or hashlib.sha256(content).hexdigest()}, "tensors": {}}
    (folder / "x.json").write_text(json.dumps(record))
    outputs = (folder / "x.safetensors", folder / "x.json")
    return Product(Job("laser", "x.1-aaaaaaaaaaaa", key, (), outputs), names, ("herd/x",) if gated else ())


def elsewhere(one, folder):
    """Return the same product in another results folder."""
    outputs = tuple(folder / path.name for path in one.job.outputs)
    return dataclasses.replace(one, job=dataclasses.replace(one.job, outputs=outputs))


def flip(cache, name):
    """Flip one bit of a stored file, in place."""
    if isinstance(cache.store, FolderStore):
        path = cache.store.root / name
        with path.open("r+b") as file:
            file.seek(7)
            byte = file.read(1)
            file.seek(7)
            file.write(bytes([byte[0] ^ 1]))
    else:
        content = bytearray(cache.store.read(name))
        content[7] ^= 1
        cache.store.write(name, bytes(content))


def test_what_was_put_is_taken_elsewhere_with_the_same_bytes(cache, tmp_path):
    one = product(tmp_path / "one")
    cache.check()
    assert cache.contained([one]) == []
    assert cache.put(one, "First")
    assert not cache.put(one, "First")
    assert cache.contained([one]) == [one]
    other = elsewhere(one, tmp_path / "two")
    digests = {
        path: hashlib.sha256(one.files[role].read_bytes()).hexdigest() for role, path in other.files.items()
    }
    for path in other.files.values():
        assert cache.restore(other, path, "Second") == digests
    assert {role: path.read_bytes() for role, path in other.files.items()} == {
        role: path.read_bytes() for role, path in one.files.items()
    }
    (entry,) = cache.entries()
    assert (entry.kind, entry.id, set(entry.uses)) == ("laser", one.id, {"First", "Second"})
    assert entry.size_bytes == sum(path.stat().st_size for path in one.files.values())
    assert not list((tmp_path / "two").glob("*.part"))


def test_what_is_only_looked_up_writes_nothing(cache, monkeypatch):
    def refuse(**_):
        raise AssertionError("something is written")

    if isinstance(cache.store, FolderStore):
        before = cache.store.root.stat().st_mtime_ns
        cache.check(by_writing=False)
        assert list(cache.store.root.iterdir()) == []
        assert cache.store.root.stat().st_mtime_ns == before
        return
    monkeypatch.setattr(cache.store._client, "put_object", refuse)
    cache.check(by_writing=False)
    with pytest.raises(AssertionError, match="something is written"):
        cache.check()


def test_a_missing_place_is_found_without_writing(tmp_path, server, monkeypatch):
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    for name, value in s3_server.environment(server).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CacheError, match=r"s3://nobodys/x: the cache cannot be used: .*NoSuchBucket"):
        configured("s3://nobodys/x").check(by_writing=False)
    with pytest.raises(CacheError, match="the cache's folder does not exist"):
        configured(str(tmp_path / "nowhere")).check(by_writing=False)


def test_other_names_gates_and_keys_are_other_entries(tmp_path):
    one = product(tmp_path)
    others = [
        product(tmp_path, key="b" * 64),
        product(tmp_path, names=("base",)),
        product(tmp_path, gated=True),
        dataclasses.replace(one, job=dataclasses.replace(one.job, rule="moe")),
    ]
    assert len({one.entry, *(other.entry for other in others)}) == 5
    same = dataclasses.replace(one.job, id="another", outputs=())
    assert dataclasses.replace(one, job=same).entry == one.entry


def test_a_result_that_is_not_what_its_record_says_is_not_kept(cache, tmp_path):
    one = product(tmp_path / "one", content=b"small", said=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(DigestMismatchError, match="delete it and rebuild it"):
        cache.put(one, "First")
    assert list(cache.entries()) == []
    assert cache.contained([one]) == []


@pytest.mark.parametrize("role", ["shard", "record"])
def test_a_damaged_file_is_not_taken_and_its_entry_goes(cache, tmp_path, role):
    one = product(tmp_path / "one")
    cache.put(one, "First")
    (entry,) = cache.entries()
    flip(cache, f"{entry.name}/{entry.files[role][0]}")
    other = elsewhere(one, tmp_path / "two")
    with pytest.raises(DigestMismatchError, match="Run the build again"):
        cache.restore(other, other.files[role], "Second")
    assert not other.files[role].exists()
    assert not list((tmp_path / "two").glob(".*"))
    assert cache.contained([one]) == []
    with pytest.raises(CacheError, match="was removed from the cache"):
        cache.restore(other, other.files[role], "Second")


def test_a_lost_file_is_damage_too(cache, tmp_path):
    one = product(tmp_path / "one")
    cache.put(one, "First")
    (entry,) = cache.entries()
    cache.store.remove(f"{entry.name}/{entry.files['shard'][0]}")
    assert cache.damaged(entry) == {"shard": "is missing"}
    other = elsewhere(one, tmp_path / "two")
    with pytest.raises(DigestMismatchError):
        cache.restore(other, other.files["shard"], "Second")


def test_a_damaged_description_is_found_and_replaced(cache, tmp_path):
    one = product(tmp_path / "one")
    cache.put(one, "First")
    cache.store.write(f"{one.entry}/{ENTRY}", b'{"files": ')
    (entry,) = cache.entries()
    said = list(repair(cache, [entry], None, {}))
    assert len(said) == 1
    assert cache.put(one, "First")


def test_many_put_and_take_one_thing_at_once(cache, tmp_path):
    """Five that made the same thing, one of them with other bytes: one entry, whole, and all take the same."""
    made = [
        product(tmp_path / str(number), content=bytes([number // 4]) * 5000, key="c" * 64)
        for number in range(5)
    ]
    results, failures = [], []

    def work(one):
        try:
            results.append(cache.put(one, "First"))
            other = elsewhere(one, one.files["shard"].parent / "taken")
            for path in other.files.values():
                cache.restore(other, path, "First")
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert results.count(True) == 1
    taken = {path.read_bytes() for path in tmp_path.glob("*/taken/x.safetensors")}
    assert len(taken) == 1
    (entry,) = cache.entries()
    assert cache.damaged(entry) == {}


def test_what_a_killed_build_left_goes_after_a_day(cache, tmp_path, monkeypatch):
    one = product(tmp_path / "one")
    cache.put(one, "First")
    cache.store.put(one.files["shard"], f"open/{'d' * 64}/{'e' * 64}")  # and no description of it
    assert len(list(cache.entries())) == 1
    assert list(cache.left_over()) == []
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LEFT_OVER_S + 60)
    (left,) = cache.left_over()
    assert left.name == f"open/{'d' * 64}/{'e' * 64}"


def entry(name, size, used, uses=()):
    return CacheEntry(name, "laser", name, {"shard": ("0", size)}, dict.fromkeys(uses, used), used)


def test_a_file_beside_the_entries_is_none(tmp_path):
    """Another build, which checks whether it may write, makes one for a moment."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open/.0123456789abcdef.part").touch()
    cache = configured(str(tmp_path))
    assert list(cache.entries()) == []
    assert list(cache.left_over()) == []


def test_prune_takes_the_old_the_unused_and_the_longest_unused():
    all_of_them = [
        entry("new", 50, 1000, ["A"]),
        entry("old", 30, 100, ["A", "B"]),
        entry("middle", 20, 500, ["B"]),
        entry("nobody's", 10, 900),
    ]

    def gone(**asked):
        return [one.name for one in to_prune(all_of_them, now=1100, **asked)]

    assert gone(older_than_s=700) == ["old"]
    assert gone(not_used_by=["A"]) == ["middle", "nobody's"]
    assert gone(not_used_by=["A", "B"]) == ["nobody's"]
    assert gone(keep_bytes=110) == []
    assert gone(keep_bytes=109) == ["old"]
    assert gone(keep_bytes=60) == ["old", "middle"]
    assert gone(keep_bytes=59) == ["old", "middle", "nobody's"]
    assert gone(not_used_by=["A"], keep_bytes=50) == ["middle", "nobody's", "old"]
    assert gone(older_than_s=700, keep_bytes=0) == ["old", "middle", "nobody's", "new"]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("size", [100, LARGE])
def test_gated_is_for_its_owner_alone_and_the_rest_follows_the_umask(tmp_path, size):
    (tmp_path / "cache").mkdir(mode=0o755)
    (tmp_path / "cache").chmod(0o2775)
    cache = configured(str(tmp_path / "cache"))
    before = os.umask(0o027)
    try:
        gated = product(tmp_path / "gated", content=b"g" * size, gated=True, key="1" * 64)
        free = product(tmp_path / "free", content=b"f" * size, key="2" * 64)
        for one in (gated, free):
            cache.put(one, "First")
            other = elsewhere(one, tmp_path / one.entry.split("/")[0])
            for path in other.files.values():
                cache.restore(other, path, "Second")
    finally:
        os.umask(before)
    root = tmp_path / "cache"
    for name in ("open", "gated"):
        assert mode(root / name) == 0o2775  # a team's folder stays the team's
    found = [root / gated.entry, *(root / gated.entry).rglob("*")]
    assert {mode(path) for path in found if path.is_file()} == {0o600}
    assert {mode(path) & 0o777 for path in found if path.is_dir()} == {0o700}
    assert {mode(path) for path in (root / free.entry).rglob("*") if path.is_file()} == {0o640}
    assert {mode(path) for path in (tmp_path / "gated").iterdir()} <= {0o600, 0o640}
    taken = {path.name: mode(path) for path in elsewhere(gated, tmp_path / "gated").files.values()}
    assert taken["x.safetensors"] == 0o600


def test_large_files_of_ours_are_links_and_what_is_others_is_a_copy(tmp_path):
    (tmp_path / "cache").mkdir()
    cache = configured(str(tmp_path / "cache"))
    one = product(tmp_path / "one", key="1" * 64)
    cache.put(one, "First")
    (entry,) = cache.entries()
    assert (cache.store.root / entry.name / entry.files["shard"][0]).samefile(one.files["shard"])
    assert not (cache.store.root / entry.name / entry.files["record"][0]).samefile(one.files["record"])
    source = product(tmp_path / "theirs", key="3" * 64)
    linked = elsewhere(source, tmp_path / "results")
    (tmp_path / "results").mkdir()
    linked.files["shard"].symlink_to(source.files["shard"])
    linked.files["record"].write_bytes(source.files["record"].read_bytes())
    cache.put(linked, "First")
    (name,) = (cache.store.root / linked.entry).glob(hashlib.sha256(b"w" * LARGE).hexdigest())
    assert not name.samefile(source.files["shard"])


def test_a_place_that_cannot_be_used_is_one_message(tmp_path, server, monkeypatch):
    for name, value in s3_server.environment(server).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "file").write_text("")
    for place, said in {
        str(tmp_path / "absent"): "the cache.s folder does not exist",
        str(tmp_path / "file"): "file: is no folder. Name a folder or s3://",
        "/proc/self": "is not writable",  # not even by root
        "s3://no-such-bucket/x": "the cache cannot be used: .*NoSuchBucket",
    }.items():
        with pytest.raises(CacheError, match=said):
            configured(place).check()
    with pytest.raises(CacheError, match="contains no bucket name"):
        configured("s3://")
    # Where packets are dropped, each of five tries waits this long: botocore's own minute is too much.
    assert configured("s3://herd/x").store._client.meta.config.connect_timeout <= 10
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CacheError, match="Could not connect") as caught:
        configured("s3://herd/x").check()
    assert "made-up" not in str(caught.value)


@pytest.mark.parametrize(
    "refused",
    [
        lambda s3: s3.list_objects(Bucket="cache"),
        lambda s3: s3.get_object(Bucket="cache", Key="a//b"),
        lambda s3: s3.put_object(Bucket="other", Key="a", Body=b"x"),
    ],
    ids=["ListObjectsV1", "a key", "a bucket"],
)
def test_the_hub_s_gateway_has_limits(gateway, refused, monkeypatch):
    for name, value in s3_server.environment(gateway, "HFAK").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    import boto3
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError, match="NotImplemented|InvalidArgument|NoSuchBucket"):
        refused(boto3.client("s3"))
    boto3.client("s3").put_object(Bucket="cache", Key="a", Body=b"x", Metadata={"b": "c"})
    assert boto3.client("s3").head_object(Bucket="cache", Key="a")["Metadata"] == {}


def test_a_folder_needs_no_client_for_s3(tmp_path):
    script = (
        "import sys\nfrom herdbook.cache import configured\n"
        f"configured({str(tmp_path)!r}).check()\n"
        "print([name for name in ('boto3', 'botocore', 'torch', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MODELS = {
    "base": {"folder": "base"},
    "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "mix": {
        "moe": {
            "base": "cut",
            "experts": [{"model": "cut", "prompts": ["w1"]}, {"model": "base", "prompts": ["w2"]}],
        }
    },
}


@pytest.fixture
def plan(tmp_path):
    tiny.write_model(tmp_path / "recipe/base", seed=1)
    path = tiny.write_recipe(tmp_path / "recipe/tiny.yaml", MODELS)
    tiny.lock(path)
    return plans.load(path, tmp_path / "results")


def test_products_are_what_is_costly(plan):
    found = {product.id.rpartition("-")[0]: product for product in products(plan)}
    assert {product.kind for product in found.values()} == {"fetch", "files", "laser", "moe", "routing"}
    assert {product.names for product in found.values()} == {
        ()
    }  # nothing here mentions a name beyond its key
    assert found["base"].kind == "files"
    assert not any(product.gated for product in found.values())


def test_gated_passes_on_to_what_is_made_of_it(plan):
    locked = plan.lock.sources["base"].model_copy(update={"gated": "manual"})
    lock = plan.lock.model_copy(update={"sources": {"base": locked}})
    assert {product.gated for product in products(dataclasses.replace(plan, lock=lock))} == {("base",)}


@pytest.mark.parametrize(
    ("setting", "withheld"),
    [("", ("herd/x",)), ("herd/y", ("herd/x",)), ("herd/y, herd/x", ()), ("herd/x", ())],
)
def test_gated_stays_out_of_a_bucket_unless_the_setting_names_it(
    tmp_path, server, monkeypatch, setting, withheld
):
    monkeypatch.setenv("HERDBOOK_GATED", setting)
    for name, value in s3_server.environment(server).items():
        monkeypatch.setenv(name, value)
    gated, free = product(tmp_path / "gated", gated=True), product(tmp_path / "free")
    bucket, folder = configured("s3://herd/gated"), configured(str(tmp_path))
    assert bucket.withheld(gated) == withheld
    assert bucket.withheld(free) == folder.withheld(gated) == ()


@pytest.mark.parametrize(
    "place", ["gs://lab/herd", "s3:/lab/herd", "S3://lab/herd", "https://lab.example/herd"]
)
def test_a_place_of_another_kind_is_not_taken_for_a_folder(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(CacheError, match=rf"{place}: a cache is in a folder or in s3://bucket/prefix"):
        configured(place)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:5599"),
        ("AWS_PROFILE", "nobody"),
        ("AWS_CONFIG_FILE", "damaged"),
        ("AWS_DEFAULT_REGION", "a b"),
    ],
)
def test_wrong_settings_of_the_client_are_named(name, value, tmp_path, monkeypatch, server):
    monkeypatch.chdir(tmp_path)
    Path("damaged").write_text("[default\nx")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    for one, given in (s3_server.environment(server) | {name: value}).items():
        monkeypatch.setenv(one, given)
    with pytest.raises(CacheError, match=r"s3://herd/x: the cache cannot be used: .*Check the bucket's name"):
        configured("s3://herd/x").check()


class LoginPage(BaseHTTPRequestHandler):
    """Answers every request with success and a page, as what stands between a network and its guests does."""

    protocol_version = "HTTP/1.1"

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        page = b"<html>log in</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_GET = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_):
        pass


def test_a_server_that_is_no_bucket_is_told_though_it_answers(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), LoginPage) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        for name, value in s3_server.environment(f"http://127.0.0.1:{page.server_port}").items():
            monkeypatch.setenv(name, value)
        cache = configured("s3://herd/x")
        with pytest.raises(CacheError, match="another content than was written .*AWS_ENDPOINT_URL"):
            cache.check()
        with pytest.raises(CacheError, match="has an object that was never written .*AWS_ENDPOINT_URL"):
            cache.check(by_writing=False)
        page.shutdown()


def test_a_setting_of_gated_repositories_that_means_nothing_is_refused(tmp_path, server, monkeypatch):
    monkeypatch.setenv("HERDBOOK_GATED", "llama")
    for name, value in s3_server.environment(server).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CacheError, match=r"gated .*'llama' is not the name of a repository"):
        configured("s3://herd/gated").withheld(product(tmp_path / "gated", gated=True))


def test_a_cache_that_is_full_throws_no_result_away(plan, tmp_path, monkeypatch, capsys):
    part = plan.nodes["base"].parts[0]
    fetch(plan, part)
    monkeypatch.setenv("HERDBOOK_CACHE", str(tmp_path / "nowhere"))
    (tmp_path / "nowhere").write_text("no folder")
    save(plan, find(all_jobs(plan), "fetch", part.key))
    assert "warning: not saved in the cache" in capsys.readouterr().err
    assert plan.layout.shard(part).exists()
    monkeypatch.setenv("HERDBOOK_RUN", "r")  # on machines that share no disk, nobody else would get it
    with pytest.raises(CacheError):
        save(plan, find(all_jobs(plan), "fetch", part.key))


def test_take_offers_what_is_missing_here_and_there_in_the_cache(plan, tmp_path, monkeypatch):
    node = plan.nodes["base"]
    fetch(plan, node.parts[0])
    write_config_files(plan, node)
    assert available(plan) == {}  # there is no cache
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("HERDBOOK_CACHE", str(tmp_path / "cache"))
    assert available(plan) == {}  # nothing is in it
    assert add(plan, configured()) == (2, 2)
    assert add(plan, configured()) == (0, 2)
    assert available(plan) == {}  # all of it is here
    plan.layout.record(node.parts[0]).unlink()
    assert set(available(plan)) == {plan.layout.record(node.parts[0])}
    other = plans.load(plan.recipe_path, tmp_path / "other")
    assert set(available(other)) == {
        other.layout.shard(node.parts[0]),
        other.layout.record(node.parts[0]),
        *(other.layout.folder(node) / name for name in node.files),
    }
    for path in available(other):
        restore(other, path)
    # what was restored is noted like what was made
    fetched = find(all_jobs(other), "fetch", node.parts[0].key)
    check(other.layout, [fetched], fetched.outputs)
    record = other.layout.record(node.parts[0])
    content = record.read_text()
    record.write_text(content + " ")
    with pytest.raises(StepError, match=r"was changed after `fetch base\.1-"):
        check(other.layout, [fetched], fetched.outputs)
    record.write_text(content)
    (tmp_path / "recipe/base").rename(tmp_path / "recipe/away")  # nothing of it is needed
    assemble(other, other.nodes["base"])
    assert (other.layout.folder(node) / "config.json").is_file()
    with pytest.raises(CacheError, match="is not a cacheable output"):
        restore(other, Path("results/elsewhere.json"))


def test_command_line_lists_verifies_heals_and_prunes(plan, cache, tmp_path, capsys):
    fetch(plan, plan.nodes["base"].parts[0])
    write_config_files(plan, plan.nodes["base"])

    def herdbook(*arguments):
        places = ("--recipe", plan.recipe_path, "--results", plan.layout.root, "--cache", cache.store.place)
        status = main(["cache", *map(str, places), *map(str, arguments)])
        said = capsys.readouterr()
        return status, said.out, said.err

    assert herdbook("add")[1].strip().endswith("2 new entries, 0 already present")
    size = sum(one.size_bytes for one in cache.entries())
    status, listed, _ = herdbook("list", "--json", tmp_path / "list.json")
    assert (status, "Tiny: 2 entries" in listed) == (0, True)
    held = json.loads((tmp_path / "list.json").read_text())["entries"]
    assert sum(file["size_bytes"] for one in held for file in one["files"].values()) == size
    assert herdbook("verify")[1].strip().endswith("0 damaged")

    shard = next(one for one in cache.entries() if one.kind == "fetch")
    flip(cache, f"{shard.name}/{shard.files['shard'][0]}")
    status, said, _ = herdbook("verify")
    assert status == 0
    assert "now has the digest" in said
    assert "restored from the results" in said  # the results' own is a link to the source, not to the cache's
    assert herdbook("verify")[1].strip().endswith("0 damaged")
    (again,) = [one for one in cache.entries() if one.kind == "fetch"]
    assert again.files == shard.files

    assert herdbook("prune")[0] == 2
    assert "2 entries" in herdbook("prune", "--keep-size", "0MB", "--dry-run")[1]
    assert len(list(cache.entries())) == 2
    assert herdbook("prune", "--not-used-by", "Tiny")[1].startswith("0 entries")
    assert herdbook("prune", "--older-than", "1h")[1].startswith("0 entries")
    for names in (["Tinny"], ["Tiny", "--not-used-by", "Tinny"]):
        status, _, said = herdbook("prune", "--not-used-by", *names)
        assert (status, "'Tinny': no entry of" in said, "did you mean 'Tiny'?" in said) == (11, True, True)
    assert len(list(cache.entries())) == 2
    cache.put(product(tmp_path / "others"), "Another")
    assert "2 entries" in herdbook("prune", "--not-used-by", "Another")[1]
    assert len(list(cache.entries())) == 1
    herdbook("prune", "--keep-size", "0MB")
    assert herdbook("prune", "--not-used-by", "Another")[1].startswith("0 entries")
    assert list(cache.entries()) == []


@pytest.mark.slow
def test_healing_removes_the_same_damaged_file_from_results_and_release(plan, tmp_path):
    """A hard link shares its bytes: what is damaged in the cache is damaged here too."""
    (tmp_path / "cache").mkdir()
    cache = Cache(FolderStore(tmp_path / "cache"))
    one = product(tmp_path / "results")
    cache.put(one, "Tiny")
    released = plan.layout.release_folder / "model.safetensors"
    released.parent.mkdir(parents=True)
    os.link(one.files["shard"], released)
    (plan.layout.release_folder / "SHA256SUMS").write_text("")
    for path in (plan.layout.verification, plan.layout.page):
        path.write_text("passed")
    (entry,) = cache.entries()
    flip(cache, f"{entry.name}/{entry.files['shard'][0]}")
    (said,) = repair(cache, [entry], plan, {one.entry: one})
    assert "the same damaged file in the results" in said
    assert not one.files["shard"].exists()
    assert list(plan.layout.release_folder.iterdir()) == []
    # the target `all` is the verification: with it, no build would be started
    assert not plan.layout.verification.exists()
    assert not plan.layout.page.exists()
