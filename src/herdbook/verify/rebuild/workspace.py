"""A scratch folder in which steps of a release are done again: its own recipe, lock and small inputs, and results."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import lock as locks
from herdbook.errors import UnverifiedError, VerificationError
from herdbook.files import atomic_writer
from herdbook.layout import LOCK, RECIPE
from herdbook.plan.code import as_recorded, changed
from herdbook.plan.material import carried_inputs
from herdbook.plan.release import contents
from herdbook.recipe import Adapter, Folder, Hub
from herdbook.verify.claims import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Node, Plan
    from herdbook.release.finding import Options
    from herdbook.release.reader import Release


BELOW = "a/b/c/d"  # a recipe may name what lies beside its folder, and that has to stay in the scratch folder


class Workspace:
    """Where a release's steps are done again.

    Attributes:
        plan: The release's plan, with the keys that its provenance names, and results below the scratch folder.
        changed: Names of code and packages that are installed here in another version than made the release.
        own_inputs: Whether what lies beside the recipe is the verifier's own copy of the author's folder.

    Args:
        release: The release.
        other: See ``changed``. The code that the provenance names must be in force, see ``as_recorded``.
        folder: The scratch folder.
        inputs: The recipe in the author's folder, if the verifier has that.

    Raises:
        UnverifiedError: If that recipe or its lock is another one, or the release's recipe names a file that would
            lie outside of the scratch folder.
    """

    def __init__(self, release: Release, other: list[str], folder: Path, inputs: Path | None) -> None:
        self._release, self.changed, self.own_inputs = release, other, inputs is not None
        recipe = inputs or folder / "inputs" / BELOW / RECIPE
        self.plan: Plan = release.make_plan(recipe, folder / "results")
        pair = {RECIPE: recipe, LOCK: locks.path_for(recipe)}
        for name, path in pair.items():
            content = release.subject.read(name)
            if inputs is None:
                _write(path, content)
            elif not path.is_file() or path.read_bytes() != content:
                raise UnverifiedError(f"{path}: is not the {name} of the release")
        if inputs is None:
            for name, (_, path) in carried_inputs(self.plan).items():
                if not path.resolve().is_relative_to(folder / "inputs"):
                    raise UnverifiedError(f"{RECIPE}: names {path.name} too far from its folder")
                _write(path, release.subject.read(name))

    def take_over(self, *kinds: str) -> None:
        """Put small results of the release where its steps would have put them.

        Args:
            kinds: Which, by their folders in a release: ``RECORDS``, ``EVALUATIONS``, ...
        """
        for name, path in contents(self.plan).items():
            if name.startswith(tuple(f"{kind}/" for kind in kinds)):
                _write(path, self._release.subject.read(name))

    def within_reach(self, node: Node) -> None:
        """Check that a source, or an adapter, can be had by anybody, or lies in the verifier's own copy.

        Raises:
            UnverifiedError: If it is a folder of the author's, and there is no copy.
        """
        place = node.recipe.adapter if isinstance(node.recipe, Adapter) else node.recipe
        local = isinstance(place, Folder | str)
        if local and not self.own_inputs:
            raise UnverifiedError(
                f"models.{node.name}: is made of a folder of the author's; give the recipe in a copy of it with --inputs"
            )

    def is_of_hub(self, node: Node) -> bool:
        """Say whether a source is of the Hub, in safetensors, so that single tensors of it can be had."""
        return isinstance(node.recipe, Hub) and self.plan.lock.sources[node.name].weights == "safetensors"


@contextmanager
def open_workspace(release: Release, options: Options, level: str) -> Iterator[Workspace]:
    """Open a workspace for a release; its scratch folder is gone afterwards, unless the verifier named one.

    Args:
        release: The release.
        options: What was asked.
        level: Whose workspace it is: each has a folder of its own.

    Raises:
        VerificationError: If the release's claims, recipe or lock are damaged, or name no code for a part of the plan.
        UnverifiedError: See ``Workspace``.
    """
    said = recorded(release)
    other = changed(said)
    with as_recorded(said), _scratch(options.work and options.work / level) as folder:
        try:
            yield Workspace(release, other, folder, options.inputs)
        except KeyError as error:
            raise VerificationError(f"the provenance names no code {error}") from error


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="herdbook-") as made:
            yield Path(made).resolve()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()


def _write(path: Path, content: bytes) -> None:
    with atomic_writer(path) as file:
        file.write(content)
