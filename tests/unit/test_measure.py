"""Reading lm-eval's results: its own values, standard errors and counts, of each metric and filter."""

import numpy as np
import pytest

from herdbook.comparison.samples import of_results
from herdbook.errors import StepError
from herdbook.steps.evaluate.measure import summarize


def results_of(values, documents=(0, 1), filters=("none",), **by_document):
    """Return lm-eval's results of a task ``t``: a sample for each of these documents and filters."""
    samples = [
        {
            "doc_id": document,
            "filter": name,
            "metrics": list(by_document),
            **{metric: own[index] for metric, own in by_document.items()},
        }
        for name in filters
        for index, document in enumerate(documents)
    ]
    return {
        "results": {"t": values},
        "higher_is_better": {},
        "samples": {"t": samples},
        "n-samples": {"t": {"original": 9, "effective": len(set(documents))}},
    }


def test_the_numbers_are_those_of_lm_eval():
    values = {
        "alias": "t",
        "sample_len": 2,
        "acc,none": np.float32(0.5),  # numpy's numbers are numbers, too
        "acc_stderr,none": 0.3535533905932738,
    }
    assert summarize({"task": "t"}, results_of(values)) == {
        "title": "t",
        "documents": 2,
        "metrics": {
            "acc": {"value": 0.5, "stderr": 0.353553, "higher_is_better": True, "aggregation": "mean"}
        },
    }


def test_each_filter_has_its_own_value_and_a_document_is_counted_once():
    values = {
        "exact_match,strict": 0.5,
        "exact_match_stderr,strict": 0.5,
        "exact_match,flexible": 1.0,
        "exact_match_stderr,flexible": "N/A",
    }
    results = results_of(values, filters=("strict", "flexible"), exact_match=[1.0, 0.0])
    for sample in results["samples"]["t"]:
        if sample["filter"] == "flexible":
            sample["exact_match"] = 1.0
    found = summarize({"task": "t"}, results)
    assert found["documents"] == 2
    assert {name: (score["value"], score["stderr"]) for name, score in found["metrics"].items()} == {
        "exact_match,strict": (0.5, 0.5),
        "exact_match,flexible": (1.0, None),
    }
    samples = of_results("t", results["samples"]["t"], found["metrics"])
    assert [(one.document, one.values) for one in samples] == [
        (0, {"exact_match,strict": 1, "exact_match,flexible": 1}),
        (1, {"exact_match,strict": 0, "exact_match,flexible": 1}),
    ]


@pytest.mark.parametrize("value", [[0.5], "0.5", float("nan"), float("-inf")])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(StepError, match="as acc of t, which is not a number"):
        summarize({"task": "t"}, results_of({"acc,none": value}))


def aggregation(metric, *listed):
    task = {"task": "t", "metric_list": list(listed)}
    results = results_of({f"{metric},none": 0.5})
    return summarize(task, results)["metrics"][metric]["aggregation"]


def test_an_aggregation_is_named_as_lm_eval_resolves_it():
    def mean(values):  # a task's own, with a name of lm-eval's
        return max(values)

    assert aggregation("acc") == "mean"
    assert aggregation("acc", {"metric": "acc", "aggregation": "median"}) == "median"
    assert aggregation("acc", {"metric": "acc", "aggregation": mean}) == "of the task"
    assert aggregation("acc", {"metric": "acc"}) == "mean"  # that of the registry
    # what a task computes without listing it, lm-eval averages
    assert aggregation("extra", {"metric": "acc", "aggregation": "median"}) == "mean"
