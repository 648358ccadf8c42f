"""The environment in which lm-eval runs: without network, with a cache of its own that is removed afterwards."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def offline(**variables: str) -> Iterator[Path]:
    """Work without network, and yield a folder for temporary files, which is the cache of data sets, too.

    Args:
        variables: Further environment variables. All previous ones are restored at the end, since the caller may use the Hub
            afterwards.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_CACHE=scratch, **variables)
        try:
            import datasets

            cache = datasets.config.HF_DATASETS_CACHE
            datasets.config.HF_DATASETS_CACHE = scratch  # in case the library was imported before
            datasets.disable_progress_bars()
            try:
                yield Path(scratch)
            finally:
                datasets.config.HF_DATASETS_CACHE = cache
        finally:
            os.environ.clear()
            os.environ.update(before)
