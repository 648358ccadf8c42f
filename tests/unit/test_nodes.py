"""Builds on machines that share no disk: what is done where, what awaits what, and what a job takes."""

import dataclasses
import os
import shutil
import subprocess
import time

import pytest

from herdbook import plan as plans
from herdbook.cache import Cache, configured, nodes
from herdbook.cache.folder import FolderStore
from herdbook.cache.nodes import Nodes, check_sent
from herdbook.cache.product import products
from herdbook.cache.step import add, hand_on_spent, is_saved, restore, save, take
from herdbook.errors import CacheError
from herdbook.files import sha256_file
from herdbook.layout import Layout
from herdbook.lock.evaluation import LockedDataSet
from herdbook.needs import spent
from herdbook.plan.job import find
from herdbook.plan.jobs import result_jobs
from herdbook.steps.quantize.step import quantize
from herdbook.steps.registry import run
from herdbook.weights.gguf_file import header
from herdbook.weights.gguf_header import encode
from support import tiny

MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "folded": {"adapter": "adapter", "on": "other", "license": "mit"},
    "lasered": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "mix": {
        "moe": {
            "base": "lasered",
            "experts": [
                {"model": "lasered", "prompts": ["w1 w2 w3"]},
                {"model": "folded", "prompts": ["w9 w8"]},
            ],
        }
    },
}


class Bucket(FolderStore):
    """A bucket, as far as a cache is concerned."""

    private = False

    def __init__(self, root):
        super().__init__(root)
        self.place = "s3://bucket/prefix"


@pytest.fixture
def recipe(tmp_path):
    folder = tmp_path / "config"
    for seed, name in enumerate(("base", "other"), start=1):
        tiny.write_model(folder / name, seed=seed)
    tiny.write_adapter(folder / "adapter", folder / "other", seed=3)
    tiny.write_task(folder / "tasks/task.yaml")
    path = tiny.write_recipe(
        folder / "tiny.yaml", MODELS, evaluate={"tasks": ["tasks/task.yaml"], "models": ["mix"]}
    )
    tiny.lock(path)
    return path


@pytest.fixture
def built(recipe, tmp_path):
    return tiny.build(recipe, tmp_path / "results")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A cache that passes for one in a bucket."""
    (tmp_path / "cache").mkdir()
    cache = Cache(Bucket(tmp_path / "cache"))
    monkeypatch.setattr(nodes, "configured", lambda: cache)
    return cache


def gated(plan, name):
    """Return the plan with a source from a gated repository."""
    sources = {**plan.lock.sources, name: plan.lock.sources[name].model_copy(update={"gated": "manual"})}
    return dataclasses.replace(plan, lock=plan.lock.model_copy(update={"sources": sources}))


def names(jobs):
    return sorted(f"{job.rule} {job.label}" for job in jobs)


def test_what_only_this_host_has_is_read_here_and_all_else_elsewhere(recipe, bucket, tmp_path):
    plan = plans.load(recipe, tmp_path / "results")
    found = Nodes(plan)
    assert names(found.here) == ["adapter folded.1", "fetch base.1", "fetch other.1", "files base"]
    assert {job.rule for job in found.away} == {"laser", "moe", "routing", "evaluate"}
    assert not found.withheld


def test_what_descends_from_a_gated_source_stays_here(recipe, bucket, tmp_path):
    plan = gated(plans.load(recipe, tmp_path / "results"), "other")
    found = Nodes(plan)
    # the lasered base is not made of it, and the copies of the mixture's shards belong to the mixture
    assert names(found.away) == ["laser lasered.1"]
    assert set(found.withheld) == {"other"}
    assert found.withheld["other"] == len(found.here) - 2  # `fetch base` and its files


def test_what_reads_gated_files_of_the_hub_is_done_where_the_token_is(recipe, bucket, tmp_path):
    plan = plans.load(recipe, tmp_path / "results")
    read = {"data_sets": {"q": LockedDataSet(repo="herd/q", revision="a" * 40, files=(), gated="auto")}}
    found = Nodes(dataclasses.replace(plan, lock=plan.lock.model_copy(update=read)))
    assert "evaluate mix" in names(found.here)
    assert {job.rule for job in found.away} == {"laser", "moe", "routing"}


def test_a_job_awaits_what_the_cache_lacks(built, bucket):
    found = Nodes(built)
    routing = find(result_jobs(built), "routing")
    shards = [f"moe mix.{part.label}" for part in built.nodes["mix"].parts]
    # the folder of the mixture, which is links, and in it the tokenizer
    assert names(found.awaited(routing.inputs)) == sorted([*shards, "files base"])
    bucket.put(found._products[find(result_jobs(built), "files", "base")], "Tiny")
    found.look_up()
    assert names(found.awaited(routing.inputs)) == sorted(shards)
    assert names(found.taken(routing.inputs)) == sorted([*shards, "files base"])


def test_a_build_says_what_the_bucket_lacks_after_it(built, bucket, monkeypatch):
    found, path = Nodes(built), built.recipe_path
    add(built, bucket)  # all but the measurement, which was not made
    assert found.closing() == f"s3://bucket/prefix lacks 1 result of {path}: the build was of others"
    monkeypatch.setattr(bucket, "contained", list)
    assert found.closing() == (
        "all results are in s3://bucket/prefix; make the release of them: snakemake --cores all --config "
        f"recipe={path} cache=s3://bucket/prefix"
    )
    kept_here = Nodes(gated(built, "other")).closing()
    assert kept_here.startswith(
        "all results are in s3://bucket/prefix, but for gated ones, which are on this host; make"
    )


def test_a_job_takes_its_inputs_and_makes_what_no_cache_keeps(built, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("HERDBOOK_CACHE", str(tmp_path / "cache"))
    add(built, configured())
    other = plans.load(built.recipe_path, tmp_path / "elsewhere")
    job = find(result_jobs(other), "evaluate")
    made = []
    take(other, job, lambda one: (made.append(one.rule), run(other, one)))
    assert made == ["assemble"]
    for here, there in zip(find(result_jobs(built), "evaluate").inputs, job.inputs, strict=True):
        assert sha256_file(here) == sha256_file(there)
    # a measurement compares weights with their records
    assert all(other.layout.record(part).exists() for part in other.nodes["mix"].parts)
    assert not other.layout.shard(other.nodes["base"].parts[0]).exists()


def test_an_input_that_is_nowhere_is_named_with_the_command_that_makes_it(recipe, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("HERDBOOK_CACHE", str(tmp_path / "cache"))
    plan = plans.load(recipe, tmp_path / "results")
    part = plan.nodes["base"].parts[0]
    with pytest.raises(
        CacheError, match=rf"base\.1-\w+: is missing .* Make it first: herdbook fetch {part.key}"
    ):
        take(plan, find(result_jobs(plan), "laser"), pytest.fail)


def test_a_result_that_the_cache_has_is_not_made_again_on_machines_that_share_no_disk(
    built, tmp_path, monkeypatch
):
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("HERDBOOK_CACHE", str(tmp_path / "cache"))
    job = find(result_jobs(built), "laser")
    save(built, job)
    assert not is_saved(built, job)  # elsewhere, a person may want to see it made
    monkeypatch.setenv("HERDBOOK_RUN", "r")
    assert is_saved(built, job)
    assert not is_saved(built, find(result_jobs(built), "routing"))


def test_what_a_job_took_comes_back_with_its_result(built, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("HERDBOOK_CACHE", str(tmp_path / "cache"))
    job, lone = (find(result_jobs(built), rule) for rule in ("laser", "routing"))
    for one in (job, lone):
        spent.note(built, one, time.time() - 3, 1)
        save(built, one)
    hand_on_spent(built, lone)  # on one disk: what is restored later, by whomever, cost nothing then
    monkeypatch.setenv("HERDBOOK_RUN", "r")
    hand_on_spent(built, job)
    monkeypatch.setattr("herdbook.cache.cache.LEFT_OVER_S", -1)
    assert not list(configured().left_over())

    def taken(name):
        plan = plans.load(built.recipe_path, tmp_path / name)
        layout = Layout(plan.layout.root, name)
        release = plan.recipe.release.model_copy(update={"name": name})
        recipe = plan.recipe.model_copy(update={"release": release})
        plan = dataclasses.replace(plan, layout=layout, recipe=recipe)
        for one in (job, lone):
            for path in find(result_jobs(plan), one.rule).outputs:
                restore(plan, path)
        return spent.spent(plan, layout.root)

    (own,) = spent.spent(built, built.layout.root)["laser"]
    assert own.seconds >= 3
    assert taken("Tiny")["laser"] == [own]
    assert taken("Tiny")["routing"] == [None]
    assert taken("Other")["laser"] == [None]


def test_without_a_bucket_nothing_begins(recipe, tmp_path, monkeypatch):
    plan = plans.load(recipe, tmp_path / "results")
    for place in ("", str(tmp_path)):
        monkeypatch.setenv("HERDBOOK_CACHE", place)
        with pytest.raises(CacheError, match="set `cache` to s3://bucket/prefix"):
            Nodes(plan)


def test_files_that_snakemake_does_not_send_are_named(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = plans.load(recipe.relative_to(tmp_path))

    def problems():
        try:
            check_sent(plan)
        except CacheError as error:
            return str(error).splitlines()[1:]
        return []

    def git(*words):
        subprocess.run(["git", *words], check=True, cwd=tmp_path)

    needed = [
        "config/tiny.yaml",
        "config/tiny.lock.json",
        "config/tasks/task.yaml",
        "config/tasks/text.jsonl",
    ]
    untracked = [f"{name}: git does not track it in this folder" for name in needed]
    assert problems() == untracked  # no repository of git
    git("init", "--quiet")
    git("add", *needed[:3])
    assert problems() == untracked[3:]
    check_sent(plan, [tmp_path / needed[3]])  # which is sent without git
    git("add", needed[3])
    assert problems() == []
    with (tmp_path / needed[3]).open("ab") as file:
        file.truncate(10_000_001)
    assert problems() == [f"{needed[3]}: is larger than 10 MB"]
    monkeypatch.chdir(tmp_path / "config/base")  # which is all that would be sent
    plan = plans.load(recipe)
    assert problems() == [f"{tmp_path}/{name}: git does not track it in this folder" for name in needed]
    assert os.path.relpath(recipe).startswith("..")


@pytest.fixture
def ladder(tmp_path):
    """Two quantized files of a model, of which one copies most of the other."""
    tiny.write_model(tmp_path / "base", hidden=256, intermediate=256)
    methods = {"methods": ["Q4_K_M", "Q4_K_S"]}
    recipe = tiny.write_recipe(tmp_path / "r.yaml", {"base": {"folder": "base"}}, quantize=methods)
    plan = tiny.build(recipe, tmp_path / "results")
    write_head(plan)
    for item in plan.quantized:
        quantize(plan, item, 1)
    return plan


def write_head(plan):
    """Write the header of quantized files, without the converter."""
    path = plan.layout.header(plan.conversion)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header({"general.architecture": encode("llama")}, []))


def test_a_quantized_file_awaits_and_takes_what_it_copies(ladder, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("HERDBOOK_CACHE", str(tmp_path / "cache"))
    add(ladder, configured())
    mixed, small = (find(result_jobs(ladder), "quantize", f"Tiny.{name}") for name in ("Q4_K_M", "Q4_K_S"))
    found = Nodes(ladder)
    assert names(found.awaited(mixed.copied)) == ["quantize Tiny.Q4_K_S"]
    assert found.awaited(small.copied) == []
    found.look_up()
    assert found.awaited(mixed.copied) == []

    def take_elsewhere(name):
        other = plans.load(ladder.recipe_path, tmp_path / name)
        job = find(result_jobs(other), "quantize", "Tiny.Q4_K_M")
        take(other, job, lambda one: write_head(other) if one.rule == "convert" else run(other, one))
        assert all(path.exists() for path in job.inputs)
        return job, [path.exists() for path in job.copied]

    # by hand, nothing is taken that is not needed; nor does it matter if no machine has made it
    assert take_elsewhere("by hand")[1] == [False, False]
    monkeypatch.setenv("HERDBOOK_RUN", "r")
    job, exist = take_elsewhere("there")
    assert exist == [True, True]
    for here, there in zip(mixed.copied, job.copied, strict=True):
        assert sha256_file(here) == sha256_file(there)
    (product,) = [one for one in products(ladder) if one.job == small]
    shutil.rmtree(tmp_path / "cache" / product.entry)
    assert take_elsewhere("alone")[1] == [False, False]
