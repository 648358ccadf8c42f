"""Reading lm-eval's results: every document is counted once, and no value of a metric is dropped."""

import numpy as np
import pytest

from herdbook.errors import StepError
from herdbook.steps.evaluate.measure import summarize


def results_of(values, documents, **by_document):
    """Return lm-eval's results of a task ``t``, with a sample for each of these documents."""
    samples = [
        {"doc_id": document, **{metric: own[index] for metric, own in by_document.items()}}
        for index, document in enumerate(documents)
    ]
    return {"results": {"t": values}, "higher_is_better": {}, "samples": {"t": samples}}


def test_documents_are_counted_once_for_all_filters():
    values = {
        "alias": "t",
        "sample_len": 2,
        "acc,none": np.float32(0.5),  # numpy's numbers are numbers, too
        "acc_stderr,none": "N/A",
    }
    assert summarize({"task": "t"}, results_of(values, [0, 1, 0, 1])) == {
        "title": "t",
        "documents": 2,
        "metrics": {"acc": {"value": 0.5, "stderr": None, "higher_is_better": True, "aggregation": "mean"}},
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"acc,strict": 0.5, "acc,flexible": 0.75}, "several values of acc of t"),
        ({"acc,none": [0.5]}, r"\[0\.5\] as acc of t, which is not a number"),
    ],
)
def test_no_value_of_a_metric_is_dropped(values, message):
    with pytest.raises(StepError, match=message):
        summarize({"task": "t"}, results_of(values, [0]))


def spread(metric, own, **task):
    """Return the standard error of a metric with these values of documents."""
    values = {f"{metric},none": 0.5, f"{metric}_stderr,none": "N/A"}
    results = results_of(values, range(len(own)), **{metric: own})
    return summarize({"task": "t", **task}, results)["metrics"][metric]["stderr"]


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "exact_match"])
def test_a_mean_has_the_standard_error_that_lm_eval_gives(metric):
    from lm_eval.api.metrics import mean_stderr

    own = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    assert spread(metric, own) == pytest.approx(mean_stderr(own), rel=1e-5)
    share = np.mean(own)
    assert spread(metric, own) == pytest.approx(np.sqrt(share * (1 - share) / (len(own) - 1)), rel=1e-5)
    listed = [{"metric": metric, "aggregation": "mean", "higher_is_better": True}]
    assert spread(metric, own, metric_list=listed) == spread(metric, own)


def test_what_is_no_mean_or_of_one_document_has_no_standard_error():
    assert spread("acc", [1.0]) is None
    assert spread("acc", [1.0, 0.0, 1.0], metric_list=[{"metric": "acc", "aggregation": "median"}]) is None
    assert spread("byte_perplexity", [(-3.0, 2), (-4.0, 3)]) is None
    assert spread("f1", [(0, 1), (1, 1)]) is None
