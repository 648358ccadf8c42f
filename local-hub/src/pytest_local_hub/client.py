"""Point `huggingface_hub` at a local Hub: in this process, or through the environment of another one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from huggingface_hub import constants
from huggingface_hub.utils import _auth

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from pytest_local_hub.hub import LocalHub


def environment(hub: LocalHub, home: Path, token: str | None = None) -> dict[str, str]:
    """Return an environment for a process that uses a local Hub, without the settings of the user who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        **({"HF_TOKEN": token} if token else {}),
    }


def use(hub: LocalHub, home: Path, monkeypatch: pytest.MonkeyPatch, token: str | None = None) -> None:
    """Point the client in this process at a local Hub, with its own cache and login under ``home``.

    The client reads the environment when it is imported, so its constants are set too.
    """
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    for name, value in environment(hub, home, token).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_auth, "_OIDC_TOKEN_CACHE", None, raising=False)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # it sends requests of its own
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
