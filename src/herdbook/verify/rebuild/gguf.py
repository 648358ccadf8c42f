"""Derive a release's GGUF files a second time, tensor by tensor, from its own safetensors.

The types of the tensors, and their order, are proven by the level `claims`.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from herdbook import limits
from herdbook.errors import UnverifiedError, VerificationError
from herdbook.files import atomic_writer, dump_json
from herdbook.layout import RECORDS, WEIGHTS_INDEX
from herdbook.plan.edition import Edition
from herdbook.plan.quantize import QUANTIZE_CODE
from herdbook.progress import track
from herdbook.release.hub_subject import HubSubject
from herdbook.release.reader import damaged
from herdbook.release.subject import FolderSubject
from herdbook.sources.index import read_index
from herdbook.verify.differences import difference
from herdbook.verify.gguf.recorded import recorded_types

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.plan.quantize import Quantized
    from herdbook.release.finding import Check, Finding, Options
    from herdbook.release.reader import Release
    from herdbook.release.subject import Subject
    from herdbook.verify.rebuild.workspace import Workspace
    from herdbook.weights.imatrix import ImportanceMatrix

PIECE_BYTES = 1 << 26


def quantized(workspace: Workspace, release: Release, options: Options, check: Check) -> Iterator[Finding]:
    """Derive each GGUF a second time; of a release on the Hub, a sample, unless all of it is to be downloaded."""
    items = workspace.plan.quantized
    if not items:
        return
    workspace.code.require_installed(QUANTIZE_CODE.describe())
    weights = _weights(workspace, release)
    model = _model_files(workspace)
    own = [name for item in items for name in item.parts]
    if workspace.plan.imatrix:
        own.append(workspace.plan.imatrix.file)
    inputs = [*model, *own]
    if isinstance(release.subject, FolderSubject) and weights is release.subject:
        folder = release.subject.folder
        _require_plain(release.subject, inputs)
    elif options.sample_bytes is None:
        folder = workspace.plan.layout.root / "release"
        _download(release.subject, own, folder)
        _download(weights, model, folder)
    else:
        from herdbook.verify.rebuild.gguf_sample import sampled

        for item in items:
            yield from sampled(workspace.plan, release, weights, item, options, check)
        return
    from herdbook.steps.quantize.derive import derive, require_equal
    from herdbook.weights.gguf_file import read_gguf
    from herdbook.weights.gguf_parts import join
    from herdbook.weights.imatrix import read_imatrix

    for item in items:
        matrix = read_imatrix(folder / item.imatrix.file) if item.imatrix else None
        derived = derive(
            join([read_gguf(folder / name) for name in item.parts]),
            folder,
            matrix=matrix,
            threads=os.cpu_count() or 1,
        )
        if isinstance(release.subject, FolderSubject) and weights is release.subject:
            _require_plain(release.subject, inputs)
        try:
            require_equal(derived, item.file)
        except VerificationError as error:
            names = ", ".join(list(derived.problems)[:10])
            yield check.failed(item.file, str(error), file=item.file, tensor=names)
        else:
            yield check.passed(
                item.file,
                f"{len(item.types)} tensors equal those derived from the released weights",
                file=item.file,
            )
        yield from _recorded(release, item, derived.record, check)
        if item.budget:
            yield _chosen(release, item, folder, matrix, check)


def _chosen(
    release: Release, item: Quantized, folder: Path, matrix: ImportanceMatrix | None, check: Check
) -> Finding:
    """Choose the types of a file with a budget again, and compare them."""
    from herdbook.steps.quantize.losses import types_within

    assert item.budget  # noqa: S101 - the caller has checked it
    ours = types_within(folder, item.tensors, item.budget, matrix)
    theirs = recorded_types(release, item).types
    if wrong := sorted(name for name, kind in ours.items() if theirs[name] != kind):
        name = wrong[0]
        detail = f"{len(wrong)} tensors have other types than their errors lead to, such as {name}"
        return check.failed(
            item.file, detail, file=item.file, tensor=name, expected=ours[name], found=theirs[name]
        )
    return check.passed(item.file, "its types follow from the errors measured here", file=item.file)


def _recorded(release: Release, item: Quantized, derived: dict[str, Any], check: Check) -> Iterator[Finding]:
    """Compare the record of a file with what came out here; the version of the encoder is the builder's."""
    name = f"{RECORDS}/{item.id}.gguf.json"
    found = release.subject.json(name)
    with damaged(name):
        theirs = {key: value for key, value in found.items() if key != "encoder"}
    ours = json.loads(dump_json({key: value for key, value in derived.items() if key != "encoder"}))
    where, expected, actual = difference({**item.about, **ours}, theirs)
    if {**item.about, **ours} != theirs:
        detail = f"differs from the result here: {where}"
        yield check.failed(name, detail, file=name, expected=expected, found=actual)


def _model_files(workspace: Workspace) -> list[str]:
    from herdbook.plan.folder import folder_files

    return folder_files(workspace.plan.released)


def _require_plain(subject: FolderSubject, names: list[str]) -> None:
    """Check that all files that are derived from are plain files of the release, which have not changed.

    They are read by paths, and the index names some of them.

    Raises:
        VerificationError: If one is not.
        UnverifiedError: If one has changed.
    """
    indexed: set[str] = set()
    if WEIGHTS_INDEX in subject.files:
        content = subject.read(WEIGHTS_INDEX, limits.DOCUMENT.size_bytes)
        with damaged(WEIGHTS_INDEX):
            indexed = set(read_index(content).values())
    for name in sorted({*names, *indexed}):
        subject.path(name)


def _weights(workspace: Workspace, release: Release) -> Subject:
    """Return where the weights are that the files were made from: in the release, or in the recipe's other repository.

    Raises:
        UnverifiedError: If that repository now has other weights.
        SourceError: If it cannot be read.
    """
    repo = release.recipe.release.repo
    if release.edition is not Edition.GGUF or repo is None:
        return release.subject
    weights = HubSubject(repo)
    released, records = workspace.plan.released, release.records()
    for name, part in zip(released.shard_names, released.parts, strict=True):
        file = weights.files.get(name)
        if file is None or file.sha256 != records[part.key]["file"]["sha256"]:
            raise UnverifiedError(
                f"{weights.name}: its {name} is not the one that these files were made from, so they cannot be derived from it"
            )
    return weights


def _download(subject: Subject, names: list[str], folder: Path) -> None:
    """Download files, in pieces."""
    sizes = {name: subject.files[name].size_bytes for name in names if name in subject.files}
    with track("download", sum(-(-size // PIECE_BYTES) for size in sizes.values())) as advance:
        for name, size in sizes.items():
            with atomic_writer(folder / name) as file:
                for start in range(0, size, PIECE_BYTES):
                    file.write(subject.read_range(name, start, min(size, start + PIECE_BYTES)))
                    advance()
