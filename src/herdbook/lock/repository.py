"""Pinning a repository on the Hub."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from herdbook import hub
from herdbook.errors import SourceError
from herdbook.layout import CONFIG, WEIGHTS_INDEX
from herdbook.lock.asked import request, uri_of
from herdbook.lock.file import LockedFile, pin_texts
from herdbook.lock.local import check_small
from herdbook.lock.side_files import read_side_files
from herdbook.lock.weights import LockedSource, LockedTensor
from herdbook.lock.whole import check_config, check_dtypes, check_index, check_tied, read_config
from herdbook.sources.card import read_card
from herdbook.sources.declared import declared_data
from herdbook.sources.select import side_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.recipe import Hub
    from herdbook.weights.checkpoint import Span


class Contents(Protocol):
    """The files of a repository at one commit; each content is compared with its digest."""

    def read(self, name: str) -> bytes:
        """Return a small file."""

    def header(self, name: str) -> dict[str, Span]:
        """Return the tensors of a safetensors file, by name."""


class CachedContents:
    """Files by way of the Hub's cache, in which the steps of a build look for them."""

    def __init__(self, repo: str, remote: hub.RemoteRepo) -> None:
        self._repo, self._commit = repo, remote.commit
        self._files = {file.name: file for file in remote.files}

    def read(self, name: str) -> bytes:
        """Return a small file, see ``Contents``."""
        return hub.download(self._repo, self._commit, self._files[name]).read_bytes()

    def header(self, name: str) -> dict[str, Span]:
        """Return the tensors of a file, see ``Contents``."""
        return hub.tensor_headers(self._repo, self._commit, name)


def pin_hub(
    model: Hub, remote: hub.RemoteRepo | None = None, contents: Contents | None = None
) -> LockedSource:
    """Pin a repository on the Hub: its commit, its files, its tensors (from headers alone), its configuration.

    Args:
        model: The recipe's entry.
        remote: What it resolves to, if that is known.
        contents: Its files; by way of the Hub's cache if None.
    """
    repo, _, revision = model.hub.partition("@")
    remote = remote or hub.resolve(repo, revision or None)
    opened = contents or CachedContents(repo, remote)
    what = f"hub: {repo}@{remote.commit[:8]}"
    files = {file.name: file for file in remote.files}

    def small(name: str) -> bytes:
        check_small(files[name].size_bytes, f"{what}: {name}")
        return opened.read(name)

    index = small(WEIGHTS_INDEX) if WEIGHTS_INDEX in files else None
    weights = [file.name for file in hub.weights_of(remote.files, index, what)]
    members = side_files(files)
    if CONFIG not in members:
        raise SourceError(f"{what}: contains no {CONFIG}")
    config = read_config(small(CONFIG), what)
    check_config(config, what)
    held = {file: opened.header(file) for file in weights}
    tensors = [
        LockedTensor(name=header.name, dtype=header.dtype, shape=tuple(header.shape), file=file)
        for file, headers in held.items()
        for header in headers.values()
    ]
    check_index(index, tensors, what)
    check_dtypes(tensors, what)
    check_tied(config, held, partial(hub.read_tensor, repo, remote.commit), what)
    side = read_side_files(members, small, what)
    card = read_card(files, small, what)
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
        tokens=side.tokenizer.tokens,
        generation=side.generation,
        chat_template=side.tokenizer.chat_template,
        license=card.license,
        license_texts=pin_texts(files, opened.read, lambda name: files[name].size_bytes, what),
        base_models=card.base_models,
        datasets=declared_data(files, small),  # whose front matter was read before
        gated=remote.gated,
    )


def hub_reader(model: Hub, locked: LockedSource) -> Callable[[str], bytes]:
    """Return a function that reads the files of a pinned repository by their names, usually from the Hub's cache."""
    repo = model.hub.partition("@")[0]
    files = {file.name: hub.RemoteFile(**file.model_dump()) for file in locked.files}
    return lambda name: hub.download(repo, locked.revision, files[name]).read_bytes()
