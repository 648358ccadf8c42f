"""Pinning a repository on the Hub."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import SourceError
from herdbook.layout import CONFIG, WEIGHTS_INDEX
from herdbook.lock.local import check_small
from herdbook.lock.model import LockedFile, LockedSource, LockedTensor, request, uri_of
from herdbook.lock.side_files import read_side_files
from herdbook.lock.whole import check_config, check_dtypes, check_index, check_tied, read_config
from herdbook.sources.select import side_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.recipe import Hub


def pin_hub(model: Hub, remote: hub.RemoteRepo | None = None) -> LockedSource:
    """Pin a repository on the Hub: its commit, its files, its tensors (from headers alone), its configuration.

    Args:
        model: The recipe's entry.
        remote: What it resolves to, if that is known.
    """
    repo, _, revision = model.hub.partition("@")
    remote = remote or hub.resolve(repo, revision or None)
    what = f"hub: {repo}@{remote.commit[:8]}"
    files = {file.name: file for file in remote.files}

    def small(name: str) -> bytes:
        file = files[name]
        check_small(file.size_bytes, f"{what}: {name}")
        return hub.download(repo, remote.commit, file).read_bytes()

    index = small(WEIGHTS_INDEX) if WEIGHTS_INDEX in files else None
    weights = [file.name for file in hub.weights_of(remote.files, index, what)]
    members = side_files(files)
    if CONFIG not in members:
        raise SourceError(f"{what}: contains no {CONFIG}")
    config = read_config(small(CONFIG), what)
    check_config(config, what)
    held = {file: hub.tensor_headers(repo, remote.commit, file) for file in weights}
    tensors = [
        LockedTensor(name=header.name, dtype=header.dtype, shape=tuple(header.shape), file=file)
        for file, headers in held.items()
        for header in headers.values()
    ]
    check_index(index, tensors, what)
    check_dtypes(tensors, what)
    check_tied(config, held, partial(hub.read_tensor, repo, remote.commit), what)
    side = read_side_files(members, small, what)
    return LockedSource(
        asked=request(model),
        uri=uri_of(model, remote.commit),
        revision=remote.commit,
        weights="safetensors",
        files=tuple(
            LockedFile(
                name=name,
                size_bytes=files[name].size_bytes,
                sha256=files[name].sha256,
                git_blob=files[name].git_blob,
            )
            for name in [*weights, *members]
        ),
        members=tuple(members),
        tensors=tuple(tensors),
        config=config,
        tokens=side.tokens,
        generation=side.generation,
        chat_template=side.chat_template,
        license=remote.license,
        base_models=remote.base_models,
        gated=remote.gated,
    )


def hub_reader(model: Hub, locked: LockedSource) -> Callable[[str], bytes]:
    """Return a function that reads the files of a pinned repository by their names, usually from the Hub's cache."""
    repo = model.hub.partition("@")[0]
    files = {file.name: hub.RemoteFile(**file.model_dump()) for file in locked.files}
    return lambda name: hub.download(repo, locked.revision, files[name]).read_bytes()
