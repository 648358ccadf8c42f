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
            from huggingface_hub import constants

            # in case the libraries were imported before, when they read the variables
            own = (
                (datasets.config, "HF_DATASETS_CACHE", scratch),
                (datasets.config, "HF_HUB_OFFLINE", True),
                (constants, "HF_HUB_OFFLINE", True),
            )
            values = [getattr(module, name) for module, name, _ in own]
            for module, name, value in own:
                setattr(module, name, value)
            datasets.disable_progress_bars()
            try:
                yield Path(scratch)
            finally:
                for (module, name, _), value in zip(own, values, strict=True):
                    setattr(module, name, value)
        finally:
            os.environ.clear()
            os.environ.update(before)
