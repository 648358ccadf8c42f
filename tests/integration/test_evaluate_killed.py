"""An evaluation that is killed goes on from the answers that it has, and its results are the same bytes."""

import json
import signal
import subprocess
import sys

import pytest
import yaml

from herdbook import plan as plans
from herdbook.plan.jobs import result_jobs
from herdbook.steps import registry
from herdbook.steps.machine import Machine
from support import tiny

KILLED = """
import os, signal, sys
from pathlib import Path
from herdbook import plan as plans
from herdbook.plan.jobs import result_jobs
from herdbook.steps import registry
from herdbook.steps.evaluate.answers import Answers

own, kept = Answers.keep, 0

def keep(self, *arguments):
    global kept
    own(self, *arguments)
    kept += 1
    if kept == 13:
        os.kill(os.getpid(), signal.SIGKILL)

Answers.keep = keep
plan = plans.load(Path(sys.argv[1]), Path(sys.argv[2]))
[job] = [job for job in result_jobs(plan) if job.rule == "evaluate"]
registry.run(plan, job)
"""


def write_tasks(folder):
    """Write a task of each kind of request over nine documents; return their names."""
    documents = [{"text": f"w{n} w{n + 1} w{n + 2}", "right": f"w{n}"} for n in range(9)]
    (folder / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "data.jsonl"}},
        "test_split": "test",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{right}}",
    }
    tasks = {
        "rolling": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"},
        "chosen": {
            "output_type": "multiple_choice",
            "doc_to_choice": ["w1", "w2 w3", "w4"],
            "doc_to_target": 0,
        },
        "generated": {
            "output_type": "generate_until",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
    }
    for name, own in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **common, **own}))
    return [f"{name}.yaml" for name in tasks]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A recipe with an evaluation, and the results up to it."""
    root = tmp_path_factory.mktemp("killed")
    tiny.write_model(root / "base", vocab=64)
    recipe = tiny.write_recipe(
        root / "r.yaml",
        {"base": {"folder": "base"}},
        evaluate={"tasks": write_tasks(root), "models": ["base"], "batch_size": 2},
    )
    tiny.lock(recipe)
    plan = plans.load(recipe, root / "results")
    jobs = result_jobs(plan)
    for job in jobs:
        if job.rule != "evaluate":
            registry.run(plan, job)
    [job] = [job for job in jobs if job.rule == "evaluate"]
    return recipe, plan, job


def run(plan, job):
    """Run an evaluation; return its files' bytes by name, and how many passes through the model it made."""
    from herdbook.steps.evaluate.parallel import HFLM

    passes, own = [], HFLM._model_call

    def counted(self, *arguments, **options):
        passes.append(1)
        return own(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HFLM, "_model_call", counted)
        registry.run(plan, job, Machine(threads=2))
    found = {path.name: path.read_bytes() for path in plan.layout.evaluation(job.subject).parent.iterdir()}
    return found, len(passes)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_ends_with_the_same_bytes(built):
    recipe, plan, job = built
    whole, passes = run(plan, job)
    assert not plan.layout.answers(job.subject).exists()
    for name in whole:
        (plan.layout.evaluation(job.subject).parent / name).unlink()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(recipe), str(plan.layout.root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = plan.layout.answers(job.subject)
    lines = kept.read_bytes().splitlines()
    assert len(lines) == 1 + 13  # its head, and the batches
    kept.write_bytes(b"\n".join(lines) + b'\n{"batch": "0')  # the next was only partly written
    found, left = run(plan, job)
    assert found == whole  # the answers are gone, too
    assert left == passes - 13


def test_answers_of_another_job_are_not_taken_over(built):
    _, plan, job = built
    whole, passes = run(plan, job)
    lie = {"batch": "0", "answers": [[0.0, True]]}
    head = {"key": "of another model"}
    plan.layout.answers(job.subject).write_text(f"{json.dumps(head)}\n{json.dumps(lie)}\n")
    assert run(plan, job) == (whole, passes)
