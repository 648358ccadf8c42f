"""A scratch folder in which steps of a release are rerun: its own recipe, lock and small inputs, and results."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import lock as locks
from herdbook.comparison.verdict import from_json
from herdbook.errors import UnverifiedError
from herdbook.files import atomic_writer, remove_abandoned
from herdbook.layout import COMPARISONS, IMATRIX, LOCK, RECIPE, RECORDS
from herdbook.plan.code import as_recorded
from herdbook.plan.comparison import compared
from herdbook.plan.material import carried_inputs
from herdbook.plan.operation import FetchFile
from herdbook.plan.release import contents
from herdbook.provenance.slsa import codes
from herdbook.recipe import Adapter, Folder
from herdbook.release.reader import damaged
from herdbook.verify.claims import RecordedBuild, recorded
from herdbook.verify.copied import check_copy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.comparison.verdict import Comparison
    from herdbook.plan import Imatrix, Node, Part, Plan
    from herdbook.release.finding import Options
    from herdbook.release.reader import Release


PIECE_BYTES = 1 << 26
BELOW = "a/b/c/d"  # a recipe may name files above its folder, which must stay inside the scratch folder


class Workspace:
    """The folder in which a release's steps are rerun.

    Attributes:
        plan: The release's plan, with the keys that its provenance names, and results below the scratch folder.
        code: The code that the provenance names, which is in force; see ``as_recorded``.
        changed: Names of modules and packages whose installed version is not the one that made the release.
        own_inputs: Whether the verifier has a copy of the author's folder, in which the recipe is.

    Args:
        release: The release.
        build: What its provenance records of the build.
        folder: The scratch folder.
        inputs: The recipe in the author's folder, if the verifier has that.

    Raises:
        UnverifiedError: If that recipe or its lock is not the release's, or the release's recipe names a file outside of
            the scratch folder.
    """

    def __init__(self, release: Release, build: RecordedBuild, folder: Path, inputs: Path | None) -> None:
        self._release, self.code, self.own_inputs = release, build.code, inputs is not None
        recipe = inputs or folder / "inputs" / BELOW / RECIPE
        self.plan: Plan = build.plan(release, recipe, folder / "results")
        self.changed = sorted(
            {name for code in codes(self.plan) for name in (*code.changed_modules, *code.changed_packages)}
        )
        if inputs:
            check_copy(release, inputs)
        else:
            _write(recipe, release.subject.read(RECIPE))
            _write(locks.path_for(recipe), release.subject.read(LOCK))
            texts = [name for text in self.plan.recipe.calibration.values() for name in text.data]
            carried = carried_inputs(self.plan)
            for path in (
                *(self.plan.beside_recipe(name) for name in texts),
                *(path for _, path in carried.values()),
            ):
                if not path.resolve().is_relative_to(folder / "inputs"):
                    raise UnverifiedError(
                        f"{RECIPE}: names {path.name}, which is too many levels above its folder"
                    )
            for name, (_, path) in carried.items():
                _write(path, release.subject.read(name))

    def take_over(self, *kinds: str) -> None:
        """Write small results of the release where its steps would have written them.

        Args:
            kinds: The folders of the results in a release: ``RECORDS``, ``EVALUATIONS``, ...
        """
        for name, path in contents(self.plan).items():
            if name.startswith(tuple(f"{kind}/" for kind in kinds)):
                _write(path, self._release.subject.read(name))

    def take_over_imatrix(self, item: Imatrix) -> None:
        """Write the release's importance matrix and its record where the step would have written them."""
        size = self._release.subject.files[item.file].size_bytes
        with atomic_writer(self.plan.layout.matrix(item)) as file:
            for start in range(0, size, PIECE_BYTES):
                file.write(self._release.subject.read_range(item.file, start, min(size, start + PIECE_BYTES)))
        name = f"{RECORDS}/{item.id}{IMATRIX}.json"
        _write(self.plan.layout.matrix_record(item), self._release.subject.read(name))

    def recorded_comparisons(self) -> tuple[Comparison, ...] | None:
        """Return the comparisons as the release records them, if the samples that they follow from do not exist.

        Raises:
            VerificationError: If they are damaged.
        """
        items = compared(self.plan)
        if all(self.plan.layout.samples(item).exists() for item in items):
            return None
        with damaged(COMPARISONS):
            return from_json(self._release.subject.json(COMPARISONS))

    def readable(self, part: Part) -> tuple[Plan, Part]:
        """Return a part, and the plan with which its step reads what the verifier can read.

        Models with equal content share a part, which is made under the name of the first of them. If that is a local folder
        of the author, the source of another one is read in its place.

        Args:
            part: A part that is fetched, or that an adapter is folded into.

        Raises:
            UnverifiedError: See ``first_readable``.
        """
        node = self.first_readable(*self.plan.holders[part.key])
        plan = self._read_from(part.model, node)
        if plan is not self.plan and isinstance(part.operation, FetchFile):
            digest = part.operation.digest
            files = self.plan.lock.sources[node.name].files
            name = next(file.name for file in files if digest in {file.sha256, file.git_blob})
            part = replace(part, operation=FetchFile(digest, name))
        return plan, part

    def first_readable(self, *nodes: Node) -> Node:
        """Return the first of some sources or adapters that is public, or that the verifier's own copy contains.

        Raises:
            UnverifiedError: If all of them are local folders of the author, and the verifier has no copy.
        """
        for node in nodes:
            location = node.recipe.adapter if isinstance(node.recipe, Adapter) else node.recipe
            if self.own_inputs or not isinstance(location, Folder | str):
                return node
        raise UnverifiedError(
            f"models.{nodes[0].name}: is made from a local folder of the author; pass the recipe in a copy of that folder "
            "with --inputs"
        )

    def _read_from(self, name: str, node: Node) -> Plan:
        """Return the plan in which a model is read from another one's source or adapter; the plan itself if it is the same."""
        if name == node.name:
            return self.plan
        lock = self.plan.lock
        kind = "adapters" if isinstance(node.recipe, Adapter) else "sources"
        pinned = getattr(lock, kind)
        return replace(
            self.plan,
            nodes={**self.plan.nodes, name: replace(self.plan.nodes[name], recipe=node.recipe)},
            lock=lock.model_copy(update={kind: {**pinned, name: pinned[node.name]}}),
        )


@contextmanager
def open_workspace(release: Release, options: Options, level: str) -> Iterator[Workspace]:
    """Open a workspace for a release; its scratch folder is removed afterwards, unless the verifier named one.

    Args:
        release: The release.
        options: The options of the verification.
        level: The level that uses it: each has its own folder.

    Raises:
        VerificationError: If the release's claims, recipe or lock are damaged; see ``RecordedBuild.plan``.
        UnverifiedError: See ``Workspace``.
    """
    build = recorded(release)
    with as_recorded(build.code), _scratch(options.work and options.work / level) as folder:
        yield Workspace(release, build, folder, options.inputs)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="herdbook-") as name:
            yield Path(name).resolve()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        yield folder.resolve()


def _write(path: Path, content: bytes) -> None:
    with atomic_writer(path) as file:
        file.write(content)
