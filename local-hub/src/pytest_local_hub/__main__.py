"""Serve folders as repositories: ``python -m pytest_local_hub FOLDER``, with models in FOLDER/owner/name."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from pytest_local_hub.hub import LocalHub


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m pytest_local_hub", description="Serve folders as a Hub.")
    parser.add_argument("folder", type=Path, help="contains owner/name/..., one folder per model repository")
    root = parser.parse_args().folder
    # Python leaves SIGINT ignored where the parent ignores it, as a shell does for what runs in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with LocalHub() as hub:
            _serve(hub, root)
    except KeyboardInterrupt:
        print("stopped", flush=True)


def _serve(hub: LocalHub, root: Path) -> None:
    """Add the folders, print how to reach the Hub, and wait forever."""
    for repo in sorted(path for path in root.glob("*/*") if path.is_dir()):
        name = repo.relative_to(root).as_posix()
        files = {path.relative_to(repo).as_posix(): path for path in repo.rglob("*") if path.is_file()}
        print(f"{name} {hub.add_repo(name, files)}")
    print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1 HF_TOKEN={hub.token}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
