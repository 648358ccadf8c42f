"""What lm-eval reports and what a measurement states are the same: values, standard errors, filters, samples, counts."""

import json

import pytest
import torch

from herdbook.steps.evaluate.measure import measure
from support import tiny

QUESTIONS = {
    "task": "words",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{gold}}",
}
# As GSM8K has it: one generated text, from which two filters take different answers.
GENERATED = {
    "task": "generated",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[0]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
    "filter_list": [
        {
            "name": "strict",
            "filter": [{"function": "regex", "regex_pattern": "^(w1)"}, {"function": "take_first"}],
        },
        {
            "name": "flexible",
            "filter": [
                {"function": "regex", "regex_pattern": "(w[0-9])", "group_select": -1},
                {"function": "take_first"},
            ],
        },
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
TEXT = {
    "task": "text",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{question}} {{choices[1]}}",
    "metric_list": [{"metric": name} for name in ("word_perplexity", "bits_per_byte")],
}
# A metric whose standard error lm-eval takes from a bootstrap.
BOOTSTRAPPED = {
    **QUESTIONS,
    "task": "bootstrapped",
    "metric_list": [{"metric": "acc", "aggregation": "median", "higher_is_better": True}],
}
TASKS = (QUESTIONS, GENERATED, TEXT, BOOTSTRAPPED)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    data = tmp_path_factory.mktemp("data") / "data.jsonl"
    documents = [
        {"question": f"w{number} w9" + " w3" * number, "choices": ["w1", "w2 w3"], "gold": number % 2}
        for number in range(7)
    ]
    data.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    where = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
    }
    return [{**task, **where} for task in TASKS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("model") / "base", seed=3)


def load(folder, dtype):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return {
        "pretrained": AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval(),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
    }


@pytest.mark.parametrize(("dtype", "batch_size"), [(torch.float32, 4), (torch.bfloat16, 1)])
def test_what_lm_eval_reports_and_what_is_stated_differ_in_nothing(
    tasks, folder, monkeypatch, dtype, batch_size
):
    import lm_eval
    import lm_eval.evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from herdbook.inference.threads import one_thread_a_matrix
    from herdbook.steps.evaluate import measure as module
    from herdbook.steps.evaluate.parallel import ParallelHFLM

    monkeypatch.setattr(module, "BOOTSTRAPS", 1000)  # of the 100000 that take a minute
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    monkeypatch.setattr(
        lm_eval.evaluator, "add_env_info", lambda _: None
    )  # of the machine, which takes a second
    loaded = load(folder, dtype)
    ours = measure(lambda: ParallelHFLM(2, batch_size, **loaded), tasks, None)
    with one_thread_a_matrix():
        theirs = lm_eval.simple_evaluate(
            model=HFLM(batch_size=batch_size, **loaded),
            tasks=[dict(task) for task in tasks],
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=1000,
        )
    for task in tasks:
        name = task["task"]
        stated, reported = ours.tasks[name], theirs["results"][name]
        assert stated["documents"] == theirs["n-samples"][name]["effective"] == 7
        labels = {key for key in reported if "," in key and "_stderr," not in key}
        assert {key if "," in key else f"{key},none" for key in stated["metrics"]} == labels
        for key, score in stated["metrics"].items():
            metric, _, filter_name = key.partition(",")
            value, error = (
                reported[f"{name},{filter_name or 'none'}"] for name in (metric, f"{metric}_stderr")
            )
            assert score["value"] == float(f"{value:.6g}")
            if metric != "bits_per_byte":  # of which lm-eval has none
                assert score["stderr"] == (None if error == "N/A" else float(f"{error:.6g}"))
    assert ours.tasks["bootstrapped"]["metrics"]["acc"]["stderr"] > 0
    assert set(ours.tasks["generated"]["metrics"]) == {"exact_match,strict", "exact_match,flexible"}
    assert [one.document for one in ours.samples] == 4 * list(range(7))
    hashes = {
        (name, one["doc_id"]): one["doc_hash"] for name, found in theirs["samples"].items() for one in found
    }
    assert {(one.task, one.document): one.sha256 for one in ours.samples} == hashes
