"""Models in local folders of the author's, which only whoever has a copy of the author's folder can read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import lock as locks
from herdbook import plain
from herdbook.errors import UnverifiedError
from herdbook.layout import LOCK, RECIPE
from herdbook.recipe import Adapter, Folder
from herdbook.release.subject import FileEntry, FolderSubject

if TYPE_CHECKING:
    from io import BufferedReader

    from herdbook.recipe import Section
    from herdbook.release.reader import Release
    from herdbook.release.subject import Subject


class CopiedFolder(FolderSubject):
    """A model in the verifier's copy of the author's folder.

    Its links are followed to plain files, as `herdbook lock` and the steps of a build do: unlike a release, it is the verifier's own,
    and only names that the lock pins are read. So the snapshots of the Hub's client, which are links, can be read.

    Raises:
        UnverifiedError: If the folder does not exist.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in [name for name in self.odd if (folder / name).is_symlink()]:
            try:
                about = (folder / name).stat()
            except OSError:
                self.odd[name] = "is a link that leads nowhere"
                continue
            if what := plain.kind(about):
                self.odd[name] = f"is a link to {what}; only plain files are read"
            else:
                del self.odd[name]
                self.files[name] = FileEntry(about.st_size)
                self.stamps[name] = plain.Stamp.of(about)

    def open_plain(self, name: str) -> BufferedReader:
        """Open a file, or the one that a link leads to, see ``FolderSubject``."""
        path = self.folder / name
        if not path.is_symlink():
            return super().open_plain(name)
        place, target = os.path.split(os.path.realpath(path))
        return plain.open_file(Path(place), target)


def open_model(release: Release, model: Section | None, uri: str, inputs: Path | None) -> Subject:
    """Open a model or an adapter that a release was made from: on the Hub, or a local folder in the verifier's copy.

    Args:
        release: The release.
        model: Its entry in the recipe; None if it has none.
        uri: Its URI in the lock.
        inputs: The recipe in the verifier's copy of the author's folder, if there is one.

    Raises:
        UnverifiedError: If it is a local folder and there is no copy, or the copy is that of another recipe or lock or lacks the folder.
        SourceError: See ``open_source``; so are other errors.
    """
    place = _folder(model)
    if place is None or inputs is None:
        return release.source(uri)
    path = inputs.parent / place
    if path not in release.copied:
        check_copy(release, inputs)
        release.copied[path] = CopiedFolder(path)
    return release.copied[path]


def check_copy(release: Release, recipe: Path) -> None:
    """Check that a recipe is in a copy of the folder of a release's author, so that its paths are those that the author means.

    Raises:
        UnverifiedError: If that recipe or its lock is not the release's.
    """
    for name, path in ((RECIPE, recipe), (LOCK, locks.path_for(recipe))):
        if not path.is_file() or path.read_bytes() != release.subject.read(name):
            raise UnverifiedError(f"{path}: is not the {name} of the release")


def _folder(model: Section | None) -> str | None:
    """Return the local folder of a source or an adapter, relative to the recipe; None if it has none."""
    if isinstance(model, Folder):
        return model.folder
    return model.adapter if isinstance(model, Adapter) and isinstance(model.adapter, str) else None
