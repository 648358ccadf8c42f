"""The page on a release: everything is there, nothing of a stranger's acts, and it works in a browser."""

import base64
import hashlib
import html.parser
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from herdbook.layout import LINEAGE
from herdbook.release.finding import Finding, Options, Outcome
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.steps.card.step import render_card
from herdbook.verify import levels
from herdbook.verify.page import as_page
from support import measured, tiny

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e{{ 7*7 }}"
ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")


class Elements(html.parser.HTMLParser):
    """Collects the elements of a page with their attributes, and the text of scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.found, self.texts, self._inside = [], {}, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._inside = tag if tag in {"script", "style"} else None

    def handle_data(self, data):
        if self._inside:
            self.texts.setdefault(self._inside, []).append(data)
            self._inside = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    tiny.write_model(root / "base")
    tiny.write_model(root / "other", seed=1)
    tiny.write_task(root / "task.yaml")
    models = {
        "base": {"folder": "base", "license": "mit"},
        "other": {"folder": "other", "license": EVIL},
        "mix": {
            "moe": {
                "base": "base",
                "experts": [{"model": "base", "prompts": [EVIL]}, {"model": "other", "prompts": ["w2"]}],
            }
        },
    }
    sections = {
        "release": {"summary": EVIL},
        "evaluate": {"tasks": ["task.yaml"], "models": ["base", "mix"], "compare": {"mix": ["base"]}},
    }
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", models, **sections), root / "results")
    for item in plan.evaluations:
        measured.write(plan, item, [0.9 + (item.name == "base") + number / 100 for number in range(20)])
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan)


def page_of(folder):
    release = Release(FolderSubject(folder))
    return as_page("a name", list(levels.run(release, "claims", Options())), release)


@pytest.fixture(scope="module")
def page(folder):
    return page_of(folder)


def test_the_page_is_the_same_each_time(folder, page):
    assert page_of(folder) == page


def test_nothing_of_a_stranger_acts(page):
    elements = Elements(page)
    names = [tag for tag, _ in elements.found]
    assert names.count("script") == 3  # the data, the models and the program
    assert not [a for _, attributes in elements.found for a in attributes if a.startswith("on")]
    assert {a["src"].partition(",")[0] for tag, a in elements.found if tag == "img"} == {
        "data:image/svg+xml;base64"
    }
    assert {a["href"][0] for tag, a in elements.found if tag == "a"} == {"#"}
    assert "\u202e" not in page
    assert "49" not in re.findall(r"\{\{.*?\}\}", page)


def test_the_policy_allows_its_own_style_and_script_alone(page):
    elements = Elements(page)
    (policy,) = [
        a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"
    ]
    digest = {
        name: base64.b64encode(hashlib.sha256(elements.texts[name][-1].encode()).digest()).decode()
        for name in ("style", "script")
    }
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest['style']}'; script-src 'sha256-{digest['script']}'"
    )


def test_every_tensor_is_in_its_data(folder, page):
    data = json.loads(Elements(page).texts["script"][0])
    lines = [json.loads(line) for line in (folder / LINEAGE).read_text().splitlines()]
    assert [(one["sha256"], one["begin"], one["end"]) for one in data] == [
        (line["sha256"], line["begin"], line["end"]) for line in lines
    ]
    for one, line in zip(data, lines, strict=True):
        assert (one["origin"]["text"].startswith("equals")) == ("equals" in line)


def test_a_damaged_release_has_a_page_that_says_so(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / LINEAGE).write_text("{}\n")
    page = page_of(copy)
    assert "A part of the release could not be shown" in page
    assert 'class="verdict failed"' in page
    assert "Measurements" in page


def test_a_release_that_cannot_be_opened_has_one_too():
    level = levels.LEVELS["files"][0]
    finding = Finding("files", "release", EVIL, Outcome.FAILED, EVIL)
    page = as_page(EVIL, [levels.LevelResult(level, (finding,), 0, 0.0)], None)
    assert 'class="verdict failed"' in page
    assert [tag for tag, _ in Elements(page).found].count("script") == 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_first_answers_are_on_two_screens_of_a_phone(folder, tmp_path):
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "benchmarks/pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    (tmp_path / "card.html").write_text(pictures.page_of(folder / "README.md"))
    places = pictures.heights(tmp_path / "card.html", 390)
    first = [places[name] for name in ("the verdict", "Which file?", "Run it")]
    assert first == sorted(first)
    assert first[-1] < 2 * pictures.SCREEN
    assert places["Run it"] < places["Is it good?"] < places["Can I trust it?"] < places[""]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_search_and_sorting_work_in_a_browser(page, tmp_path):
    """A script that acts as a visitor stands in for one; the page's policy, which would stop it, is taken out."""
    visitor = """
    { const search = document.getElementById("search");
    search.value = "layers.1 experts.1 w2";
    search.dispatchEvent(new Event("input"));
    const [head] = [...document.querySelectorAll("#measurements th button")].slice(1, 2);
    const order = () => [...document.querySelector("#measurements tbody").rows].map((row) => row.cells[0].textContent);
    head.click(); const up = order(); head.click(); const down = order();
    const model = [...document.querySelectorAll("#graph g")].find((one) => one.textContent.startsWith("mix"));
    const before = document.querySelector("#graph svg").getAttribute("width");
    document.querySelector("button[data-zoom]").click();
    model.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
    document.title = JSON.stringify({
      found: document.getElementById("found").textContent,
      text: document.querySelector("#hits li").textContent, up, down,
      models: document.querySelectorAll("#graph g").length, node: document.getElementById("node").textContent,
      grown: Number(document.querySelector("#graph svg").getAttribute("width")) > Number(before),
      wide: document.documentElement.scrollWidth <= window.innerWidth,
    }); }
    """
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "page.html").write_text(text.replace("</body>", f"<script>{visitor}</script></body>"))
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=390,800",
            "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))
    assert seen["found"] == "1 found"
    assert seen["text"].startswith("equals model.layers.1.mlp.down_proj.weight in ")
    assert (seen["up"], seen["down"]) == (["mix", "base"], ["base", "mix"])
    assert seen["wide"]
    assert (seen["models"], seen["grown"]) == (3, True)
    assert seen["node"].startswith("mixmade ofbase, othermade bymoekey")
    assert "provenance/records/mix." in seen["node"]
