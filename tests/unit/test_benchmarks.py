"""Results of the Hub's benchmarks in a release: read back by the Hub's own client, and checked against the measurement."""

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from herdbook import plan as plans
from herdbook.errors import RecipeError, StepError
from herdbook.recipe import load
from herdbook.steps.card.step import card_texts, render_card
from support import benchmarks as stand_ins
from support import measured, tiny
from support.lies import KEY, sign, write_bills
from support.verification import failures

OTHER_COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = {"folder": "base"}
BENCHMARK = {
    "task": "held_out",
    "metric": "exact_match",
    "dataset": "openai/gsm8k",
    "id": "gsm8k",
    "scale": 100,
}


def write(folder, *benchmarks, source=SOURCE, **changes):
    return tiny.write_recipe(
        folder / "r.yaml",
        {"base": source},
        evaluate={"tasks": ["task.yaml"], "models": ["base"], "dtype": "bfloat16", **changes},
        release={"repo": "herd/tiny"},
        benchmarks=list(benchmarks),
    )


def write_task(folder, metric="exact_match"):
    """Write a task over a data set on the Hub."""
    tiny.write_model(folder / "base", seed=1)
    path = tiny.write_task(
        folder / "task.yaml", metric=None if metric == "bits_per_byte" else {"metric": metric}
    )
    task = yaml.safe_load(path.read_text(encoding="utf-8"))
    del task["dataset_kwargs"]
    task |= {"dataset_path": "openai/gsm8k", "dataset_name": "main", "doc_to_target": "{{question}}"}
    path.write_text(yaml.safe_dump(task), encoding="utf-8")


def build(folder, hub, *benchmarks, metric="exact_match", source=SOURCE):
    stand_ins.gsm8k(hub)
    write_task(folder, metric)
    plan = tiny.build(write(folder, *benchmarks, source=source), folder / "results")
    [item] = plan.evaluations
    measured.write(plan, item, [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], metric=metric, stderr=0.184428)
    return plan


def test_the_hub_s_client_reads_what_was_measured(tmp_path, local_hub_client):
    plan = build(tmp_path, local_hub_client, BENCHMARK)
    commit = plan.lock.data_sets["openai/gsm8k"].revision
    texts = card_texts(plan)
    [entry] = parse_eval_result_entries(yaml.safe_load(texts[".eval_results/held_out.yaml"]))
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("openai/gsm8k", "gsm8k", commit)
    assert entry.value == 28.5714  # 2 of 7, in percent, of a measurement with six digits
    assert entry.notes.endswith(": exact_match of 7 documents ± 18.4428, bfloat16")
    [item] = plan.evaluations
    assert entry.source_url.endswith(f"herd/tiny/blob/main/provenance/evaluations/{item.id}.json")
    assert entry.date is None  # releases of the same lock are the same bytes
    [result] = ModelCard(texts["README.md"]).data.eval_results
    assert (result.metric_name, result.metric_value) == ("exact match", 0.285714)
    assert (result.metric_args, result.dataset_args) == ({"stderr": 0.184428}, {"documents": 7})
    assert "in bfloat16; value ± standard error" in texts["README.md"]


def test_a_builder_who_lies_in_a_result_is_caught(tmp_path, local_hub_client):
    tiny.write_model(tmp_path / "base", seed=1)
    files = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    local_hub_client.add_repo("herd/base", files, license="apache-2.0")
    plan = build(tmp_path, local_hub_client, {**BENCHMARK, "scale": 1}, source={"hub": "herd/base"})
    render_card(plan, plan.layout.card_folder)
    folder = tiny.release(plan, KEY)
    name = ".eval_results/held_out.yaml"
    assert not failures(folder, "recomputed")
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("0.285714", "0.985714"))
    write_bills(folder, plan)
    sign(folder, plan)
    assert failures(folder, "recomputed") == {("recomputed", "card", name)}


@pytest.mark.parametrize(
    ("change", "metric", "message"),
    [
        ({"metric": "acc"}, "exact_match", "benchmarks.0.metric: held_out has no 'acc'; it has exact_match"),
        ({"metric": "bits_per_byte"}, "bits_per_byte", "is not a share of right answers"),
    ],
)
def test_a_metric_that_is_not_there_or_no_share_is_refused(
    tmp_path, local_hub_client, change, metric, message
):
    with pytest.raises((RecipeError, StepError), match=message):
        card_texts(build(tmp_path, local_hub_client, BENCHMARK | change, metric=metric))


@pytest.mark.parametrize(
    ("asked", "change", "message"),
    [
        (
            {"limit": 2},
            {},
            "benchmarks.0.task: only 2 documents of held_out are measured .its limit., which is no result of a benchmark",
        ),
        (
            {},
            {"dataset": "herd/gsm8k"},
            r"benchmarks.0.dataset: held_out reads openai/gsm8k@\w{40}, not herd/gsm8k",
        ),
        (
            {},
            {"dataset": f"openai/gsm8k@{OTHER_COMMIT}"},
            rf"benchmarks.0.dataset: held_out reads openai/gsm8k@\w{{40}}, not the commit {OTHER_COMMIT}",
        ),
    ],
)
def test_a_part_of_a_benchmark_and_other_data_are_refused(tmp_path, local_hub_client, asked, change, message):
    stand_ins.gsm8k(local_hub_client)
    write_task(tmp_path)
    recipe = write(tmp_path, BENCHMARK | change, tasks=[{"task": "task.yaml", **asked}])
    tiny.lock(recipe)
    with pytest.raises(RecipeError, match=message):
        plans.load(recipe)


def test_data_of_its_own_are_no_benchmark(tmp_path):
    tiny.write_model(tmp_path / "base", seed=1)
    tiny.write_task(tmp_path / "task.yaml", metric={"metric": "exact_match"})
    recipe = write(tmp_path, BENCHMARK)
    tiny.lock(recipe)
    with pytest.raises(RecipeError, match="held_out reads files of its own, not openai/gsm8k"):
        plans.load(recipe)


@pytest.mark.parametrize(
    ("benchmarks", "changes", "message"),
    [
        ([BENCHMARK], {"limit": 4}, "benchmarks: evaluate.limit measures only 4 documents"),
        ([BENCHMARK, BENCHMARK], {}, "benchmarks.1.task: held_out is named twice"),
        ([{**BENCHMARK, "dataset": "gsm8k"}], {}, "benchmarks.0.dataset"),
        ([{**BENCHMARK, "scale": 10}], {}, "benchmarks.0.scale"),
    ],
)
def test_what_is_no_result_of_a_benchmark_is_refused_at_once(tmp_path, benchmarks, changes, message):
    with pytest.raises(RecipeError, match=message):
        load(write(tmp_path, *benchmarks, **changes))
