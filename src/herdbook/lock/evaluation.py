"""A lock's entries on measurements.

These are tasks with their resolved definitions, suites, data sets, lm-eval's version, and snapshots of leaderboards.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from herdbook.errors import SourceError
from herdbook.lock.file import FIRST, LockedFile
from herdbook.recipe import Section, Suite

if TYPE_CHECKING:
    from collections.abc import Mapping

FUNCTION = "!function"  # the key of a function in a definition; beside it, `file` is where its code is
OWN = "lm_eval:"  # begins the names of files of lm-eval itself, below its package
SEED = 1234  # lm-eval's own default, of which the draw of solved examples depends


class LockedHarness(Section):
    """What reads the tasks: lm-eval's version, and the seed of all that is drawn, such as solved examples."""

    lm_eval: str
    seed: int = SEED


class LockedGroup(Section):
    """A group of tasks: its configuration, and the names of its tasks and groups, in order."""

    config: dict[str, Any]
    members: tuple[str, ...]


class LockedTask(Section):
    """What one entry of ``evaluate.tasks`` names, pinned: a task, or several.

    ``file`` is the task file, or None for a task of lm-eval, and ``sources`` are the other files that it is made of: included
    ones, and code. ``definitions`` are the configurations of all tasks by name, with everything that they include;
    ``metadata`` exists in locks of older versions, which have no definitions. ``groups`` are empty unless the name is that of a
    group. A name that is neither a task's nor a group's is a tag, of all these tasks.
    """

    name: str
    file: LockedFile | None = None
    sources: Annotated[tuple[LockedFile, ...], FIRST] = ()
    data: Annotated[tuple[LockedFile, ...], FIRST] = ()
    definitions: dict[str, dict[str, Any]] = Field(default_factory=dict)
    groups: dict[str, LockedGroup] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_whole(self) -> LockedTask:
        known = {*self.definitions, *self.groups}
        for name, group in self.groups.items():
            if lost := [member for member in group.members if member not in known]:
                raise ValueError(f"groups.{name}: {lost[0]!r} is neither a task nor a group of it")
        return self

    @property
    def titles(self) -> dict[str, str]:
        """The title of each task, by name: its name if its definition has none."""
        if not self.definitions:
            return {self.name: str(self.metadata.get("title", self.name))}
        return {
            name: str((config.get("metadata") or {}).get("title", name))
            for name, config in self.definitions.items()
        }

    @property
    def local(self) -> tuple[LockedFile, ...]:
        """The files beside the recipe that define it: not those of lm-eval, and no data."""
        own = () if self.file is None else (self.file,)
        return (*own, *(file for file in self.sources if not file.name.startswith(OWN)))

    def leaves(self, name: str) -> tuple[str, ...]:
        """Return the tasks in a group of it, also in groups of that; a task itself."""
        if name not in self.groups:
            return (name,)
        return tuple(leaf for member in self.groups[name].members for leaf in self.leaves(member))

    @property
    def repos(self) -> tuple[str, ...]:
        """The data sets on the Hub that it reads, by their keys in the lock."""
        found = (data_set_of(config) for config in self.definitions.values())
        return tuple(dict.fromkeys(repo for repo in found if repo is not None))


class LockedSuite(Section):
    """A suite, pinned: its file and its content."""

    file: LockedFile
    suite: Suite


class LockedDataSet(Section):
    """A data set on the Hub, pinned: the files that tasks read of it.

    ``branch`` is where they are: the one that was requested, or the Hub's conversion to Parquet where the data set is a script.
    """

    repo: str
    revision: str
    branch: str = "main"
    files: Annotated[tuple[LockedFile, ...], FIRST]
    gated: Literal["auto", "manual", False] = False

    @property
    def folder(self) -> str:
        """The name of a folder for its files, which another revision does not share."""
        return f"{self.repo}@{self.revision[:12]}"


class LockedSnapshot(LockedFile):
    """A snapshot of a leaderboard; ``uri`` and ``revision`` name the origin if the recipe does."""

    uri: str | None = None
    revision: str | None = None


# The formats that `datasets` reads from files, as it calls them: a task that names one has files of its own.
FORMATS = frozenset({"arrow", "csv", "json", "pandas", "parquet", "text", "xml"})


def data_set_of(config: Mapping[str, Any]) -> str | None:
    """Return the key of the data set on the Hub that a task reads, ``owner/name`` or with ``@revision``; None if it reads files."""
    path = config.get("dataset_path")
    if not isinstance(path, str) or path in FORMATS:
        return None
    revision = (config.get("dataset_kwargs") or {}).get("revision")
    return f"{path}@{revision}" if revision else path


def harness_folder() -> Path | None:
    """Return the folder of lm-eval's package, which is not imported; None if it is not installed."""
    spec = find_spec("lm_eval")
    return (
        Path(next(iter(spec.submodule_search_locations))).resolve()
        if spec and spec.submodule_search_locations
        else None
    )


def locate_source(name: str, beside: Path) -> Path:
    """Return the path of a task's file by its name in the lock. Raises SourceError if it is lm-eval's, and that is missing."""
    if not name.startswith(OWN):
        return beside / name
    package = harness_folder()
    if package is None:
        raise SourceError("lm-eval is not installed. Install it with:\n  pip install 'herdbook[evaluate]'")
    return package / name.removeprefix(OWN)
