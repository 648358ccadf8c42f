"""The files of a tokenizer that has more tokens than that of the source that it starts from, or another chat template."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from herdbook.errors import DigestMismatchError
from herdbook.files import atomic_writer
from herdbook.plan.alignment import own_vocabulary
from herdbook.plan.folder import files_origin
from herdbook.sources.tokenizer_file import AddedToken, tokenizer_files

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan import Node, Plan


def write_tokenizer(plan: Plan, node: Node, origin: Path, folder: Path) -> None:
    """Write those files of a model's tokenizer that its source does not have like that; empty without any.

    Args:
        plan: The plan.
        node: The model.
        origin: A folder with the files of the source.
        folder: The folder to write into.

    Raises:
        DigestMismatchError: If a file does not become what was locked.
    """
    vocabulary = own_vocabulary(plan.lock, plan.nodes, node.name)
    if vocabulary is None or not vocabulary.files:
        return
    added = {token.id: AddedToken(**token.model_dump(exclude={"id"})) for token in vocabulary.added}
    names = files_origin(plan, node).files
    files = tokenizer_files(names, lambda name: (origin / name).read_bytes(), added, vocabulary.chat_template)
    for name, sha256 in vocabulary.files.items():
        actual = hashlib.sha256(files[name]).hexdigest()
        if actual != sha256:
            raise DigestMismatchError(
                f"{node.name}: {name}", sha256, actual, "Run `herdbook lock` with this version of Herdbook."
            )
        with atomic_writer(folder / name) as file:
            file.write(files[name])
