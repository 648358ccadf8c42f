"""The files of Herdbook that are not Python: the workflow, its profiles, a repository to start from.

Also the project's address, and the requirement with which pip installs the same Herdbook in another environment.
"""

from __future__ import annotations

import importlib.metadata
import json
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from herdbook.errors import StepError

SNAKEFILE = "Snakefile"
LOCK = "requirements.lock"
ENVIRONMENTS = "envs"
TEMPLATES = "templates"
CARD_TEMPLATE = "card.md.j2"
SCHEME_CARD_TEMPLATE = "scheme.md.j2"  # of one with the model in a format for GPU servers or Macs
GGUF_CARD_TEMPLATE = "gguf.md.j2"  # of a repository with quantized files alone


def root() -> Path:
    """Return the folder with the Snakefile and the files that belong to it, laid out as at the top of a checkout.

    A wheel contains these files; in an installation from a checkout (``pip install --editable``) they are the checkout's.

    Raises:
        StepError: If they are missing.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "workflow", package.parents[1]):
        if (folder / SNAKEFILE).is_file():
            return folder
    raise StepError(f"Herdbook's installation contains no {SNAKEFILE}. Reinstall Herdbook.")


def card_templates() -> Path:
    """Return the folder of the card's templates.

    It is the package's, or that of the checkout that the package runs from. A recipe can have templates of its own (``card``).

    Raises:
        StepError: If no folder contains one.
    """
    package = Path(__file__).parents[1]
    for folder in (package / TEMPLATES, package.parents[1] / TEMPLATES):
        if (folder / CARD_TEMPLATE).is_file():
            return folder
    raise StepError(
        f"card: Herdbook's installation contains no {TEMPLATES}/{CARD_TEMPLATE}. Reinstall Herdbook."
    )


@cache
def homepage() -> str | None:
    """Return the project's public address, ``Homepage`` in ``project.urls`` of pyproject.toml; None as long as there is none."""
    try:
        urls = importlib.metadata.metadata("herdbook").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    named = dict(url.split(", ", 1) for url in urls)
    return named.get("Homepage")


def requirement() -> str:
    """Return the requirement with which pip installs this Herdbook in another environment.

    An installation from a folder, an archive or a repository records its origin (PEP 610, ``direct_url.json``); all others
    came from an index, by version.
    """
    if not (Path(__file__).parents[1] / "workflow").is_dir():
        return str(root())  # runs from a checkout
    distribution = importlib.metadata.distribution("herdbook")
    text = distribution.read_text("direct_url.json")
    if text is None:
        return f"herdbook=={distribution.version}"
    origin = json.loads(text)
    if "dir_info" in origin:
        return url2pathname(urlsplit(origin["url"]).path)
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return f"herdbook @ {vcs['vcs']}+{origin['url']}@{vcs['commit_id']}"
    return f"herdbook @ {origin['url']}"
