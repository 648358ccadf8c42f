"""What a measurement reads of how its model was made is among its job's inputs: else a cache restores the weights alone."""

from herdbook import plan as plans
from herdbook.plan.jobs import all_jobs
from herdbook.steps.evaluate import step
from support import tiny

MODELS = {
    "base": {"folder": "base"},
    "mix": {"moe": {"base": "base", "gate": "random", "experts": [{"model": "base"}, {"model": "base"}]}},
}


def test_the_records_that_an_evaluation_reads_are_its_inputs(tmp_path, monkeypatch):
    tiny.write_model(tmp_path / "base", shards=2)
    tiny.write_task(tmp_path / "task.yaml")
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml",
        MODELS,
        evaluate={"tasks": ["task.yaml"], "models": ["base"]},
        quantize={"methods": ["Q8_0"]},
    )
    tiny.lock(recipe)
    plan = plans.load(recipe, tmp_path / "results")
    read = []

    def read_record(path):
        read.append(path)
        return {"file": {"sha256": "0" * 64}}

    monkeypatch.setattr(step, "read_record", read_record)
    jobs = [job for job in all_jobs(plan) if job.rule == "evaluate"]
    counts = {}
    for job in jobs:
        read.clear()
        assert step._weights(plan, job.subject)
        assert set(read) <= set(job.inputs)
        counts[job.label] = len(read)
    assert counts["base"] == 2  # one for each of its files
    assert set(counts.values()) == {1, 2}  # one for a quantized file
