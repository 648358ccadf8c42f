"""`herdbook spectrum`: any checkpoint's matrices, one at a time, from disk or by range requests; and the figures."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from pytest_local_hub import LocalHub, client
from safetensors.torch import load_file, save_file

from herdbook.cli import main as cli
from herdbook.figures import Cut, draw_heatmap, draw_spectrum
from herdbook.steps.laser import spectrum as spectra
from support import tiny

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def model(tmp_path):
    return tiny.write_model(tmp_path / "m", shards=2)


def run(*arguments):
    return cli.main(["spectrum", *(str(argument) for argument in arguments)])


def test_numbers_are_those_of_a_full_svd(model, tmp_path, capsys):
    assert run(model, "--json", tmp_path / "found.json") == 0
    found = json.loads((tmp_path / "found.json").read_text())
    tensors = {}
    for path in model.glob("*.safetensors"):
        tensors |= load_file(path)
    matrices = {name for name, tensor in tensors.items() if ".layers." in name and tensor.dim() == 2}
    assert set(found) == matrices
    for name, entry in found.items():
        values = np.linalg.svd(tensors[name].double().numpy(), compute_uv=False)
        assert entry["of"] == len(values)
        points = entry["spectrum"]["points"]
        assert points[0] == pytest.approx(values[0], rel=1e-5)
        assert points[-1] == pytest.approx(values[-1], rel=1e-3)
        energy = np.cumsum(values**2) / (values**2).sum()
        assert entry["kept"]["energy 0.99"] == int((energy < 0.99).sum()) + 1
        for rule, cut in entry["spectrum"]["thresholds"].items():
            assert entry["kept"][rule] == cut["rank"] == max(1, int((values > cut["value"]).sum()))
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in ("mlp.down_proj", "self_attn.q_proj", "laser-rmt"))


def test_matrices_and_layers_can_be_chosen(model, tmp_path):
    assert run(model, "--matrices", "mlp.*", "--layers", "1", "--json", tmp_path / "found.json") == 0
    names = set(json.loads((tmp_path / "found.json").read_text()))
    assert names == {f"model.layers.1.mlp.{kind}_proj.weight" for kind in ("gate", "up", "down")}


def test_experts_and_other_families_are_matrices_too(tmp_path):
    tensors = {
        "model.layers.0.block_sparse_moe.experts.3.w1.weight": torch.randn(6, 4),
        "transformer.h.2.attn.c_attn.weight": torch.randn(4, 12),
        "model.layers.0.input_layernorm.weight": torch.ones(4),
        "model.layers.0.mlp.experts.gate_up_proj": torch.randn(2, 6, 4),
        "lm_head.weight": torch.randn(9, 4),
    }
    save_file(tensors, tmp_path / "one.safetensors")
    found = spectra.matrices(str(tmp_path / "one.safetensors"), [], lambda _: True)
    assert [(matrix.layer, matrix.kind) for matrix in found] == [
        (0, "block_sparse_moe.experts.3.w1"),
        (2, "attn.c_attn"),
    ]


def test_threads_change_no_byte(model, tmp_path):
    for threads in (1, 3):
        run(model, "--threads", threads, "--json", tmp_path / f"{threads}.json")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "3.json").read_bytes()


def test_a_model_of_the_hub_is_read_by_ranges(model, tmp_path, monkeypatch):
    run(model, "--layers", "1", "--json", tmp_path / "local.json")
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        hub.add_repo("herd/daisy", {path.name: path.read_bytes() for path in model.iterdir()})
        hub.requests.clear()
        assert run("herd/daisy", "--layers", "1", "--json", tmp_path / "remote.json") == 0
        content = [r for r in hub.requests if r.method == "GET" and r.path.startswith("/lfs/")]
    assert (tmp_path / "remote.json").read_bytes() == (tmp_path / "local.json").read_bytes()
    assert all(request.range for request in content)
    # one range for each file's header, one for each of the layer's seven matrices, and no more than these bytes
    asked = [request.range.removeprefix("bytes=").split("-") for request in content]
    sizes = sorted(int(last) - int(first) + 1 for first, last in asked if first != "0")
    hidden, narrow, wide = 2 * 32 * 32, 2 * 16 * 32, 2 * 64 * 32
    assert sizes == [narrow] * 2 + [hidden] * 2 + [wide] * 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere"], 4, "nowhere: is neither an existing path nor an owner/name on the Hub"),
        (["."], 4, "contains no safetensors files"),
        (["m", "--layers", "7"], 4, "m: no matrix in its layers matches the given names and layers"),
        (["m", "--layers", "1-x"], 2, "'1-x': expected a number, a range such as 20-29, or all"),
        (["m", "--device", "cuda:9"], 7, "device: this machine has no usable 'cuda:9'"),
        (["m", "--matrices", "mlp.sideways"], 4, "no matrix in its layers matches"),
    ],
)
def test_bad_input(model, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(model.parent)
    assert run(*arguments) == status
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_nan_is_named(model, capsys):
    path = next(model.glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if ".layers." in name and tensor.dim() == 2)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, path)
    assert run(model) == 6
    assert f"{name}: contains NaN" in capsys.readouterr().err


def test_trained_weights_are_told_from_noise(tmp_path, capsys):
    noise = torch.randn(300, 200, generator=torch.Generator().manual_seed(0))
    left, right = torch.linalg.qr(noise).Q, torch.linalg.qr(noise[:200]).Q
    sloping = left @ torch.diag(torch.logspace(1, -2, 200)) @ right.T
    for name, matrix in (("noise", noise), ("sloping", sloping)):
        save_file(
            {"model.layers.0.mlp.up_proj.weight": matrix.contiguous()}, tmp_path / f"{name}.safetensors"
        )
    run(tmp_path / "noise.safetensors")
    assert "warning" not in capsys.readouterr().out
    run(tmp_path / "sloping.safetensors")
    assert "The bulk of 1 of 1 matrices is not white noise" in capsys.readouterr().out


def test_the_page_has_every_figure_and_nothing_unescaped(tmp_path):
    model = tiny.write_model(tmp_path / "a <b> & c")
    assert run(model, "--page", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "a <b>" not in page
    assert str(tmp_path) not in page
    assert "prefers-color-scheme:dark" in page
    targets = re.findall(r'<a href="#([^"]+)"', page)
    assert len(targets) == 7
    assert re.findall(r'<h2 id="([^"]+)"', page) == targets
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == len(spectra.RULES) + 7 * 2
    for drawing in drawings:
        ET.fromstring(drawing)


# -- figures -------------------------------------------------------------------------------------------------------


def test_a_heat_map_has_a_cell_for_each_layer_and_kind():
    shares = {("a", 0): 0.25, ("b", 2): 1.0}
    drawn = draw_heatmap(shares, ["a", "b"], range(3), "T", "of the rank kept", "not reduced")
    drawing = ET.fromstring(drawn)
    cells = [cell for cell in drawing.iter() if cell.tag in {f"{SVG}rect", f"{SVG}circle"} and len(cell)]
    titles = [element.text for cell in cells for element in cell]
    assert titles == [
        "a, layer 0: 25.0% of the rank kept",
        "a, layer 1: not reduced",
        "a, layer 2: not reduced",
        "b, layer 0: not reduced",
        "b, layer 1: not reduced",
        "b, layer 2: 100.0% of the rank kept",
    ]
    assert {cell.tag for cell in cells[1:5]} == {f"{SVG}circle"}  # nothing is shaded that has no share
    assert float(cells[0].get("fill-opacity")) < float(cells[5].get("fill-opacity")) == 1


@pytest.mark.parametrize("values", [[5.0, 1.0, 1e-30], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [3.0]])
def test_a_spectrum_of_any_kind_is_drawn_inside_its_frame(values):
    points = list(enumerate(values, start=1))
    drawing = ET.fromstring(draw_spectrum(points, points, len(points), [Cut("rule", 1, 2.0)], "T"))
    width, height = (float(drawing.get(side)) for side in ("width", "height"))
    for curve in drawing.iter(f"{SVG}polyline"):
        for point in curve.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 < x < width
            assert 0 < y < height
    heights = [
        float(pair.split(",")[1]) for pair in next(drawing.iter(f"{SVG}polyline")).get("points").split()
    ]
    assert heights == sorted(heights)  # a smaller value is never higher
