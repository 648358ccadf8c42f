"""The pages of the site, and the commands that they show."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TUTORIAL = "docs/tutorial.md"
GUIDES = "How-to guides"
BLOCK = re.compile(
    r"(?:^<!-- not run: (.*?) -->\n)?^```(?:sh|console|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL
)
PROGRAMS = "herdbook|snakemake|python3?|pip|docker|apptainer|make|hf|export"


@dataclass(frozen=True)
class Block:
    """A block of commands: its text, and why no test runs it; None if one does."""

    text: str
    reason: str | None

    @property
    def commands(self):
        """Its commands, without those of a here-document; a line that ends with a backslash goes on."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line and line[0] not in "# "]


def navigation():
    """Return the navigation of the site."""
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]


def _leaves(nav):
    for entry in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(entry, str):
            yield entry
        else:
            yield from _leaves(entry)


def all_pages():
    """Return all pages of the site, as paths in the repository."""
    return [page for page in _leaves(navigation()) if not page.startswith("docs/reference")]


def guides():
    """Return the tutorial and the how-to guides."""
    return [TUTORIAL, *next(_leaves(part) for part in navigation() if GUIDES in part)]


def text(page):
    """Return a page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page):
    """Return the blocks of commands of a page."""
    return [Block(found[2], found[1]) for found in BLOCK.finditer(text(page))]


def indented(page):
    """Return the commands of a page that are in no fence."""
    outside = re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"\n\n    ((?:{PROGRAMS}) .*)", outside)


def commands(page):
    """Return each line of a page that calls herdbook, in fences and indented, with the page."""
    joined = text(page).replace("\\\n", " ")
    return [
        (page, found) for found in re.findall(r"^(?:    |\$ )?(herdbook [a-z-].*)$", joined, re.MULTILINE)
    ]
