"""Fixtures: a Hub for one test, and one that `huggingface_hub` in this process uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_local_hub import client
from pytest_local_hub.hub import LocalHub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def local_hub() -> Iterator[LocalHub]:
    """Return an empty Hub that is stopped after the test."""
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def local_hub_client(local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """Return a Hub that `huggingface_hub` in this process uses, logged in as ``keeper``, with an empty cache."""
    client.use(local_hub, tmp_path / "huggingface", monkeypatch, local_hub.token)
    return local_hub
