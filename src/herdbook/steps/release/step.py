"""The release step: put everything in one folder, write its lineage, bills of materials and checksums."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from herdbook.comparison.losses import missed as missed_losses
from herdbook.comparison.marks import outcomes
from herdbook.errors import StepError
from herdbook.files import atomic_writer, scratch, sha256_file, write_json, write_text
from herdbook.layout import (
    BOMS,
    CONFIG,
    LINEAGE,
    SUMS,
    is_large,
)
from herdbook.lock import check_pinned
from herdbook.plan.edition import Edition
from herdbook.plan.material import carried_inputs
from herdbook.plan.release import contents
from herdbook.provenance.bom import bom
from herdbook.provenance.origins import lines
from herdbook.release.sums import format_sums
from herdbook.weights.checkpoint import read_header
from herdbook.weights.gguf_file import read_gguf
from herdbook.weights.gguf_parts import write_part
from herdbook.weights.loading import loading_problems
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.plan import Plan, Quantized


def release(plan: Plan) -> None:
    """Make the release's folder. Files of an earlier build that this one does not contain are removed.

    Large files are hard links to the results if the file system supports them, so that they take no extra space.

    Raises:
        LockError: If a file that the recipe names changed since it was locked.
        CheckpointError: If a record is missing, damaged, or does not fit its shard.
        StepError: If the released model misses a mark, a quantized file loses too much, or transformers would not find each tensor that the configuration implies.
    """
    folder = plan.layout.release_folder
    _check_marks(plan)
    for name, (pinned, path) in carried_inputs(plan).items():
        check_pinned(path, pinned, name)
    known = dict(_known_digests(plan))
    digests = {name: sha256 for item in plan.quantized for name, sha256 in _parts(plan, item, folder)}
    for name, source in contents(plan).items():
        if name in digests:
            continue
        _place(source, folder / name)
        digests[name] = known.get(name) or sha256_file(folder / name)
    if plan.edition is not Edition.GGUF:
        _check_whole(plan, folder)
        _write_lineage(plan, folder)
        digests[LINEAGE] = sha256_file(folder / LINEAGE)

    def read_json(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    # neither bill lists itself or the other one
    bills = {name: bom(plan, version, digests, read_json) for version, name in BOMS.items()}
    for name, bill in bills.items():
        write_json(folder / name, bill)
        digests[name] = sha256_file(folder / name)
    write_text(folder / SUMS, format_sums(digests))
    # claims and signatures of an earlier build are about other files
    _remove_all_but({*digests, SUMS}, folder)


def _check_marks(plan: Plan) -> None:
    """Check that the released model reaches the recipe's marks, and that no quantized file loses too much.

    Raises:
        StepError: If one does not; each is named.
    """
    taken = contents(plan)

    def read_json(name: str) -> Any:
        return json.loads(taken[name].read_text(encoding="utf-8"))

    found = outcomes(plan, read_json)
    missed = [
        f"marks: {outcome.mark.metric} of {outcome.mark.task} must be {outcome.asked}, and is {outcome.value} ({outcome.why})"
        for outcome in found
        if not outcome.met
    ]
    missed += missed_losses(plan, read_json)
    if missed:
        raise StepError("\n".join(missed))


def _check_whole(plan: Plan, folder: Path) -> None:
    """Check by the headers that the release loads whole. Raises StepError."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    headers = [read_header(folder / name) for name in plan.released.shard_names]
    form = {name: span.shape for header in headers for name, span in header.items()}
    if problems := loading_problems(config, form):
        raise StepError(f"{folder}: does not load whole: {'; '.join(problems)}")


def _write_lineage(plan: Plan, folder: Path) -> None:
    records = {key: read_record(plan.layout.record(part)) for key, part in plan.parts.items()}
    headers = {name: read_header(folder / name) for name in plan.released.shard_names}
    with atomic_writer(folder / LINEAGE) as file:
        for line in lines(plan, records, headers):
            file.write(line.encode())


def _remove_all_but(names: set[str], folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif not path.is_dir() and path.relative_to(folder).as_posix() not in names:
            path.unlink()


def _known_digests(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield digests that were computed while the files were written; `herdbook verify` compares them with the files."""
    for name, part in zip(plan.released.shard_names, plan.released.parts, strict=True):
        yield name, read_record(plan.layout.record(part))["file"]["sha256"]
    if matrix := plan.imatrix:
        yield matrix.file, read_record(plan.layout.matrix_record(matrix))["file"]["sha256"]
    for item in plan.quantized:
        if not item.is_split:
            yield item.file, read_record(plan.layout.quantized_record(item))["file"]["sha256"]


def _parts(plan: Plan, item: Quantized, folder: Path) -> Iterator[tuple[str, str]]:
    """Write the parts of a file that is split; yield their names and digests."""
    if not item.is_split:
        return
    whole = read_gguf(plan.layout.quantized(item))
    for number, name in enumerate(item.parts):
        yield name, write_part(whole, item.runs, number, folder / name)


def _place(source: Path, target: Path) -> None:
    """Put a file in its place: a hard link for weights; a copy if it is small or on another file system."""
    real = source.resolve(strict=True)
    with scratch(target) as folder:
        placed = folder / target.name
        if is_large(target.name):
            try:
                os.link(real, placed)
            except OSError:
                shutil.copyfile(real, placed)
        else:
            shutil.copyfile(real, placed)
        placed.replace(target)
