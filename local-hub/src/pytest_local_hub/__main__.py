"""Serves folders as repositories: ``python -m pytest_local_hub FOLDER``, where models lie in FOLDER/owner/name."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from pytest_local_hub.server import LocalHub


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m pytest_local_hub", description="Serve folders as a Hub.")
    parser.add_argument("folder", type=Path, help="holds owner/name/..., one folder a model repository")
    root = parser.parse_args().folder
    with LocalHub() as hub:
        for repo in sorted(path for path in root.glob("*/*") if path.is_dir()):
            name = repo.relative_to(root).as_posix()
            files = {path.relative_to(repo).as_posix(): path for path in repo.rglob("*") if path.is_file()}
            print(f"{name} {hub.add_repo(name, files)}")
        print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1 HF_TOKEN={hub.token}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
