"""Results of groups as a whole: derived from their tasks as lm-eval does, on the card, in claims, and checked by verify."""

from types import SimpleNamespace

import numpy as np
import pytest

from herdbook.comparison.groups import derive, follows
from herdbook.lock import LockedTask
from herdbook.verify.results.measurement import wholes

SIZES = {"a": 3, "b": 5, "c": 2}
RESULTS = {"a": [1, 0, 1], "b": [0, 0, 1, 1, 1], "c": [1, 1]}


def locked(**entry):
    config = {"aggregate_metric_list": [{"metric": "acc", **entry}]} if entry else {}
    inner = {"config": {}, "members": ("b", "c")}
    return LockedTask(
        name="all",
        definitions={name: {"task": name} for name in SIZES},
        groups={"all": {"config": config, "members": ("a", "inner")}, "inner": inner},
    )


def tasks():
    """The results of the tasks, as lm-eval has them: the standard error is that of a mean."""
    return {
        name: {
            "documents": len(values),
            "metrics": {
                "acc": {
                    "value": float(f"{np.mean(values):.6g}"),
                    "stderr": float(f"{np.std(values, ddof=1) / len(values) ** 0.5:.6g}"),
                    "higher_is_better": True,
                }
            },
        }
        for name, values in RESULTS.items()
    }


@pytest.mark.parametrize("by_size", [True, False])
def test_a_group_s_result_is_lm_eval_s_own(by_size):
    from lm_eval.api.metrics import (
        aggregate_subtask_metrics,
        pooled_sample_stderr,
        unweighted_mean_stderr,
    )

    own = tasks()
    found = derive(locked(weight_by_size=by_size), "all", own)
    values, errors = ([own[name]["metrics"]["acc"][kind] for name in SIZES] for kind in ("value", "stderr"))
    sizes = list(SIZES.values())
    score = found["metrics"]["acc"]
    assert score["value"] == pytest.approx(aggregate_subtask_metrics(values, sizes, by_size))
    error = pooled_sample_stderr(errors, sizes) if by_size else unweighted_mean_stderr(errors)
    assert score["stderr"] == pytest.approx(error)
    assert (found["documents"], found["tasks"]) == (10, ["a", "b", "c"])
    assert score["aggregation"] == ("documents" if by_size else "tasks")


def test_a_group_without_aggregation_has_no_result():
    assert derive(locked(), "all", tasks())["metrics"] == {}


def test_a_stated_result_may_be_rounded_and_not_another_one():
    own = derive(locked(weight_by_size=True), "all", tasks())
    score = own["metrics"]["acc"]

    def stated(**change):
        return {**own, "metrics": {"acc": {**score, **change}}}

    assert follows(stated(value=float(f"{score['value']:.6g}")), own)
    assert not follows(stated(value=score["value"] + 1e-4), own)
    assert not follows(stated(stderr=None), own)
    assert not follows(stated(higher_is_better=False), own)
    assert not follows({**own, "documents": 11}, own)
    assert not follows({**own, "metrics": {}}, own)


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        (lambda groups: groups, False),
        (lambda groups: {**groups, "all": {**groups["all"], "documents": 9}}, True),
        (lambda _: {}, True),
        (lambda groups: {**groups, "more": groups["all"]}, True),
    ],
)
def test_a_verifier_compares_what_is_stated_of_groups(change, caught):
    own, task = tasks(), locked(weight_by_size=True)
    item = SimpleNamespace(group=SimpleNamespace(tasks=((task, None),)))
    found = {"tasks": own, "groups": change({"all": derive(task, "all", own)})}
    stated, derived = wholes(item, found)
    assert (stated != derived) is caught
