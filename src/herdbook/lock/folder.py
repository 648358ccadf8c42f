"""Pinning a folder on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook import hub, jsonio, limits
from herdbook.errors import SourceError
from herdbook.key import digest
from herdbook.layout import CONFIG, WEIGHTS_INDEX
from herdbook.lock.asked import request, uri_of
from herdbook.lock.file import LockedText, pin_file, pin_texts
from herdbook.lock.local import reader, refuse_pointers
from herdbook.lock.paths import check_saved
from herdbook.lock.side_files import read_side_files
from herdbook.lock.weights import LockedSource, LockedTensor
from herdbook.lock.whole import check_config, check_dtypes, check_index, check_tied, read_config
from herdbook.sources.select import side_files
from herdbook.weights.checkpoint import read_header, read_span

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic import JsonValue

    from herdbook.lock.file import LockedFile
    from herdbook.recipe import Folder


def pin_folder(model: Folder, beside: Path) -> LockedSource:
    """Pin a local folder: the digest of each file, its tensors, its configuration."""
    folder = beside / model.folder
    what = f"folder: {model.folder}"
    if not folder.is_dir():
        raise SourceError(f"{what}: the folder {folder} does not exist")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    pinned = pin_files(
        folder,
        names,
        what,
        asked=request(model),
        uri=uri_of(model, ""),
        declared_license=model.license,
    )
    for file in pinned.files:
        check_saved(_about(folder / file.name), f"{what}: {file.name}")
    return pinned


def _about(path: Path) -> Any:
    """Return what a library saved about a model: a configuration, or the free entries in the header of its weights."""
    if path.suffix == ".safetensors":  # read before
        with path.open("rb") as file:
            header = file.read(int.from_bytes(file.read(8), "little"))
            return jsonio.load(header, limits.HEADER).get("__metadata__")
    if not path.name.endswith(CONFIG):  # of the tokenizer's files, those with a vocabulary
        return None
    try:
        return jsonio.load(path.read_bytes(), limits.DOCUMENT)
    except ValueError:
        return None


def pin_files(
    folder: Path,
    names: list[str],
    what: str,
    *,
    asked: dict[str, JsonValue],
    uri: str,
    declared_license: str | None,
    license_texts: tuple[LockedText, ...] | None = None,
    revision: str | None = None,
    pin: Callable[[Path, str], LockedFile] = pin_file,
) -> LockedSource:
    """Pin a model's files in a folder.

    Args:
        folder: The folder.
        names: The names of its files, of which those of a model are pinned.
        what: The source, for error messages.
        asked: The recipe's entry.
        uri: Where the source is.
        declared_license: Its license, if the recipe or the source states one.
        license_texts: Its license texts; those among the files if not given.
        revision: Its revision; a digest of the pinned files if not given.
        pin: Returns the pin of a file, from its path and its name.

    Raises:
        SourceError: If the files do not describe one whole model in a form that is supported.
    """
    small = reader(folder)
    index = small(WEIGHTS_INDEX) if WEIGHTS_INDEX in names else None
    listed = [hub.RemoteFile(name, (folder / name).stat().st_size, None, None) for name in names]
    weights = [file.name for file in hub.weights_of(listed, index, what)]
    members = side_files(names)
    if CONFIG not in members:
        raise SourceError(f"{what}: contains no {CONFIG}")
    refuse_pointers(folder, [*weights, *members], what)
    config = read_config(small(CONFIG), what)
    check_config(config, what)
    files = tuple(pin(folder / name, name) for name in [*weights, *members])
    held = {name: read_header(folder / name) for name in weights}
    tensors = [
        LockedTensor(name=span.name, dtype=span.dtype, shape=span.shape, file=name)
        for name, spans in held.items()
        for span in spans.values()
    ]
    check_index(index, tensors, what)
    check_dtypes(tensors, what)
    check_tied(config, held, lambda name, span: bytes(read_span(folder / name, span)), what)
    side = read_side_files(members, small, what)
    return LockedSource(
        asked=asked,
        uri=uri,
        revision=revision or digest([[file.name, file.sha256] for file in files]),
        weights="safetensors",
        files=files,
        members=tuple(members),
        tensors=tuple(tensors),
        config=config,
        tokens=side.tokenizer.tokens,
        generation=side.generation,
        chat_template=side.tokenizer.chat_template,
        license=declared_license,
        license_texts=pin_texts(names, small, lambda name: (folder / name).stat().st_size, what)
        if license_texts is None
        else license_texts,
    )
