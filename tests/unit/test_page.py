"""The page on a release: everything is there, nothing of a stranger's acts, and it works in a browser."""

import base64
import hashlib
import html.parser
import importlib.util
import json
import math
import re
import shutil
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from safetensors import safe_open

from herdbook.files import write_json
from herdbook.layout import LINEAGE, Layout
from herdbook.needs.spent import Spent, note, spent
from herdbook.plan.jobs import result_jobs
from herdbook.release.finding import Finding, Options, Outcome
from herdbook.release.hub_subject import HubSubject
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.steps.card.step import render_card
from herdbook.steps.laser.evidence import places
from herdbook.verify import levels
from herdbook.verify.page import as_page
from herdbook.weights.record import read_record
from support import large, measured, tiny

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
        "cut": {"laser": "other", "rank": {"fraction": 0.5}, "matrices": ["mlp.up_proj"]},
        "mix": {
            "moe": {
                "base": "base",
                "experts": [{"model": "base", "prompts": [EVIL]}, {"model": "cut", "prompts": ["w2"]}],
            }
        },
    }
    sections = {
        "release": {"summary": EVIL},
        "evaluate": {
            "tasks": ["task.yaml"],
            "models": ["base", "mix"],
            "compare": {"mix": ["base"]},
            "release_samples": True,
        },
    }
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", models, **sections), root / "results")
    for item in plan.evaluations:
        values = [0.9 + (item.name == "base") * number / 10 + number / 100 for number in range(30)]
        measured.write(plan, item, values)
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan)


def page_of(folder, build=None):
    release = Release(FolderSubject(folder))
    return as_page("a name", list(levels.run(release, "claims", Options())), release, build)


def card_of(page):
    """The address of the link to the card; None if there is none."""
    links = [a["href"] for tag, a in Elements(page).found if tag == "a" and a["href"][0] != "#"]
    assert len(links) < 2
    return next(iter(links), None)


@pytest.fixture(scope="module")
def page(folder):
    return page_of(folder)


def test_the_page_is_the_same_each_time(folder, page):
    assert page_of(folder) == page


def test_nothing_of_a_stranger_acts(page):
    elements = Elements(page)
    names = [tag for tag, _ in elements.found]
    assert names.count("script") == 4  # the data, the spectra, the models and the program
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


def test_the_documents_that_differ_most_are_listed(page):
    text = page[page.index("Single documents") :].partition("</details>")[0]
    rows = re.findall(r'data-value="(\d+)">\d+</th>(.*?)</tr>', text)
    assert [int(number) for number, _ in rows] == list(range(29, 4, -1))
    values = [float(value) for value in re.findall(r'data-value="([^"]+)"', rows[0][1])]
    assert values == pytest.approx([1.19, 4.09, -2.9])
    assert "5 more in the release" in text


def test_spectra_are_those_of_the_records(folder, page):
    data = [json.loads(text) for text in Elements(page).texts["script"][:-1]]
    (spectra,) = [each for each in data if each and "points" in each[0]]
    records = [read_record(path)["tensors"] for path in (folder / "provenance/records").glob("cut*.json")]
    entries = {name: entry for record in records for name, entry in record.items() if "spectrum" in entry}
    assert {one["name"] for one in spectra} == entries.keys()
    for one in spectra:
        entry = entries[one["name"]]
        assert [value for _, value in one["points"]] == entry["spectrum"]["points"]
        assert [rank for rank, _ in one["points"]] == [place + 1 for place in places(min(entry["shape"]))]
        assert one["rank"] == entry["rank"]


def test_what_a_build_took_is_shown_of_its_own_jobs_alone(folder, page):
    plan = Release(FolderSubject(folder)).plan()
    results = folder.parents[1]
    layout, jobs = Layout(results, "Tiny"), [job for job in result_jobs(plan) if job.rule == "moe"]
    try:
        for number, job in enumerate(jobs):
            entry = Spent(job.key, 1000.0 + 10 * number, 5.0, 7.5, 2, 10**6 * (1 + number))
            write_json(layout.spent("moe", job.id), asdict(entry))
        other = next(job for job in result_jobs(plan) if job.rule == "fetch")
        write_json(layout.spent("fetch", other.id), asdict(Spent("0" * 64, 0.0, 1.0, 1.0, 0, 1)))
        shown = page_of(folder, results)
    finally:
        shutil.rmtree(results / "spent")
    assert page_of(folder, results) == page  # nothing is noted
    row = shown[shown.index('<th scope="row">moe</th>') :].partition("</tr>")[0]
    values = [float(value) for value in re.findall(r'data-value="([^"]+)"', row)]
    count = len(jobs)
    assert values == [count, 0, 5.0 * count, 7.5 * count, 10.0 * count, 10**6 * count]
    row = shown[shown.index('<th scope="row">fetch</th>') :].partition("</tr>")[0]
    values = [float(value) for value in re.findall(r'data-value="([^"]+)"', row)]
    assert values[0] == values[1] > 0
    assert values[2:] == [0, 0, 0, 0]


def test_a_job_notes_what_it_took(folder, tmp_path):
    plan = Release(FolderSubject(folder)).plan()
    plan = replace(plan, layout=Layout(tmp_path, "Tiny"))
    job = next(job for job in result_jobs(plan) if job.rule == "laser")
    note(plan, job, time.time() - 3, 1)
    (found,) = [one for one in spent(plan, tmp_path)["laser"] if one]
    assert found.key == job.key
    assert 3 <= found.seconds < 60
    assert found.cpu_seconds > 0
    assert (found.gpus, found.peak_bytes > 10**7) == (1, True)
    noted = plan.layout.spent("laser", job.id)
    for damaged in ("{", "[]", '{"key": 1}', noted.read_text().replace('"gpus": 1', '"gpus": "x"')):
        noted.write_text(damaged)
        assert not [one for one in spent(plan, tmp_path)["laser"] if one]


def test_the_head_says_what_it_is_and_who_signed(folder, page):
    head = page.partition("</header>")[0]
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    assert f"{count:,} parameters; license: " in head
    assert "made from base, other." in head
    assert f"checks that {levels.LEVELS['claims'][0].proves}" in head
    assert "Signature: nothing is signed, so its author is not proven." in head


def test_it_leads_to_the_card_from_above_the_folder_alone(folder, page, tmp_path):
    """A folder with a colon and a hash, which a browser would take for a protocol and a place in a file."""
    copy = tmp_path / "a:b #1/release"
    shutil.copytree(folder, copy)
    release = Release(FolderSubject(copy))
    found = list(levels.run(release, "files", Options()))
    for place, expected in (
        (copy.parent / "report.html", "./release/README.md"),
        (tmp_path / "report.html", "./a%3Ab%20%231/release/README.md"),
        (tmp_path / "elsewhere/report.html", None),
        (None, None),
    ):
        link = card_of(as_page("a name", found, release, None, place))
        assert link == expected
        if link:
            assert (place.parent / unquote(link)).read_bytes() == (folder / "README.md").read_bytes()
    assert card_of(page) is None
    (copy / "README.md").unlink()
    release = Release(FolderSubject(copy))
    assert card_of(as_page("a name", found, release, None, copy.parent / "report.html")) is None


def test_that_of_a_repository_leads_to_its_card_on_the_hub(folder, local_hub_client):
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    local_hub_client.add_repo("owner/name", files)
    release = Release(HubSubject("owner/name", None))
    link = card_of(as_page("a name", list(levels.run(release, "files", Options())), release))
    assert link == f"https://huggingface.co/owner/name/blob/{release.subject.commit}/README.md"


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


def answers(card, tmp_path):
    """Where the first answers of a card begin on a phone, in screens."""
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "benchmarks/pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    (tmp_path / "card.html").write_text(pictures.page_of(card))
    places = pictures.heights(tmp_path / "card.html", 390)
    assert places["Is it good?"] < places["Can I trust it?"] < places[""]
    return [
        places[name] / pictures.SCREEN for name in ("the verdict", "Which file?", "Run it", "Is it good?")
    ]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_first_answers_are_on_two_screens_of_a_phone(folder, tmp_path):
    first = answers(folder / "README.md", tmp_path)
    assert first == sorted(first)
    assert first[-1] < 2


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_and_those_of_a_very_large_release(tmp_path):
    plan = large.write(tmp_path)
    render_card(plan, tmp_path / "card")
    text = (tmp_path / "card/README.md").read_text().replace("\\", "")
    fits = "in 8 GB Q5_K_S with 128 tokens of context; in 12 GB or more Q8_0 with 128 tokens of context."
    assert f"The largest that fits: {fits}" in text
    first = answers(tmp_path / "card/README.md", tmp_path)
    assert first == sorted(first)
    assert first[-1] < 2


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
    const matrix = document.getElementById("matrix");
    matrix.value = "1"; matrix.dispatchEvent(new Event("change"));
    const nodes = [...document.querySelectorAll("#graph rect")].map((one) => one.getBBox());
    const behind = [...document.querySelectorAll("#graph .edge")].filter((edge) => {
      for (let at = 1; at < edge.getTotalLength() - 1; at += 1) {
        const { x, y } = edge.getPointAtLength(at);
        if (nodes.some((box) => x > box.x && x < box.x + box.width && y > box.y + 1 && y < box.y + box.height - 1)) return true;
      }
      return false;
    });
    document.title = JSON.stringify({
      behind: behind.length, edges: document.querySelectorAll("#graph .edge").length,
      spectrum: document.querySelector("#spectrum svg").getAttribute("aria-label"),
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
    assert (seen["models"], seen["grown"]) == (4, True)
    assert (seen["behind"], seen["edges"]) == (0, 3)
    assert seen["spectrum"] == "Spectrum of model.layers.1.mlp.up_proj.weight"
    assert seen["node"].startswith("mixmade ofbase, cutmade bymoekey")
    assert "provenance/records/mix." in seen["node"]
