"""Ranks in leaderboards and what authors assert: ties, gaps, filters, intervals, contradictions."""

import io
import json
from datetime import date
from decimal import Decimal

import pyarrow as pa
import pytest
from pyarrow import parquet

from herdbook.errors import RecipeError, StepError
from herdbook.recipe import Leaderboard
from herdbook.steps.card.gathering import gather
from herdbook.steps.card.rank import find_place
from herdbook.steps.card.snapshot import read_snapshot
from herdbook.steps.card.step import card_texts
from support import measured, tiny
from support.boards import JSON_BOARD as BOARD

ROWS = [
    {"model": "a", "score": 0.80, "size": 7, "license": "mit"},
    {"model": "b", "score": 0.86, "size": 7, "license": "apache-2.0"},
    {"model": "c", "score": 0.90, "size": 13, "license": "mit"},
    {"model": "d", "score": 0.90, "size": 70, "license": "other"},
    {"model": "e", "score": None, "size": 7, "license": "mit"},
    {"model": "f", "score": 0.99, "size": None, "license": "mit"},
]
MODELS = {"base": {"folder": "base"}, "tuned": {"folder": "tuned"}}


def board(**changes):
    return Leaderboard.model_validate(BOARD | changes)


def as_csv(rows):
    lines = [",".join(rows[0])]
    return "\n".join([*lines, *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)])


def as_parquet(rows, names=None, **types):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    arrays = [pa.array(column, types.get(name)) for name, column in columns.items()]
    table = pa.Table.from_arrays(arrays, names or list(columns))
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


FORMS = {
    "board.json": json.dumps(ROWS).encode(),
    "board.jsonl": ("\n".join(map(json.dumps, ROWS)) + "\n").encode(),
    "board.csv": as_csv(ROWS).encode(),
    "board.parquet": as_parquet(ROWS),
    "single.parquet": as_parquet(
        ROWS, score=pa.float32(), size=pa.int16(), license=pa.dictionary(pa.int8(), pa.string())
    ),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, "abcdef"),
        ({"license": "mit"}, "acef"),
        ({"license": ["mit", "other"]}, "acdef"),
        ({"size": {"at_most": 13}}, "abce"),  # f has no size
        ({"size": {"at_least": 13, "at_most": 70}}, "cd"),
        ({"size": {"at_most": 7}, "license": "mit"}, "ae"),
    ],
)
def test_filters_keep_the_rows_that_they_name_in_each_format(name, where, expected):
    found = read_snapshot(FORMS[name], board(snapshot=name, where=where), "leaderboards.x")
    assert "".join(model for model, _ in found.rows) == expected
    assert found.left_out == len(ROWS) - len(expected)
    scores = {row["model"]: "" if row["score"] is None else str(row["score"]) for row in ROWS}
    assert [Decimal(score) if score else "" for _, score in found.rows] == [
        Decimal(scores[model]) if scores[model] else "" for model in expected
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("board.json", "{}", "is not JSON in UTF-8: it is not a list of objects"),
        ("board.json", "[1]", "it is not a list of objects"),
        ("board.json", '[{"model": 1, "model": 2}]', "an object has a key twice"),
        ("board.json", "[", "is not JSON in UTF-8"),
        ("board.jsonl", '{"model": "a"}\n3', "is not JSONL in UTF-8"),
        ("board.json", '[{"model": "a"}]', "has 0 columns named 'score'; its columns are model"),
        ("board.csv", "model,score,score\n", "has 2 columns named 'score'"),
        ("board.parquet", "model,score\n", "is not Parquet: "),
    ],
)
def test_a_snapshot_of_another_form_is_refused(name, content, message):
    with pytest.raises(StepError, match="leaderboards.x.*" + message.replace("[", r"\[")):
        read_snapshot(content.encode(), board(snapshot=name), "leaderboards.x")


def test_cells_of_parquet_are_read_as_they_print():
    rows = [
        {"model": "a", "score": Decimal("8.10"), "day": date(2026, 1, 2), "many": ["x"], "deep": {"y": 1}},
        {"model": None, "score": None, "day": None, "many": None, "deep": None},
    ]
    of_day = {"where": {"day": "2026-01-02", "many": '["x"]', "deep": '{"y": 1}'}}
    found = read_snapshot(as_parquet(rows), board(snapshot="b.parquet", **of_day), "x")
    assert (found.rows, found.left_out) == ([("a", "8.10")], 1)
    twice = as_parquet(rows, names=["model", "score", "score", "many", "deep"])
    with pytest.raises(StepError, match="has 2 columns named 'score'"):
        read_snapshot(twice, board(snapshot="b.parquet"), "x")


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_small_parquet_with_a_long_cell_in_each_row_is_refused(kind):
    """A text that all rows repeat takes little room in the file, and not before it is read as plain text."""
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), ["m" * 1_000_000])
    file = io.BytesIO()
    table = pa.table({"model": cells, "score": [1.0] * 3000})
    parquet.write_table(table, file, store_schema=pa.types.is_dictionary(kind))
    content = file.getvalue()
    assert parquet.read_schema(io.BytesIO(content)).field("model").type == kind
    assert len(content) < 3_000_000
    with pytest.raises(
        StepError, match=r"leaderboards\.x: board\.parquet: is refused: it has a cell of more"
    ):
        read_snapshot(content, board(snapshot="board.parquet"), "leaderboards.x")


def test_a_parquet_with_more_rows_than_a_leaderboard_has_is_refused():
    file = io.BytesIO()
    parquet.write_table(pa.table({"model": pa.nulls(1_000_001), "score": pa.nulls(1_000_001)}), file)
    many = file.getvalue()
    with pytest.raises(StepError, match="it has 1,000,001 rows, over the limit of 1,000,000"):
        read_snapshot(many, board(snapshot="board.parquet"), "leaderboards.x")


def test_the_row_of_the_model_itself_gives_its_score(tmp_path):
    """The board's rows are 0.80, 0.86, 0.90, 0.90 and 0.99; lower is better."""
    own = {"row": {"model": "c", "license": "mit"}, "task": None, "metric": None}
    plan = plan_of(tmp_path, **own)
    text = said(plan)
    assert "**3rd= of 5 (tied with d) on Board by score" in text
    assert "the score 0.9 that the leaderboard itself gives this model (model `c`, license `mit`)" in text
    assert "not measured by this build, among the rows" in text
    assert "next above is b with 0.86; next below is f with 0.99." in text
    assert "interval" not in text
    for wrong, message in (
        ({"license": "mit"}, "has 4 rows of this model, not one"),
        ({"model": "x"}, "has 0 rows of this model, not one"),
        ({"name": "c"}, "has 0 columns named 'name'"),
    ):
        with pytest.raises(StepError, match=f"x.row.*{message}"):
            read_snapshot(FORMS["board.json"], board(**own | {"row": wrong}), "x")
    assert read_snapshot(FORMS["board.json"], board(**own | {"row": {"model": "e"}}), "x").own == ("e", "")


def test_a_filter_on_a_column_that_does_not_exist_is_refused():
    with pytest.raises(StepError, match=r"leaderboards\.x\.where\.licence: .* 0 columns named 'licence'"):
        read_snapshot(
            FORMS["board.csv"],
            board(snapshot="board.csv", where={"licence": "mit"}),
            "leaderboards.x",
        )


def test_neighbors_and_the_share_that_is_worse():
    rows = [(row["model"], "" if row["score"] is None else str(row["score"])) for row in ROWS]
    place = find_place(Decimal("0.9"), rows, "lower")
    assert (place.rank, place.of, place.tied, place.dropped) == (3, 6, ("c", "d"), 1)
    assert (place.above, place.below, place.share_of_worse) == (("b", "0.86"), ("f", "0.99"), 0.2)
    turned = find_place(Decimal("0.87"), rows, "higher")
    assert (turned.rank, turned.above[1], turned.below) == (4, "0.9", ("b", "0.86"))
    assert find_place(Decimal(2), rows, "lower").below is None


def plan_of(folder, better=0.0, stderr=0.0123, claims=(), **changes):
    for seed, name in enumerate(MODELS):
        tiny.write_model(folder / name, seed)
    tiny.write_task(folder / "task.yaml")
    (folder / "board.json").write_bytes(FORMS["board.json"])
    sections = {
        "evaluate": {"tasks": ["task.yaml"], "models": list(MODELS), "compare": {"tuned": ["base"]}},
        "leaderboards": {"board": BOARD | changes},
        "claims": [{"text": "So it is.", "by": "Somebody"} | claim for claim in claims],
    }
    plan = tiny.build(tiny.write_recipe(folder / "r.yaml", MODELS, **sections), folder / "results")
    for item in plan.evaluations:
        own = [0.83 + number / 1000 - better * (item.name == "tuned") for number in range(11)]
        measured.write(plan, item, own, stderr=stderr)
    return plan


def said(plan):
    text = card_texts(plan)["README.md"].partition("## Is it good?")[2].partition("\n## ")[0]
    return " ".join(text.replace("\\", "").split())


def test_the_card_states_neighbors_share_and_the_places_inside_the_interval(tmp_path):
    plan = plan_of(
        tmp_path, stderr=0.02
    )  # 0.835: between a and b; 1.96 standard errors reach 0.7958 and 0.8742
    text = said(plan)
    assert "**2nd of 6 on Board" in text
    assert "Better than 80.0 % of the others; next above is a with 0.8; next below is b with 0.86." in text
    assert "Inside the score's 95 % interval are the places 1 to 3." in text


def test_filters_are_stated(tmp_path):
    text = said(plan_of(tmp_path, where={"license": "mit"}))
    assert "**2nd of 4 on Board" in text
    assert "Only rows with license mit: 2 others are left out." in text


def test_an_interval_in_which_the_place_stays_says_so(tmp_path):
    """0.835 is between a, 0.8, and b, 0.86, and so are its ends: 1.96 standard errors are 0.0196. A better one is before all."""
    text = said(plan_of(tmp_path, stderr=0.01))
    assert "next below is b with 0.86. The place is the same throughout the score's 95 % interval." in text
    text = said(plan_of(tmp_path / "best", stderr=0.01, better=0.5))
    assert "**1st of 6 on Board" in text
    assert "Better than all of the others; next below is a" in text


def test_no_standard_error_no_interval(tmp_path):
    plan = plan_of(tmp_path, stderr=None)
    (ranked,) = gather(plan).ranks
    assert ranked.within is None
    assert (ranked.allows(2), ranked.allows(1), ranked.allows(3)) == (True, False, False)
    assert "interval are the places" not in said(plan)


@pytest.mark.parametrize(("place", "right"), [(1, True), (3, True), (4, False)])
def test_an_asserted_place_is_contradicted_outside_the_interval(tmp_path, place, right):
    claim = {"rank": {"leaderboard": "board", "place": place}}
    plan = plan_of(tmp_path, stderr=0.02, claims=[claim])
    if right:
        text = said(plan)
        assert "*Asserted* by Somebody; this build found that it is 2nd of 6 on Board, 1 to 3 inside" in text
        assert "contradicts" not in text
    else:
        with pytest.raises(StepError) as refused:
            card_texts(plan)
        assert "claims.0: the evidence contradicts 'So it is.': it is 2nd of 6" in str(refused.value)


def test_a_contradicted_claim_stays_only_with_a_reason(tmp_path):
    claim = {"rank": {"leaderboard": "board", "place": 6}, "waived": "It was so in the spring."}
    text = said(plan_of(tmp_path, claims=[claim]))
    assert (
        "**The evidence contradicts it.** It stays, as the author says, because: It was so in the spring."
        in text
    )


@pytest.mark.parametrize(
    ("better", "verdict", "fails"),
    [(0.01, "better", False), (-0.01, "worse", True), (0.0, "no measurable difference", False)],
)
def test_an_asserted_improvement_stands_beside_the_verdict(tmp_path, better, verdict, fails):
    plan = plan_of(tmp_path, better, claims=[{"better": {"than": "base", "task": "held_out"}}])
    if fails:
        with pytest.raises(StepError, match=f"compared with base in held_out: {verdict}"):
            card_texts(plan)
    else:
        assert f"found that compared with base in held_out: {verdict}." in said(plan)


def test_an_improvement_in_a_task_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"claims\.0\.better\.task: no task is named 'other'"):
        plan_of(tmp_path, claims=[{"better": {"than": "base", "task": "other"}}])
