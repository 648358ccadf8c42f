"""Text of strangers: whichever way it goes out, nothing in it acts on a terminal, hides, or breaks out of its place."""

import ast
import io
import json
import re
import struct
import unicodedata
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from pytest_local_hub import LocalHub, client

from herdbook import escape, progress, visible
from herdbook.audit.audit import line as audited
from herdbook.cli.main import main
from herdbook.cli.output import write_report
from herdbook.errors import RecipeError, StepError
from herdbook.figures.heatmap import draw_heatmap
from herdbook.figures.svg import document, label
from herdbook.importing import import_recipe
from herdbook.refresh import report as refreshed
from herdbook.refresh.difference import PinDifference
from herdbook.refresh.upstream import UpstreamChange
from herdbook.release.finding import Finding, Outcome
from herdbook.verify import report
from herdbook.verify.levels import LEVELS, LevelResult
from herdbook.view import words
from herdbook.view.screen import Lines
from support import tiny

SOURCE = Path(__file__).parents[2] / "src"
TOKEN = "hf_" + "kD7wPq2x" * 4 + "zz"
ODD = "a-token-of-another-form-0123"
HOSTILE = [
    "x\rherdbook verify: passed",
    "x\r\n  ok   sums everything",
    "x\n  ok   sums everything",
    "x\v\f\x85\u2028\u2029y",
    "\x1b[2K\x1b[1A\x1b]0;title\x07\x9b2J",
    "\u202eLIAF\u202c \u2066\u2069 \u200e\u200f\u061c",
    "one\u200bone\u200c\u200d\u2060\ufeff\xad\U000e0041",
    "\udc80\ud800 not UTF-8",
    "a | b | c ` <script>&\"' \t",
    f"commit {TOKEN}",
    f"file {ODD}.safetensors",
]
ALL = "".join(HOSTILE)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(visible, "_secrets", set())
    visible.conceal(ODD)


def unseen(text):
    """Return what a text has beside line feeds that a reader does not see, by Unicode's categories; and tokens."""
    found = {
        ascii(one)
        for one in text
        if one != "\n" and unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    }
    return found | {token for token in (TOKEN, ODD, TOKEN[:20], ODD[:16]) if token in text}


def test_every_character_that_is_not_seen_is_replaced():
    for number in range(0x110000):
        if unicodedata.category(chr(number)) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
            assert not unseen(visible.line(chr(number))), hex(number)
            assert visible.line(f"a{chr(number)}b") != "ab"
    assert visible.line("Grüße, 你好, नमस्ते, שלום, 🐮 - “…”") == "Grüße, 你好, नमस्ते, שלום, 🐮 - “…”"


@pytest.mark.parametrize("end", range(visible._SHOWN, len(ODD) + 1))
def test_a_token_is_replaced_even_if_a_message_cuts_it_off(end):
    assert visible.line(f"<{ODD[:end]}>") == "<<token>>"


def test_a_token_is_known_by_its_form_and_other_names_stay():
    assert visible.line(f"got {TOKEN}.") == "got <token>."
    assert (
        visible.line("herd/hf_converted_weights_of_our_own_model")
        == "herd/hf_converted_weights_of_our_own_model"
    )


def test_a_long_signed_token_is_hidden_whether_it_is_known_or_not(monkeypatch):
    monkeypatch.setattr(visible, "_secrets", set())
    signed = ".".join(("eyJhbGciOiJSUzI1NiJ9", "eyJ" + "dQ-_" * 400, "s1-_" * 80))
    for secret in (signed, f"hf_jwt_{signed}"):
        assert visible.line(f"got {secret}, and") == "got <token>, and"
    odd = "a job's identity: " + "x" * 2000
    visible.conceal(odd)
    assert visible.line(f"[{odd}] [{odd[:700]}] [{odd[:11]}]") == f"[<token>] [<token>] [{odd[:11]}]"


FINDINGS = [
    Finding("files", "records", text, Outcome.FAILED, text, text, text, text, text, text) for text in HOSTILE
]
RESULTS = [LevelResult(LEVELS["files"][0], tuple(FINDINGS), 1, 0.1)]
CHANGES = [
    UpstreamChange(
        name="base",
        place=text,
        before="0" * 40,
        after=text,
        difference=PinDifference(facts=(f"license: {text}",)),
        notes=(text,),
        trouble=trouble,
    )
    for text in HOSTILE
    for trouble in ("", text)
]


def said(text):
    stream = io.StringIO()
    Lines(stream).say(text)
    return stream.getvalue()


def tabulated(text):
    stream = io.StringIO()
    Lines(stream).tabulate(["rule"], [[text]])
    return stream.getvalue()


WAYS = {
    "a level on the terminal": lambda: report.level_text(RESULTS[0]),
    "the last line": lambda: report.closing(ALL, RESULTS),
    "JUnit": lambda: report.as_junit(ALL, RESULTS),
    "a job summary": lambda: report.as_markdown(ALL, RESULTS),
    "an audit": lambda: "\n".join(map(audited, FINDINGS)),
    "a refresh": lambda: refreshed.as_text(refreshed.RefreshReport("recipe.yaml", CHANGES, problems=[ALL])),
    "a pull request": lambda: refreshed.as_markdown(refreshed.RefreshReport("r.yaml", CHANGES, problems=[ALL])),
    "a figure": lambda: document(9, ALL, [label(1, 1, ALL, 9)]),
    "a heat map": lambda: draw_heatmap({(ALL, 0): 0.5}, [ALL], [0], ALL, ALL, ALL),
    "Markdown": lambda: "".join(filter_(ALL) for filter_ in (escape.md, escape.code, escape.fenced, escape.quoted, escape.link)),
    "the view": lambda: said(ALL) + tabulated(ALL),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_nothing_unseen_and_no_token_goes_out(way):
    assert not unseen(way())


def test_no_text_begins_a_line_of_a_report_or_ends_a_row_of_a_table():
    head = [f"{LEVELS['files'][0].name}: {LEVELS['files'][0].proves}"]
    lines = report.level_text(RESULTS[0]).split("\n")
    assert len(lines) == len(head) + 1 + len(HOSTILE) * 6 + 1  # one line for a check, six for a finding
    rows = [row for row in report.as_markdown("m", RESULTS).split("\n") if row.startswith("| failed")]
    assert len(rows) == len(HOSTILE)
    assert {row.count("|") for row in rows} == {9}
    assert len(list(ET.fromstring(report.as_junit("m", RESULTS)).iter("testcase"))) == len(HOSTILE)


def test_json_stays_what_it_is_but_for_tokens(tmp_path):
    write_report(tmp_path / "r.json", {"names": HOSTILE[:-2]})
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    assert not unseen(text)
    assert json.loads(text)["names"] == HOSTILE[:-2]
    write_report(tmp_path / "r.json", {"names": HOSTILE})
    assert not unseen((tmp_path / "r.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("error", [StepError(ALL), RecipeError(HOSTILE, "recipe.yaml"), OSError(5, ALL, ALL)])
def test_errors(error, monkeypatch, capsys, tmp_path):
    def fail(*_):
        raise error

    monkeypatch.setattr("herdbook.recipe.load", fail)
    main(["plan", str(tiny.write_recipe(tmp_path / "recipe.yaml", {"base": {"hub": "herd/base"}}))])
    out = capsys.readouterr().err
    assert not unseen(out)
    starts = ("herdbook plan: ", "  ", *(["recipe.yaml: "] if isinstance(error, RecipeError) else []))
    assert all(one.startswith(starts) for one in out.splitlines())


def test_a_log_s_last_lines_and_progress(tmp_path, capsys):
    log = tmp_path / "job.log"
    log.write_bytes("\n".join(HOSTILE).encode("utf-8", "surrogatepass"))
    assert not unseen("\n".join(words.last_lines(str(log))))
    run = SimpleNamespace(
        rule="laser", label="a.1", model="a", key="k", logs=[str(log)], seconds=lambda _: 1.0
    )
    assert not unseen(said("\n".join(words.failure(run, 2.0))))
    progress.say(ALL)
    assert not unseen(capsys.readouterr().err)
    assert visible.line(ALL).count("\n") == 0


def write_safetensors(path, names):
    header, at = {}, 0
    for name in names:
        header[name] = {"dtype": "F32", "shape": [4, 4], "data_offsets": [at, at + 64]}
        at += 64
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(range(64)) * (at // 64))


@pytest.mark.parametrize("hostile", [HOSTILE[0], "".join(HOSTILE[3:7]), "".join(HOSTILE[8:])])
def test_lock_and_spectrum_of_a_file_with_hostile_names(hostile, tmp_path, capfd):
    folder = tiny.write_model(tmp_path / "base")
    write_safetensors(folder / "model.safetensors", [hostile, f"model.layers.0.{hostile}.weight"])
    recipe = tiny.write_recipe(tmp_path / "recipe.yaml", {"base": {"folder": "base", "license": "mit"}})
    assert main(["lock", "--recipe", str(recipe)]) in {2, 3, 4, 6}
    main(["spectrum", str(folder), "--matrices", "x", "--json", str(tmp_path / "s.json")])
    main(["spectrum", str(folder / f"{visible.REPLACEMENT}{hostile}".replace("/", ""))])
    out, err = capfd.readouterr()
    assert not unseen(out + err)


def test_a_recipe_from_a_stranger_s_configuration_keeps_its_characters(tmp_path):
    import yaml

    (tmp_path / "config.yml").write_text(
        'base_model: herd/base\ngate_mode: hidden\ndtype: bfloat16\nexperts:\n'
        '  - {source_model: herd/a, positive_prompts: ["one\\u200bone \\u202e"]}\n'
        '  - {source_model: herd/b, positive_prompts: ["b"]}\n',
        encoding="utf-8",
    )  # fmt: skip
    text = import_recipe(tmp_path / "config.yml", license_="mit", relative_to=tmp_path).text
    assert not unseen(text)
    assert "one\u200bone \u202e" in json.dumps(yaml.safe_load(text), ensure_ascii=False)


@pytest.mark.parametrize("place", ["commit", "file", "license"])
def test_a_hub_that_sends_the_token_back_is_refused_and_does_not_get_it_printed(
    place, tmp_path, monkeypatch, capfd
):
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch, hub.token)
        folder = tiny.write_model(tmp_path / "base")
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        if place == "file":
            files[f"{hub.token}.json"] = b"{}"
        hub.add_repo("herd/base", files, license=hub.token if place == "license" else "mit")
        if place == "commit":
            repo = hub.repos["herd/base"]
            repo.commits[hub.token] = replace(repo.commits[repo.branches["main"]], oid=hub.token)
            repo.branches["main"] = hub.token
        recipe = tiny.write_recipe(tmp_path / "recipe.yaml", {"base": {"hub": "herd/base"}})
        assert main(["lock", "--recipe", str(recipe)]) == 4
        out = "".join(capfd.readouterr())
        assert "contains the token of the request" in out
        assert hub.token not in out
        assert any(request.token == hub.token for request in hub.requests)


def test_text_goes_out_in_one_place_only():
    own = {"herdbook/apart.py: sys.stdout.write"}  # for the process that started it, as JSON
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in {"print", "click.echo", "click.secho"} or re.fullmatch(
                r"sys\.std(out|err)\.write", called
            ):
                found.add(f"{path.relative_to(SOURCE)}: {called}")
    assert found == own
