"""The figures: narrow enough for a phone, legible in light and dark, and whole whatever the names and numbers."""

import itertools
import random
import re
import xml.etree.ElementTree as ET
from decimal import Decimal

import pytest

from herdbook.figures import (
    Box,
    Cut,
    Edge,
    FilePoint,
    MeasuredRow,
    Panel,
    draw_heatmap,
    draw_lineage,
    draw_losses,
    draw_measurements,
    draw_spectrum,
)
from herdbook.figures.svg import fit, text_width, wrap
from herdbook.figures.timeline import Ran, draw_timeline, merged

SVG = "{http://www.w3.org/2000/svg}"
LONG = [f"a-model-with-a-long-name-and-a-number-{number}-that-was-tuned-{'x' * 12}" for number in range(12)]


def herd(names):
    """Return the boxes and edges of a mixture of lasered models, with files."""
    boxes, edges = [], []
    for name in names:
        boxes += [Box(name, name, "source", "fetch"), Box(f"{name}-laser", f"{name}-laser", "LASER", "laser")]
        edges.append(Edge(name, f"{name}-laser", "LASER"))
    boxes.append(Box("mix", "mix", "MoE", "moe"))
    edges += [Edge(f"{name}-laser", "mix", f"expert {place}") for place, name in enumerate(names, start=1)]
    for number in range(10):
        boxes.append(Box(f"f{number}", f"Q{number}", "1.00 GB", "file"))
        edges.append(Edge("mix", f"f{number}"))
    return boxes, edges


LARGE = {
    "lineage": lambda: draw_lineage(*herd(LONG[:8]), "Lineage"),
    "heat map": lambda: draw_heatmap(
        {(name, layer): Decimal("0.31") for name in LONG for layer in range(80)},
        LONG,
        range(80),
        LONG[0],
        "of it",
        "no",
    ),
    "losses": lambda: draw_losses(
        [
            FilePoint(name, 8.5 - place / 2, 10.0 ** (place - 6), 0.0, place != 3)
            for place, name in enumerate(LONG)
        ],
        "Size against loss",
    ),
    # the largest loss is between 0.1 and 1, the smallest close to the axis
    "losses below one": lambda: draw_losses(
        [
            FilePoint(name, bits, loss, loss / 20)
            for name, bits, loss in (("Q8_0", 8.5, 0.00101), ("Q4_K_M", 5.7, 0.04), ("Q2_K", 4.5, 0.4))
        ],
        "Size against loss",
    ),
    "measurements": lambda: draw_measurements(
        [
            Panel(
                f"{name}: bits per byte (lower is better)",
                tuple(
                    MeasuredRow(
                        row, Decimal(place), Decimal("0.5"), f"{place}.0000 ± 0.5000", False, place == 3
                    )
                    for place, row in enumerate(LONG)
                ),
            )
            for name in LONG
        ],
        "Measurements",
    ),
    "timeline": lambda: draw_timeline(
        [Ran(name, 3600.0 * place, 3600.0 * place + 100, name) for place, name in enumerate(LONG)], "Build"
    ),
    "spectrum": lambda: draw_spectrum(
        [(1, 9.0), (4096, 0.1)], [(1, 8.0)], 4096, [Cut(name, 9, 1.0) for name in LONG], LONG[0]
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_all_text_is_inside_and_lines_do_not_overlap(name):
    drawing = ET.fromstring(LARGE[name]())
    width, height = float(drawing.get("width")), float(drawing.get("height"))
    assert width <= 480
    lines = []
    for text in drawing.iter(f"{SVG}text"):
        size = float(text.get("font-size"))
        assert size >= 12  # 9 on a phone of 360 pixels
        own = text_width(text.text, size)
        x = float(text.get("x")) - own * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")]
        y = float(text.get("y"))
        assert x >= 0, text.text
        assert x + own <= width + size / 2, text.text
        assert 0 < y < height
        lines.append((x, x + own, y, size, text.text))
    for number, (left, right, y, size, text) in enumerate(lines):
        for other_left, other_right, other_y, _, other in lines[number + 1 :]:
            apart = right <= other_left or other_right <= left or abs(y - other_y) >= size - 2
            assert apart, (text, other)


@pytest.mark.parametrize("name", LARGE)
def test_paper_and_ink_follow_the_reader_s_scheme(name):
    drawn = LARGE[name]()
    assert "prefers-color-scheme:dark" in drawn
    for text in ET.fromstring(drawn).iter(f"{SVG}text"):
        assert text.get("class") in {"hb-ink", "hb-faint"}
        assert text.get("fill") is None


def test_lines_of_different_parents_never_share_a_lane_between_their_rows():
    boxes, edges = herd(["a", "b", "c"])
    drawing = ET.fromstring(draw_lineage(boxes, edges, "Lineage"))
    spans = {}
    for path in drawing.iter(f"{SVG}path"):
        x, y, end = re.match(r"M([\d.]+) ([\d.]+)V([\d.]+)", path.get("d")).groups()
        top, bottom = spans.get((x, y), (float(y), float(y)))
        spans[x, y] = (top, max(bottom, float(end)))
    assert len(spans) == 7  # each parent has one line
    for (x, y), (top, bottom) in spans.items():
        for (other_x, other_y), (other_top, other_bottom) in spans.items():
            if x == other_x and y < other_y:
                assert bottom <= other_top or other_bottom <= top


def test_text_says_what_the_lines_show():
    boxes, edges = herd(["a", "b"])
    texts = [text.text for text in ET.fromstring(draw_lineage(boxes, edges, "T")).iter(f"{SVG}text")]
    assert "LASER, from a" in texts
    assert texts[texts.index("mix") + 1 : texts.index("Q0")] == [
        "MoE",
        "· a-laser: expert 1",
        "· b-laser: expert 2",
    ]


def test_the_scale_of_a_heat_map_ends_at_the_largest_share():
    drawn = draw_heatmap({("a", 0): 0.41, ("a", 1): 0.2}, ["a"], range(2), "T", "of the choices")
    assert "50 % of the choices" in drawn
    assert "100 %" not in drawn


def test_names_are_shortened_in_their_middle():
    one, two = (fit(f"a-very-long-name-of-a-model{end}", 12, 120) for end in ("", "-laser"))
    assert one != two
    assert two.endswith("-laser")
    assert text_width(two, 12) <= 120


def test_wrapped_text_is_whole():
    text = "share of the rank that LASER kept, in percent"
    lines = wrap(text, 14, 120)
    assert " ".join(lines) == text
    assert all(text_width(line, 14) <= 120 for line in lines)


def test_a_timeline_leaves_out_times_in_which_nothing_ran():
    drawn = draw_timeline([Ran("a", 0, 10, "1"), Ran("b", 5, 20, "2"), Ran("a", 9000, 9020, "3")], "T")
    bars = [
        (float(bar.get("x")), float(bar.get("width")))
        for bar in ET.fromstring(drawn).iter(f"{SVG}rect")
        if bar.get("rx") == "2"
    ]
    assert len(bars) == 3
    whole = 480 - 2 * 14 - 92
    shares = sorted((round((x - 106) / whole, 2), round(width / whole, 2)) for x, width in bars)
    assert shares == [(0.0, 0.25), (0.12, 0.38), (0.5, 0.5)]


def test_merged_spans_against_a_naive_count():
    draw = random.Random(4)
    for _ in range(50):
        spans = [(begin, begin + draw.randrange(1, 6)) for begin in (draw.randrange(40) for _ in range(8))]
        moments = {moment for begin, end in spans for moment in range(begin, end)}
        found = merged(spans)
        assert sum(end - begin for begin, end in found) == len(moments)
        assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(found))
