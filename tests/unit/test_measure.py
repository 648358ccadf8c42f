"""Reading lm-eval's results: every document is counted once, and no value of a metric is dropped."""

import numpy as np
import pytest

from herdbook.errors import StepError
from herdbook.steps.evaluate.measure import summarize


def results_of(values, documents):
    """Return lm-eval's results of a task ``t``, with a sample for each of these documents."""
    samples = [{"doc_id": document} for document in documents]
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
        "metrics": {"acc": {"value": 0.5, "stderr": None, "higher_is_better": True}},
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
