"""The jobs of a build, as they follow from its plan.

This is the only graph of jobs. The workflow's rules, the command line, the cache, and everything that inspects a build
read it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from herdbook.graph import reachable
from herdbook.layout import SUMS
from herdbook.plan.card import card_files, card_inputs, card_key
from herdbook.plan.folder import folder_paths, read_files, weights_files
from herdbook.plan.job import Job
from herdbook.plan.release import (
    attest_key,
    attested_files,
    contents,
    release_key,
    verification_key,
    written_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from herdbook.plan.data import EvaluationData
    from herdbook.plan.imatrix import Imatrix
    from herdbook.plan.model import Node, Part
    from herdbook.plan.plan import Plan
    from herdbook.plan.quantize import Quantized
    from herdbook.plan.release import SignerIdentity

# Rules that exist once per model, such as assemble_<model>.
ASSEMBLE = "assemble"
FILES = "files"
OF_A_MODEL = (ASSEMBLE, FILES)
# Steps whose names are targets, for all of their jobs; the rules of these jobs are `evaluate_one` and `quantize_one`.
TARGETS = ("evaluate", "quantize")
DATA = "data"  # a single job, with as many files as the data sets have
RESTORE = "restore"  # takes single files from the cache; not a job of the plan


def all_jobs(plan: Plan, signer: SignerIdentity | None = None) -> list[Job]:
    """Return all jobs of a plan, each after those whose files it reads.

    They include jobs that the release does not need, such as assembling a model that no other job reads as a whole.

    Args:
        plan: The plan.
        signer: The signer of the claims; None if they are not signed.
    """
    return [*result_jobs(plan), *_release(plan, signer)]


def result_jobs(plan: Plan) -> list[Job]:
    """Return the jobs whose results have their key in their names: models, quantized files, measurements.

    A result that several names of a recipe refer to is made by one job.
    """
    return [*model_jobs(plan), *_once(_measured(plan))]


def model_jobs(plan: Plan) -> list[Job]:
    """Return the jobs that make the models of a plan, each as a folder that transformers can load."""
    return _once(_models(plan))


def _once(jobs: Iterable[Job]) -> list[Job]:
    """Return jobs with those that make the same files joined into the first, which gets the names of the others' models."""
    by_outputs: dict[tuple[Path, ...], Job] = {}
    for job in jobs:
        first = by_outputs.setdefault(job.outputs, job)
        if first is not job:
            by_outputs[job.outputs] = replace(first, also=(*first.also, *job.also))
    return list(by_outputs.values())


def jobs(plan: Plan, signer: SignerIdentity | None = None) -> list[Job]:
    """Return the jobs that a build of the release runs, each after those whose files it reads.

    Args:
        plan: The plan.
        signer: The signer of the claims; None if they are not signed.
    """
    every = all_jobs(plan, signer)
    return needed(every, every[-1:])


def needed_results(plan: Plan) -> list[Job]:
    """Return those of ``result_jobs`` that the release is made from, each after those whose files it reads."""
    every = result_jobs(plan)
    read = {path for one in plan.editions for path in (*contents(one).values(), *card_inputs(one))}
    return needed(every, [job for job in every if not read.isdisjoint(job.outputs)])


def needed(every: list[Job], last: Iterable[Job]) -> list[Job]:
    """Return the jobs that the last ones are made from, with these, in order."""
    makers = {path: job for job in every for path in job.outputs}
    found = set(reachable(last, lambda job: [makers[path] for path in job.inputs if path in makers]))
    return [job for job in every if job in found]


def _models(plan: Plan) -> Iterator[Job]:
    layout = plan.layout
    for node in plan.nodes.values():

        def other_name(model: str, name: str = node.name) -> tuple[str, ...]:
            return (name,) if name != model else ()

        if search := node.search:
            read = folder_paths(plan, plan.nodes[search.parent])
            yield Job(
                "search",
                search.id,
                search.key,
                read,
                (layout.search(search),),
                search,
                also=other_name(search.model),
            )
        for part in node.parts:
            files = (layout.shard(part), layout.record(part))
            yield Job(
                part.rule,
                part.id,
                part.key,
                _part_inputs(plan, part),
                files,
                part,
                part.size_bytes,
                other_name(part.model),
            )
        first = plan.by_key[node.key]
        also = other_name(first.name)
        linked = (*(layout.shard(part) for part in node.parts), *read_files(plan, node))
        folder = folder_paths(plan, node)
        if node.files_from == node.name:
            # Models that descend from a source need its configuration and tokenizer, but not its weights.
            count = len(weights_files(node))
            if node.files:
                yield Job(FILES, node.id, node.key, (), folder[count:], first, also=also)
            folder = folder[:count]
        yield Job(ASSEMBLE, node.id, node.key, linked, folder, first, also=also)


def _part_inputs(plan: Plan, part: Part) -> tuple[Path, ...]:
    parents = [plan.parts[key] for key in part.parents]
    search = plan.searches.get(part.operation.search_key or "")
    return (
        *([plan.layout.search(search)] if search else []),
        *(plan.layout.shard(parent) for parent in parents),
        *(plan.layout.record(parent) for parent in parents),
        *(path for key in part.operation.folders for path in folder_paths(plan, plan.by_key[key])),
    )


def _measured(plan: Plan) -> Iterator[Job]:
    layout, released = plan.layout, folder_paths(plan, plan.released)
    if report := plan.report:
        yield Job("routing", report.id, report.key, released, (layout.report(report),), report)
    if plan.quantized:
        item = plan.conversion
        header = layout.header(item)
        yield Job("convert", item.id, item.key, released, (header,), item)
        if matrix := plan.imatrix:
            yield Job(
                "imatrix",
                matrix.id,
                matrix.key,
                _matrix_inputs(plan, matrix),
                matrix_files(plan, matrix),
                matrix,
            )
        for quantized in plan.quantized:
            size, read = quantized.size_bytes, (header, *released)
            if quantized.imatrix:
                read += matrix_files(plan, quantized.imatrix)
            files = _quantized_files(plan, quantized)
            copied = tuple(
                path for one in plan.siblings[quantized.id] for path in _quantized_files(plan, one)
            )
            yield Job("quantize", quantized.id, quantized.key, read, files, quantized, size, copied=copied)
    yield from _losses(plan)
    data: tuple[Path, ...] = ()
    if item_data := plan.data:
        data = data_paths(plan, item_data)
        yield Job(DATA, item_data.id, item_data.key, (), data, item_data)
    for measured in plan.evaluations:
        read = (*folder_paths(plan, measured.node), *data)
        if measured.quantized:
            read += _quantized_files(plan, measured.quantized)
        else:
            read += _records(plan, measured.node)
        also = (measured.label,) if measured.made_as else ()
        result = (layout.evaluation(measured), layout.samples(measured))
        yield Job("evaluate", measured.id, measured.key, read, result, measured, also=also)


def _losses(plan: Plan) -> Iterator[Job]:
    layout, reference = plan.layout, plan.reference
    if reference is None:
        return
    released = folder_paths(plan, reference.node)  # of an encoded model, the one at full width
    kept = (layout.reference(reference), layout.reference_record(reference))
    yield Job("reference", reference.id, reference.key, released, kept, reference)
    for item in plan.losses:
        read = (*released, *kept)
        if item.quantized:
            read += _quantized_files(plan, item.quantized)
        if item.encoded:
            read += (*folder_paths(plan, item.encoded), *_records(plan, item.encoded))
        yield Job("loss", item.id, item.key, read, (layout.loss(item),), item)


def _records(plan: Plan, node: Node) -> tuple[Path, ...]:
    """Return the records of a model's shards, from which a measurement of it takes the digests of its files."""
    return tuple(plan.layout.record(part) for part in node.parts)


def matrix_files(plan: Plan, matrix: Imatrix) -> tuple[Path, ...]:
    """Return the files of an importance matrix: itself, and its record."""
    return plan.layout.matrix(matrix), plan.layout.matrix_record(matrix)


def _quantized_files(plan: Plan, item: Quantized) -> tuple[Path, ...]:
    return plan.layout.quantized(item), plan.layout.quantized_record(item)


def _matrix_inputs(plan: Plan, matrix: Imatrix) -> tuple[Path, ...]:
    given = (plan.beside_recipe(matrix.given.name),) if matrix.given and not matrix.commit else ()
    return (*folder_paths(plan, plan.released), *given)


def data_paths(plan: Plan, data: EvaluationData) -> tuple[Path, ...]:
    """Return the files of data sets, and the record of what tasks find in them."""
    files = [plan.layout.data(data, one.folder, file.name) for _, one in data.data_sets for file in one.files]
    return (*files, plan.layout.data_record(data))


def _release(plan: Plan, signer: SignerIdentity | None) -> Iterator[Job]:
    """Yield the jobs of the releases: each makes both, if the quantized files have one of their own."""
    editions = plan.editions
    card = tuple(one.layout.card_folder / name for one in editions for name in card_files(one))
    taken = tuple(dict.fromkeys(path for one in editions for path in contents(one).values()))
    written = tuple(one.layout.release_folder / name for one in editions for name in written_files(one))
    attested = tuple(one.layout.release_folder / name for one in editions for name in attested_files(signer))
    yield Job("card", "", card_key(plan), tuple(card_inputs(plan)), card)
    yield Job("release", "", release_key(plan), taken, written)
    yield Job("attest", "", attest_key(plan, signer), written, attested)
    sums = tuple(one.layout.release_folder / SUMS for one in editions)
    verified = tuple(path for one in editions for path in (one.layout.verification, one.layout.page))
    yield Job("verify", "", verification_key(plan, signer), (*sums, *attested), verified)
