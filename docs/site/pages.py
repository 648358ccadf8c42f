"""The site's files, for MkDocs: the pages of the navigation, wherever they are in the repository, and what they link to.

Pages keep their places, so that a link leads to the same page on the site, in a checkout and in a repository's web view.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?:\]\(|\b(?:src|href)=\")([^)\s\"#]+)")
LOADED = re.compile(
    r"<(?:script|img)\b[^>]*?\bsrc=\"?([^\"\s>]+)|<link rel=\"?(?:stylesheet|icon)\"? href=\"?([^\"\s>]+)"
)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
DOCS = "docs/"
ALERT = re.compile(r"^> \[!([A-Z]+)\]\n((?:^>.*\n?)+)", re.MULTILINE)  # GitHub's, which the Hub shows, too
EXAMPLE = "docs/example/README.md"  # a card; beside it are only some of the files that it links to


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the site's address from pyproject.toml, if the project has one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.site_url = project.get("urls", {}).get("Homepage", "")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the theme's files, the pages of the navigation, and the files that they link to, if these are in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - found on the PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    tracked = set(listed.stdout.splitlines())
    pages = sorted(_leaves(config.nav))
    linked = {path for page in pages for path in _linked(page)} | {DOCS + path for path in config.extra_css}
    ours = [_file(name, config) for name in [*pages, *sorted((linked & tracked) - set(pages))]]
    return Files([*(file for file in files if file.src_dir != config.docs_dir), *ours])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show alerts as the theme does; leave links to the files of a release out of its card, where they are not beside it."""
    del config
    markdown = ALERT.sub(_admonition, markdown)
    if page.file.src_uri != EXAMPLE:
        return markdown

    def kept(link: re.Match[str]) -> str:
        here = re.match(r"[a-z]+:|#", link[2]) or files.get_file_from_path(
            f"{Path(EXAMPLE).parent}/{link[2]}"
        )
        return link[0] if here else link[1]

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", kept, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site with pages that load something from elsewhere, or something that is not there."""
    site = Path(config.site_dir)
    for page in site.rglob("*.html"):
        for found in LOADED.finditer(page.read_text(encoding="utf-8")):
            tag = unescape(found[1] or found[2])
            path = (site if tag.startswith("/") else page.parent) / tag.lstrip("/").split("?")[0]
            if not tag.startswith("data:") and not path.is_file():
                raise PluginError(f"{page.relative_to(site)}: loads {tag}, which is not a file of the site")


def _admonition(alert: re.Match[str]) -> str:
    lines = [line.removeprefix(">").strip() for line in alert[2].splitlines()]
    return "\n".join([f"!!! {alert[1].lower()}", "", *(f"    {line}".rstrip() for line in lines), ""])


def _leaves(nav: list | dict) -> Iterator[str]:
    """Yield the paths of a navigation."""
    for entry in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(entry, str):
            yield entry
        else:
            yield from _leaves(entry)


def _linked(page: str) -> Iterator[str]:
    """Yield the paths of files that a page links to, relative to the repository."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if ":" not in link:
            path = (ROOT / page).parent / unquote(link)
            if path.resolve().is_relative_to(ROOT):
                yield str(path.resolve().relative_to(ROOT))


def _file(name: str, config: MkDocsConfig) -> File:
    """Return a file of the site; what is in ``docs`` is at the site's top."""
    file = File.generated(config, name, abs_src_path=str(ROOT / name))
    file.dest_uri = file.dest_uri.removeprefix(DOCS)
    return file
