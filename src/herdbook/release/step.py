"""The release step: put everything in one folder, write the provenance statement and the checksums."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from herdbook import lock as locks
from herdbook.assemble.step import folder_files
from herdbook.card.step import card_files, card_key
from herdbook.checkpoint import read_record
from herdbook.files import sha256_file, write_json, write_text
from herdbook.key import Code, digest
from herdbook.provenance.statement import statement
from herdbook.release.layout import EVALUATIONS, LOCK, RECIPE, RECORDS, ROUTING, SEARCHES, SUMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.plan import Plan

STATEMENT = "provenance/statement.json"


def contents(plan: Plan) -> dict[str, Path]:
    """Return what goes into the release: by name there, the file that it is taken from. Follows from the plan alone.

    The statement and the checksums come on top; see ``release``.
    """
    folder = plan.layout.folder(plan.released)
    found = {name: folder / name for name in folder_files(plan.released)}
    found |= {item.file: plan.quantized_file(item) for item in plan.quantized}
    found |= {name: plan.card_folder / name for name in card_files(plan)}
    found |= {RECIPE: plan.recipe_path, LOCK: locks.path_for(plan.recipe_path)}
    found |= {f"{RECORDS}/{part.id}.json": plan.layout.record(part) for part in plan.parts.values()}
    found |= {f"{RECORDS}/{item.id}.gguf.json": plan.quantized_record(item) for item in plan.quantized}
    found |= {f"{SEARCHES}/{search.id}.json": plan.layout.search(search) for search in plan.searches.values()}
    found |= {f"{EVALUATIONS}/{item.id}.json": plan.evaluation_file(item) for item in plan.evaluations}
    if plan.report:
        found[f"{ROUTING}/{plan.report.id}.json"] = plan.report_file(plan.report)
    return found


def written_files(plan: Plan) -> list[str]:
    """Return the names of those files of the release that are written for it, not linked.

    A workflow declares these alone: Snakemake touches what is declared, and a touch of a hard link would make the
    shard that it is look newer than all that was made from it.
    """
    return [*(name for name in contents(plan) if not _is_linked(name)), STATEMENT, SUMS]


def _is_linked(name: str) -> bool:
    return name.endswith((".safetensors", ".gguf"))


def release_key(plan: Plan) -> str:
    """Return the digest of all that the release's folder is made from."""
    code = Code(("herdbook.provenance.statement", "herdbook.release.step"))
    lock = sha256_file(locks.path_for(plan.recipe_path))
    return digest({"card": card_key(plan), "lock": lock, "code": code.describe()})


def release(plan: Plan) -> None:
    """Make the release's folder. What an earlier build left there and this one does not make is removed.

    Large files are hard links to the results where the file system can do that, so that they cost no space twice.
    """
    folder = plan.release_folder
    wanted = contents(plan)
    known = dict(_known_digests(plan))
    digests = {}
    for name, source in wanted.items():
        _place(source, folder / name)
        digests[name] = known.get(name) or sha256_file(folder / name)
    write_json(folder / STATEMENT, statement(plan, digests))
    digests[STATEMENT] = sha256_file(folder / STATEMENT)
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif not path.is_dir() and name not in digests and name != SUMS:
            path.unlink()
    write_text(folder / SUMS, "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)))


def _known_digests(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield digests that were computed while a file was written; `herdbook verify` reads the files again."""
    for name, part in zip(plan.released.shard_names, plan.released.parts, strict=True):
        yield name, read_record(plan.layout.record(part))["file"]["sha256"]
    for item in plan.quantized:
        yield item.file, read_record(plan.quantized_record(item))["file"]["sha256"]


def _place(source: Path, target: Path) -> None:
    """Put a file in its place: a hard link for weights, a copy of what is small or lies on another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{os.getpid()}.part"
    temporary.unlink(missing_ok=True)
    real = source.resolve(strict=True)
    try:
        if _is_linked(target.name):
            try:
                os.link(real, temporary)
            except OSError:
                shutil.copyfile(real, temporary)
        else:
            shutil.copyfile(real, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)  # also left over if both were the same hard link already
