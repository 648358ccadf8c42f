"""Where the files lie that come with Herdbook and are not Python: the workflow, its profiles, a repository to start from.

And what pip installs to have the same Herdbook in another environment.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from herdbook.errors import StepError

SNAKEFILE = "Snakefile"
LOCK = "requirements.lock"
TEMPLATES = "templates"
CARD_TEMPLATE = "card.md.j2"


def root() -> Path:
    """Return the folder that holds the Snakefile and what belongs to it, as a checkout has it at its top.

    A wheel brings these files along; in an installation from a checkout (``pip install --editable``) they are the checkout's.

    Raises:
        StepError: If they are not there.
    """
    package = Path(__file__).parents[1]
    for place in (package / "workflow", package.parents[1]):
        if (place / SNAKEFILE).is_file():
            return place
    raise StepError(f"found no {SNAKEFILE} where Herdbook is installed. Install it again.")


def card_templates() -> Path:
    """Return the folder of the card's templates.

    That is ``templates`` in the working folder if it has a card's template, so that a release can have its own; else
    the one that came with the package; else that of the checkout that the package runs from.

    Raises:
        StepError: If there is none.
    """
    package = Path(__file__).parents[1]
    for place in (Path(TEMPLATES), package / TEMPLATES, package.parents[1] / TEMPLATES):
        if (place / CARD_TEMPLATE).is_file():
            return place
    raise StepError(
        f"card: found no {CARD_TEMPLATE}; looked into ./{TEMPLATES} and where Herdbook is installed. Install it again."
    )


def card_schema() -> Path:
    """Return the schema of the card's front matter, as far as the Hub reads it."""
    return Path(__file__).parents[1] / "steps" / "card" / "metadata.schema.json"


def requirement() -> str:
    """Return what pip installs to have this Herdbook in another environment.

    What was installed from a folder, an archive or a repository says so (PEP 610, ``direct_url.json``); the rest came from an
    index, by its version.
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
