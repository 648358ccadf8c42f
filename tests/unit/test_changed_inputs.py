"""A step whose input was changed after it was made names the file, and what to do; what it would have made does not exist."""

import re

import pytest

from herdbook import plan as plans
from herdbook.errors import DigestMismatchError
from herdbook.plan.jobs import all_jobs
from herdbook.steps.registry import run
from herdbook.weights.checkpoint import read_header
from support import tiny

MODELS = {
    "base": {"folder": "base"},
    "laser": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.up_proj"], "layers": [1]},
    "merge": {"merge": {"method": "linear", "models": [{"model": "base"}, {"model": "base"}]}},
    "adapter": {"adapter": "adapter", "on": "base"},
    "moe": {
        "moe": {
            "base": "base",
            "gate": "random",
            "experts": [{"model": "base"}, {"model": "base", "noise_scale": 0.1}],
        }
    },
}
UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A plan of models that are made from one source, which is fetched; and the source's shard."""
    folder = tmp_path_factory.mktemp("changed")
    tiny.write_model(folder / "base")
    tiny.write_adapter(folder / "adapter", folder / "base")
    evaluate = {"tasks": [tiny.write_task(folder / "task.yaml").name], "models": list(MODELS)}
    recipe = tiny.write_recipe(folder / "r.yaml", MODELS, evaluate=evaluate)
    tiny.lock(recipe)
    plan = plans.load(recipe, folder / "results")
    (fetch,) = [job for job in all_jobs(plan) if job.rule == "fetch"]
    run(plan, fetch)
    return plan, fetch.outputs[0]


@pytest.mark.parametrize(
    ("rule", "tensor"),
    [
        ("laser", UP),  # is read
        ("laser", NORM),  # is copied
        ("merge", NORM),
        ("adapter", UP),
        ("adapter", NORM),
        ("moe", UP),  # becomes that of an expert
        ("moe", NORM),
    ],
)
def test_an_input_that_was_changed_is_named_with_what_to_do(source, rule, tensor):
    plan, shard = source
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[read_header(shard)[tensor].start] ^= 1
    shard.write_bytes(damaged)
    refused = []
    try:
        for job in all_jobs(plan):
            if job.rule == rule:
                try:
                    run(plan, job)
                except DigestMismatchError as error:
                    refused.append(str(error))
                    assert not any(path.exists() for path in job.outputs)
    finally:
        shard.write_bytes(whole)
        for job in all_jobs(plan):
            for path in job.outputs if job.rule == rule else ():
                path.unlink(missing_ok=True)
    assert refused
    for message in refused:
        assert re.fullmatch(
            rf"{re.escape(str(shard))}: tensor {re.escape(tensor)}: expected digest \w{{64}}, found \w{{64}}\. The file was damaged or "
            r"changed after it was made: delete it and run the build again\.",
            message,
        )
