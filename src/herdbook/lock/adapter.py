"""Pinning an adapter: its two files, its configuration, its tensors, and the tokenizer that its trainer left beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.errors import SourceError
from herdbook.lock.asked import request
from herdbook.lock.file import LockedFile, pin_file, pin_texts
from herdbook.lock.local import check_small, reader, refuse_pointers
from herdbook.lock.paths import check_saved, is_absolute
from herdbook.lock.side_files import read_tokenizer
from herdbook.lock.weights import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LockedAdapter, LockedTensor
from herdbook.lock.whole import read_config
from herdbook.recipe import Hub
from herdbook.sources.vocabulary import read_vocabulary
from herdbook.weights.checkpoint import read_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from herdbook.hub import RemoteRepo
    from herdbook.recipe import Adapter
    from herdbook.sources.vocabulary import Vocabulary
    from herdbook.weights.checkpoint import Span

ADAPTED = "base_model_name_or_path"  # in the configuration of an adapter


def pin_adapter(model: Adapter, beside: Path) -> LockedAdapter:
    """Pin a LoRA adapter: its two files, its configuration, its tensors."""
    if isinstance(model.adapter, Hub):
        repo, _, revision = model.adapter.hub.partition("@")
        return pin_hub_adapter(model, hub.resolve(repo, revision or None))
    folder = beside / model.adapter
    what = f"adapter: {model.adapter}"
    if not folder.is_dir():
        raise SourceError(f"{what}: the folder {folder} does not exist")
    _check_adapter({path.name for path in folder.iterdir()}, what, str(folder))
    refuse_pointers(folder, [ADAPTER_CONFIG, ADAPTER_WEIGHTS], what)
    config = read_config(reader(folder)(ADAPTER_CONFIG), what, ADAPTER_CONFIG)
    if is_absolute(str(config.get(ADAPTED))):
        del config[
            ADAPTED
        ]  # the base's place on its author's machine; the recipe names the base, so nothing reads it
    check_saved(config, f"{what}: {ADAPTER_CONFIG}")
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return LockedAdapter(
        asked=request(model),
        **vars(read_tokenizer(names, reader(folder), what)),
        files=(
            pin_file(folder / ADAPTER_CONFIG, ADAPTER_CONFIG),
            pin_file(folder / ADAPTER_WEIGHTS, ADAPTER_WEIGHTS),
        ),
        config=config,
        tensors=_adapter_tensors(read_header(folder / ADAPTER_WEIGHTS)),
        license_texts=pin_texts(names, reader(folder), lambda name: (folder / name).stat().st_size, what),
    )


def pin_hub_adapter(model: Adapter, remote: RemoteRepo) -> LockedAdapter:
    """Pin a LoRA adapter on the Hub, at a commit that was looked up."""
    repo = remote.repo
    what = f"adapter: {repo}@{remote.commit[:8]}"
    files = {file.name: file for file in remote.files}
    _check_adapter(set(files), what, "the repository")
    pinned = [files[ADAPTER_CONFIG], files[ADAPTER_WEIGHTS]]
    check_small(files[ADAPTER_CONFIG].size_bytes, f"{what}: {ADAPTER_CONFIG}")
    config = hub.download(repo, remote.commit, files[ADAPTER_CONFIG]).read_bytes()
    return LockedAdapter(
        asked=request(model),
        **vars(read_tokenizer(files, _hub_reader(repo, remote, what), what)),
        files=tuple(LockedFile(**vars(file)) for file in pinned),
        config=read_config(config, what, ADAPTER_CONFIG),
        tensors=_adapter_tensors(hub.tensor_headers(repo, remote.commit, ADAPTER_WEIGHTS)),
        revision=remote.commit,
        license_texts=pin_texts(
            files, _hub_reader(repo, remote, what), lambda name: files[name].size_bytes, what
        ),
    )


def adapter_vocabulary(model: Adapter, revision: str | None, beside: Path) -> Vocabulary:
    """Read the tokens of the tokenizer beside a pinned adapter once more."""
    if isinstance(model.adapter, Hub):
        repo = model.adapter.hub.partition("@")[0]
        remote = hub.resolve(repo, revision)
        names, read = [file.name for file in remote.files], _hub_reader(repo, remote, repo)
    else:
        folder = beside / model.adapter
        names, read = [path.name for path in folder.iterdir() if path.is_file()], reader(folder)
    return read_vocabulary(names, read, model.place) or {}


def _hub_reader(repo: str, remote: hub.RemoteRepo, what: str) -> Callable[[str], bytes]:
    files = {file.name: file for file in remote.files}

    def read(name: str) -> bytes:
        check_small(files[name].size_bytes, f"{what}: {name}")
        return hub.download(repo, remote.commit, files[name]).read_bytes()

    return read


def _check_adapter(names: set[str], what: str, place: str) -> None:
    if ADAPTER_CONFIG not in names:
        raise SourceError(f"{what}: {place} contains no {ADAPTER_CONFIG}")
    if ADAPTER_WEIGHTS not in names:
        raise SourceError(
            f"{what}: {place} contains no {ADAPTER_WEIGHTS}; adapters saved as .bin are pickles and are refused. "
            "Save the adapter with peft's save_pretrained, which writes safetensors."
        )


def _adapter_tensors(spans: dict[str, Span]) -> tuple[LockedTensor, ...]:
    return tuple(
        LockedTensor(name=span.name, dtype=span.dtype, shape=span.shape, file=ADAPTER_WEIGHTS)
        for span in spans.values()
    )
