"""Where the files lie that come with Herdbook and are not Python: the workflow, its profiles, a repository to start from."""

from __future__ import annotations

from pathlib import Path

from herdbook.errors import StepError

SNAKEFILE = "Snakefile"


def root() -> Path:
    """Return the folder that holds the Snakefile and what belongs to it, as a checkout has it at its top.

    A wheel brings these files along; in an installation from a checkout (``pip install --editable``) they are the checkout's.

    Raises:
        StepError: If they are not there.
    """
    package = Path(__file__).parent
    for place in (package / "workflow", package.parents[1]):
        if (place / SNAKEFILE).is_file():
            return place
    raise StepError(f"found no {SNAKEFILE} where Herdbook is installed. Install it again.")
