"""llama.cpp as a library: a GGUF's tokens and logits, on the CPU.

Weights stay as the file has them: kernels that pack them anew for one kind of processor give other last digits on each, and some
use instructions that virtual machines announce and do not run.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

VERSION = "0.3.36"  # of llama-cpp-python; another may compute in another way
_CALLED: list[Any] = []  # functions that the library calls as long as it is loaded


def opener(file: Path, threads: int) -> Callable[[int], Runtime]:
    """Return a function that opens a GGUF for some number of tokens; for 0, only to cut text into tokens.

    Raises:
        StepError: If llama.cpp's runtime is not installed, or in another version, whose results would be others.
    """
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if version != VERSION:
        raise StepError(
            f"quantize.runtime: llama-cpp-python {VERSION} is needed, and {version} is installed. "
            f"`pip install llama-cpp-python=={VERSION}` builds it, which takes minutes."
        )
    return lambda tokens: Runtime(file, tokens, threads)


class Runtime:
    """A GGUF that is open.

    Args:
        file: The file.
        tokens: How many tokens it reads at most; 0 to read its vocabulary alone.
        threads: How many threads compute.

    Raises:
        StepError: If llama.cpp does not open it.
    """

    def __init__(self, file: Path, tokens: int, threads: int) -> None:
        from llama_cpp import llama_cpp as library

        self._library, self._context, self._read = library, None, 0
        _quiet(library)
        library.llama_backend_init()
        settings = library.llama_model_default_params()
        settings.n_gpu_layers, settings.use_extra_bufts, settings.vocab_only = 0, False, not tokens
        self._model = library.llama_model_load_from_file(str(file).encode(), settings)
        if not self._model:
            raise StepError(f"{file}: llama.cpp does not read it")
        self._words = library.llama_model_get_vocab(self._model)
        if tokens:
            room = library.llama_context_default_params()
            room.n_ctx = room.n_batch = room.n_ubatch = tokens
            room.n_threads = room.n_threads_batch = threads
            self._context = library.llama_init_from_model(self._model, room)
            if not self._context:
                raise StepError(f"{file}: llama.cpp has no room for {tokens} tokens")
            self._batch = library.llama_batch_init(tokens, 0, 1)

    def close(self) -> None:
        """Free its memory."""
        if self._context:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)
        self._context = self._model = None

    @property
    def first(self) -> int:
        """The token that begins a text; negative if there is none."""
        return int(self._library.llama_vocab_bos(self._words))

    @property
    def last(self) -> int:
        """The token that ends a text."""
        return int(self._library.llama_vocab_eos(self._words))

    def tokens(self, text: str, *, begin: bool) -> list[int]:
        """Return a text's tokens, names of special ones included; with the first token if the file requires one, and ``begin``."""
        data = text.encode()
        room = (ctypes.c_int32 * (len(data) + 2))()
        count = self._library.llama_tokenize(self._words, data, len(data), room, len(room), begin, True)
        return list(room[:count])

    def text(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Return the text of tokens; with ``special``, also that of special ones."""
        given = (ctypes.c_int32 * len(tokens))(*tokens)
        room = ctypes.create_string_buffer(64 * len(tokens) + 64)
        count = self._library.llama_detokenize(
            self._words, given, len(tokens), room, len(room), not special, special
        )
        return room.raw[: max(0, count)].decode(errors="replace")

    def logits(self, tokens: Sequence[int], *, new: bool = False) -> Any:
        """Return the logits after each of some tokens; if they are ``new``, they follow those that were read before."""
        if not new:
            self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
            self._read = 0
        batch = self._batch
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, self._read + place
            batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, True
        if code := self._library.llama_decode(self._context, batch):
            raise StepError(f"llama.cpp ended with status {code} on {len(tokens)} tokens")
        self._read += len(tokens)
        width = self._library.llama_vocab_n_tokens(self._words)
        found = np.ctypeslib.as_array(self._library.llama_get_logits(self._context), (len(tokens), width))
        return found.copy()  # the next pass overwrites it


def _quiet(library: Any) -> None:
    """Turn the library's log off: hundreds of lines on each model; what matters is raised."""
    if not _CALLED:
        _CALLED.append(library.llama_log_callback(lambda *_: None))
        library.llama_log_set(_CALLED[0], None)
