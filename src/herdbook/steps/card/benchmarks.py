"""Results of the Hub's benchmarks, in the form in which the Hub reads them: ``.eval_results/TASK.yaml``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from herdbook.errors import StepError
from herdbook.layout import EVALUATIONS, eval_results
from herdbook.plan.evaluate import measured_as

if TYPE_CHECKING:
    from decimal import Decimal

    from herdbook.plan import Plan
    from herdbook.recipe.benchmarks import Benchmark
    from herdbook.steps.card.results import Measurement

DECIMALS = 6  # of a result


def benchmark_texts(plan: Plan, own: Measurement | None) -> dict[str, str]:
    """Return the files on benchmarks, by their names in the release.

    Args:
        plan: The plan.
        own: The released model's measurement.

    Raises:
        StepError: If a benchmark's metric was not measured, or is better when lower.
    """
    if own is None:
        return {}
    return {
        eval_results(benchmark.task): _text(plan, index, benchmark, own)
        for index, benchmark in enumerate(plan.recipe.benchmarks)
    }


def _text(plan: Plan, index: int, benchmark: Benchmark, own: Measurement) -> str:
    where, result = f"benchmarks.{index}", own.results[benchmark.task]
    score = result.scores.get(benchmark.metric)
    if score is None:
        raise StepError(
            f"{where}.metric: {benchmark.task} has no {benchmark.metric!r}; it has {'; '.join(result.scores)}"
        )
    if not score.higher_is_better or score.value > 1:
        raise StepError(
            f"{where}.metric: {benchmark.metric} is not a share of right answers, and `scale` would not apply"
        )
    dataset, _, revision = benchmark.dataset.partition("@")
    item = next(i for i in measured_as(plan.evaluations, own.name) if benchmark.task in i.group.names)
    repo = plan.recipe.release.repo
    error = "" if score.stderr is None else f" ± {_scaled(score.stderr, benchmark):g}"
    entry = EvalResultEntry(
        dataset_id=dataset,
        task_id=benchmark.id,
        value=_scaled(score.value, benchmark),
        dataset_revision=revision or _revision(plan, dataset),
        source_url=f"https://huggingface.co/{repo}/blob/main/{EVALUATIONS}/{item.id}.json" if repo else None,
        source_name="Measurement by Herdbook" if repo else None,
        notes=f"lm-eval {own.versions['lm_eval']}: {score.metric} of {result.documents} documents{error}, "
        f"{result.dtype}",
    )
    body = eval_result_entries_to_yaml([entry])
    return yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=1000)


def _revision(plan: Plan, repo: str) -> str:
    """Return the commit of a data set that was measured."""
    return next(one.revision for one in plan.lock.data_sets.values() if one.repo == repo)


def _scaled(value: Decimal, benchmark: Benchmark) -> float:
    return float(round(value * benchmark.scale, DECIMALS))
