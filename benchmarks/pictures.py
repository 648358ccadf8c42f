"""Pictures of cards and pages, to be looked at: as a phone, a tablet and a desktop show them, in light and dark.

    python benchmarks/pictures.py OUT results/NAME/card/README.md results/NAME/report.html
    python benchmarks/pictures.py OUT --large     # of a large made-up release, which it makes first
    python benchmarks/pictures.py OUT --formats   # of a tiny one in all formats, each in a repository of its own

Needs Debian's chromium. A card is drawn in a style like the Hub's. Printed are the height of each, and for a card where the
first answers begin, in pixels and in screens of a phone.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt

WIDTHS = (390, 800, 1280)
SCREEN = 844  # pixels of a phone's height
TALLEST = 16_000
SCHEMES = {"light": 1, "dark": 0}  # Blink's numbers of color schemes
ANSWERS = ("the verdict", "Which file?", "Run it", "Is it good?")
STYLE = """
:root{color-scheme:light dark}body{margin:0 auto;max-width:768px;padding:16px;font:16px/1.5 system-ui,sans-serif;
overflow-wrap:break-word}table{display:block;overflow-x:auto;margin:12px 0;border-collapse:collapse;font-size:14px;max-width:100%}
th,td{border:1px solid #8886;padding:4px 8px}pre{overflow-x:auto;background:#8882;padding:12px;font-size:13px}
img{max-width:100%}code{font-size:.85em}blockquote{border-left:4px solid #8886;margin-left:0;padding-left:12px}
"""


def page_of(card: Path) -> str:
    """Return a card as a page, in a style like the Hub's."""
    text = card.read_text(encoding="utf-8").split("\n---\n", 1)[1]
    text = re.sub(
        r"^> \[!(\w+)\]$", lambda match: f"> **{match[1].capitalize()}**\n>", text, flags=re.MULTILINE
    )
    body = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)
    return (
        '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<base href="{card.parent.resolve().as_uri()}/"><style>{STYLE}</style>{body}'
    )


def heights(page: Path, width: int) -> dict[str, int]:
    """Return where the headings of a page are at a width of the window, and its height, in pixels."""
    script = """
    addEventListener("load", () => {
      const found = {"": document.documentElement.scrollHeight};
      for (const head of document.querySelectorAll("h2")) found[head.textContent.trim()] = Math.round(head.getBoundingClientRect().top);
      const verdict = document.querySelector('td a[href="#is-it-good"]');
      if (verdict) found["the verdict"] = Math.round(verdict.getBoundingClientRect().bottom);
      document.title = JSON.stringify(found);
    });"""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "page.html"
        text = page.read_text(encoding="utf-8")
        # the page's own policy allows no other script, and a frame has the width of a phone, which a window cannot have
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        framed = html.escape(text + f"<script>{script}</script>", quote=True)
        watch = "setTimeout(()=>document.title=f.contentDocument.title,900)"
        copy.write_text(
            f'<!doctype html><iframe id="f" width="{width}" height="{SCREEN}" style="border:0" srcdoc="{framed}"></iframe>'
            f"<script>const f=document.getElementById('f');f.addEventListener('load',()=>{watch})</script>",
            encoding="utf-8",
        )
        done = chromium(Path(name), "--virtual-time-budget=5000", "--dump-dom", copy.as_uri())
    title = re.search(r"<title>(.*?)</title>", done, re.DOTALL)
    if title is None:
        raise SystemExit(f"{page}: chromium did not draw it")
    found: dict[str, int] = json.loads(html.unescape(title[1]))
    return found


def chromium(profile: Path, *arguments: str) -> str:
    """Run Chromium without a window; return what it prints."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("chromium is missing: apt-get install chromium")
    command = [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
    ]
    done = subprocess.run(
        [*command, f"--user-data-dir={profile / 'profile'}", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout


def draw(page: Path, out: Path, name: str) -> None:
    """Draw a page at each width, in light and dark."""
    with tempfile.TemporaryDirectory() as folder:
        for width in WIDTHS:
            places = heights(page, width)
            height = min(TALLEST, places.pop(""))
            known = [head for head in ANSWERS if head in places]
            shown = "; ".join(
                f"{head} at {places[head]} ({places[head] / SCREEN:.1f} screens)" for head in known
            )
            print(f"{name} at {width}: {height} pixels{'; ' if shown else ''}{shown}")
            for scheme, number in SCHEMES.items():
                wide = max(width, 500)  # no window is narrower; the rest stays empty
                frame = Path(folder) / "frame.html"
                frame.write_text(
                    f'<!doctype html><style>body{{margin:0}}</style><iframe src="{page.resolve().as_uri()}" width="{width}" '
                    f'height="{height}" style="border:0"></iframe>',
                    encoding="utf-8",
                )
                picture = out / f"{name}-{width}-{scheme}.png"
                chromium(
                    Path(folder),
                    f"--blink-settings=preferredColorScheme={number}",
                    f"--window-size={wide},{height}",
                    f"--screenshot={picture.resolve()}",
                    frame.as_uri(),
                )


def large(folder: Path) -> list[Path]:
    """Make a large release; return its card and its page."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from herdbook.release.finding import Options
    from herdbook.release.reader import Release
    from herdbook.release.subject import FolderSubject
    from herdbook.steps.card.step import render_card
    from herdbook.steps.release.step import release
    from herdbook.verify import levels
    from herdbook.verify.page import as_page
    from support import large

    plan = large.write(folder)
    render_card(plan, plan.layout.card_folder)
    release(plan)
    made = Release(FolderSubject(plan.layout.release_folder))
    page = folder / "report.html"
    page.write_text(as_page("large", list(levels.run(made, "files", Options())), made), encoding="utf-8")
    return [plan.layout.card_folder / "README.md", page]


def formats(folder: Path) -> list[Path]:
    """Make a tiny release in all formats; return the cards of its repositories."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from herdbook.steps.card.step import render_card
    from support import formats

    plan = formats.write(folder)
    for one in plan.editions:
        render_card(one, one.layout.card_folder)
    return [one.layout.card_folder / "README.md" for one in plan.editions]


def title(path: Path) -> str:
    """Return the name of a release, if a file is in its place in a results folder; else the file's."""
    folder = path.parent if path.suffix == ".html" else path.parents[1]
    return folder.name or path.stem


def main() -> None:
    """Draw the files that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--formats", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        made = large(Path(name) / "large") if asked.large else []
        made += formats(Path(name) / "formats") if asked.formats else []
        for number, path in enumerate([*asked.files, *made]):
            page, kind = path, "page"
            if path.suffix == ".md":
                page, kind = Path(name) / f"card{number}.html", "card"
                page.write_text(page_of(path), encoding="utf-8")
            draw(page, asked.out, f"{title(path.resolve())}-{kind}")


if __name__ == "__main__":
    main()
