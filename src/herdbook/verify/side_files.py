"""The part of the level `claims` about the files beside the weights: configuration, tokenizer, chat template, index.

A file that is taken over from a source must have the digest that the lock pins, as must a tokenizer that gets more tokens; any
other file that is written for the model must be what the plan's own code writes. So neither can be altered without altering the lock, which the level `upstream` compares.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from herdbook.files import dump_json, git_blob_id
from herdbook.layout import CONFIG, LOCK, WEIGHTS_INDEX, input_file
from herdbook.lock.task import read_task
from herdbook.plan.alignment import own_vocabulary
from herdbook.plan.folder import converted_settings, files_origin, folder_files, made_files
from herdbook.plan.material import carried_inputs
from herdbook.plan.node import ASSEMBLE_CODE
from herdbook.plan.operation import FetchFile
from herdbook.recipe import parse_suite
from herdbook.release.finding import Check
from herdbook.steps.assemble.step import index_of
from herdbook.verify.differences import difference
from herdbook.weights.checkpoint import shard_start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Plan
    from herdbook.plan.code import RecordedCode
    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release

BESIDE = Check("claims", "side files")


def check(plan: Plan, release: Release, code: RecordedCode) -> Iterator[Finding]:
    """Derive each file beside the weights from recipe and lock, and compare it."""
    node = plan.released
    own = own_vocabulary(plan.lock, plan.nodes, node.name)
    origin = files_origin(plan, node)
    converted = converted_settings(plan.lock.sources[origin.name])
    written = {
        name: hashlib.sha256(content).hexdigest() for name, content in converted.items() if name in node.files
    }
    written |= {name: own.files[name] for name in made_files(plan, node) if own and name in own.files}
    if CONFIG in made_files(plan, node):
        written[CONFIG] = _digest(dump_json(node.config))
    if WEIGHTS_INDEX in folder_files(node) and plan.edition.has(WEIGHTS_INDEX):
        written[WEIGHTS_INDEX] = _digest(dump_json(index_of(node)))
    wrong = False
    for name, expected in written.items():
        found = release.digests.get(name, "no such file")
        if expected == found:
            continue
        wrong = True
        detail = "is not what follows from recipe and lock"
        about = {"file": name, "expected": expected, "found": found}
        if code.is_of_another_version and ASSEMBLE_CODE.describe().changed_modules:
            yield BESIDE.unverified(name, f"{detail}. {code.advice}", **about)
        else:
            yield BESIDE.failed(name, detail, **about)
    taken = {name: file for name, file in _pinned(plan).items() if name in node.files and name not in written}
    for name, (sha256, git_blob) in taken.items():
        expected = sha256 or git_blob or ""
        found = release.digests.get(name, "no such file")
        if not sha256 and name in release.digests:  # the Hub describes small files by git's digest
            found = git_blob_id(release.subject.read(name))
        if expected != found:
            wrong = True
            detail = f"is not the file of {origin.name} that {LOCK} pins"
            source = f"{plan.lock.sources[origin.name].uri}#{name}"
            yield BESIDE.failed(name, detail, file=name, expected=expected, found=found, source=source)
    for name, (pinned, _) in carried_inputs(plan).items():
        found = release.digests.get(name, "no such file")
        size = release.subject.entry(name).size_bytes if name in release.sums else 0
        if (found, size) != (pinned.sha256, pinned.size_bytes):
            wrong = True
            detail = f"is not the file that {LOCK} pins"
            about = {
                "expected": f"{pinned.sha256}, {pinned.size_bytes} bytes",
                "found": f"{found}, {size} bytes",
            }
            yield BESIDE.failed(name, detail, file=name, **about)
    for name, theirs, ours in _definitions(plan, release):
        if theirs != ours:
            wrong = True
            where, expected, actual = difference(theirs, ours)
            detail = f"{LOCK} differs from the file itself: {where}"
            yield BESIDE.failed(name, detail, file=LOCK, expected=expected, found=actual)
    for name, part in zip(node.shard_names, node.parts, strict=True):
        if isinstance(part.operation, FetchFile) or name not in release.subject.files:
            continue  # the source's own file, or none, which others report
        ordered = sorted(part.tensors, key=lambda tensor: tensor.name)
        forms = ((tensor.name, tensor.dtype, tensor.shape) for tensor in ordered)
        start = shard_start(forms, part.operation.header)
        if release.subject.header_digest(name) != hashlib.sha256(start).hexdigest():
            wrong = True
            yield BESIDE.failed(name, "its header is not what follows from recipe and lock", file=name)
    if not wrong:
        count = len(written) + len(taken)
        yield BESIDE.passed(
            f"{count} files",
            f"beside the weights follow from recipe and lock, or are as {origin.name} has them",
        )


def _definitions(plan: Plan, release: Release) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name of each file that defines a task or a suite, its content, and its content by the lock.

    What lm-eval resolved, from its own tasks or with included files and code, is not derived a second time here.
    """
    for task in plan.lock.tasks.values():
        if task.file is None:
            continue
        name = input_file(task.file.name, str(task.file.sha256))
        spec = read_task(release.subject.read(name), name)
        if spec is None:
            continue
        if task.definitions:
            yield (
                name,
                {"name": spec["task"], "definitions": {spec["task"]: spec}},
                {"name": task.name, "definitions": task.definitions},
            )
        else:  # a lock of an older version
            yield (
                name,
                {"name": spec["task"], "metadata": spec.get("metadata") or {}},
                {
                    "name": task.name,
                    "metadata": task.metadata,
                },
            )
    for suite in plan.lock.suites.values():
        name = input_file(suite.file.name, str(suite.file.sha256))
        read = parse_suite(release.subject.read(name).decode("utf-8", errors="replace"), name)
        yield name, read.model_dump(mode="json"), suite.suite.model_dump(mode="json")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _pinned(plan: Plan) -> dict[str, tuple[str | None, str | None]]:
    """Return the digests of the files of the source that the released model's files come from: SHA-256 and git's."""
    locked = plan.lock.sources[files_origin(plan, plan.released).name]
    return {file.name: (file.sha256, file.git_blob) for file in locked.files}
