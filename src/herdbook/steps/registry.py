"""The step function of each rule. A step, and with it torch, is imported when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.steps.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.plan import (
        Evaluation,
        EvaluationData,
        FileLoss,
        Imatrix,
        Node,
        Part,
        Plan,
        Quantized,
        Reference,
        RoutingReport,
        Search,
    )
    from herdbook.plan.job import Job

    # Takes a plan, the subject of the job in it (None for the release as a whole), and the machine.
    Step = Callable[[Plan, Any, Machine], None]

THIS_MACHINE = Machine()


def run(plan: Plan, job: Job, machine: Machine = THIS_MACHINE) -> None:
    """Run a job. Its inputs must exist; its outputs are written, and existing ones replaced.

    Args:
        plan: The plan that the job belongs to.
        job: The job.
        machine: The settings of this machine.

    Raises:
        HerdbookError: As the step raises it.
        KeyError: If the rule has no step: `verify` and `restore` make nothing that a plan describes.
    """
    STEPS[job.rule](plan, job.subject, machine)


def _fetch(plan: Plan, part: Part, _: Machine) -> None:
    from herdbook.steps.fetch.step import fetch

    fetch(plan, part)


def _laser(plan: Plan, part: Part, machine: Machine) -> None:
    from herdbook.steps.laser.step import laser

    laser(plan, part, machine.matrices_at_once(plan, part), machine.device_of(part.key))


def _adapter(plan: Plan, part: Part, _: Machine) -> None:
    from herdbook.steps.adapter.step import adapter

    adapter(plan, part)


def _merge(plan: Plan, part: Part, _: Machine) -> None:
    from herdbook.steps.merge.step import merge

    merge(plan, part)


def _moe(plan: Plan, part: Part, _: Machine) -> None:
    from herdbook.steps.moe.step import moe

    moe(plan, part)


def _compress(plan: Plan, part: Part, _: Machine) -> None:
    from herdbook.steps.compress.step import compress

    compress(plan, part)


def _search(plan: Plan, search: Search, machine: Machine) -> None:
    from herdbook.steps.laser.search import search as step

    step(plan, search, machine.threads, machine.device_of(search.key))


def _assemble(plan: Plan, node: Node, _: Machine) -> None:
    from herdbook.steps.assemble.step import assemble

    assemble(plan, node)


def _files(plan: Plan, node: Node, _: Machine) -> None:
    from herdbook.steps.assemble.step import write_config_files

    write_config_files(plan, node)


def _routing(plan: Plan, report: RoutingReport, machine: Machine) -> None:
    from herdbook.steps.routing.step import routing

    routing(plan, report, machine.threads, machine.device_of(report.key))


def _data(plan: Plan, item: EvaluationData, _: Machine) -> None:
    from herdbook.steps.evaluate.data import data

    data(plan, item)


def _evaluate(plan: Plan, item: Evaluation, machine: Machine) -> None:
    from herdbook.steps.evaluate.step import evaluate

    evaluate(plan, item, machine.threads, machine.devices_of(plan, item))


def _convert(plan: Plan, _: None, __: Machine) -> None:
    from herdbook.steps.quantize.step import convert

    convert(plan)


def _imatrix(plan: Plan, item: Imatrix, machine: Machine) -> None:
    from herdbook.steps.imatrix.step import imatrix

    imatrix(plan, item, machine.threads)


def _quantize(plan: Plan, item: Quantized, machine: Machine) -> None:
    from herdbook.steps.quantize.step import quantize

    quantize(plan, item, machine.threads)


def _reference(plan: Plan, item: Reference, machine: Machine) -> None:
    from herdbook.steps.loss.step import reference

    reference(plan, item, machine.threads)


def _loss(plan: Plan, item: FileLoss, machine: Machine) -> None:
    from herdbook.steps.loss.step import loss

    loss(plan, item, machine.threads)


def _card(plan: Plan, _: None, __: Machine) -> None:
    from herdbook.steps.card.step import render_card

    for one in plan.editions:
        render_card(one, one.layout.card_folder)


def _release(plan: Plan, _: None, __: Machine) -> None:
    from herdbook.steps.release.step import release

    for one in reversed(
        plan.editions
    ):  # losses are checked with the quantized files, before anything is released
        release(one)


def _attest(plan: Plan, _: None, machine: Machine) -> None:
    from herdbook.steps.attest.step import attest

    for one in plan.editions:
        attest(one, machine.signer)


STEPS: dict[str, Step] = {
    "fetch": _fetch,
    "laser": _laser,
    "adapter": _adapter,
    "merge": _merge,
    "moe": _moe,
    "compress": _compress,
    "search": _search,
    "files": _files,
    "assemble": _assemble,
    "routing": _routing,
    "data": _data,
    "evaluate": _evaluate,
    "convert": _convert,
    "imatrix": _imatrix,
    "quantize": _quantize,
    "reference": _reference,
    "loss": _loss,
    "card": _card,
    "release": _release,
    "attest": _attest,
}
