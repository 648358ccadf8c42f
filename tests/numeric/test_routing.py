"""Routing: a mixture run one expert at a time against transformers' own classes; counts against naive loops."""

import json
import math

import pytest
import torch
import yaml
from pytest_local_hub import LocalHub, client
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from herdbook.audit.routers import read_routers
from herdbook.cli.main import main
from herdbook.errors import SourceError
from herdbook.inference import mixture as layerwise
from herdbook.inference.mixture import LayerwiseMixture, RouterChoices
from herdbook.needs import measuring
from herdbook.steps.routing.measure import count, effective
from herdbook.steps.routing.rows import look, verdict
from herdbook.steps.routing.step import routing
from support import tiny
from support.sampled import sampled

SEQUENCES = [[1, *range(3, 40)], [1, 9, 9, 4], [5, 61, 30, 7, 8, 8]]


def mixture(tmp_path, kind="llama", layout="canonical", shared=False, texts=False, **changes):
    names = ["base", "b", "c", *(["s"] if shared else [])]
    extra = {"head_dim": 8} if kind == "qwen3" else {}
    for seed, name in enumerate(names):
        tiny.write_model(tmp_path / name, seed=seed, model_type=kind, vocab=64, **extra)
    moe = {
        "base": "base",
        "layout": layout,
        "gate": "router_input",
        "experts": [
            {"model": name, "prompts": [prompt]}
            for name, prompt in zip(["base", "b", "c"], ["w1 w2 w30", "w3", "w5 w4"], strict=True)
        ],
        **changes,
    }
    if shared:
        moe["shared_experts"] = [{"model": "s", "prompts": ["w7 w6"]}]
    sections = {}
    if texts:
        (tmp_path / "t.jsonl").write_text(
            "".join(
                json.dumps({"text": " ".join(f"w{(i * j) % 60}" for i in range(40))}) + "\n"
                for j in range(1, 12)
            )
        )
        text = {"data": ["t.jsonl"], "split": "validation", "windows": 30, "tokens": 12}
        sections = {"calibration": {"words": text}, "routing": {"texts": ["words"]}}
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml", {**{name: {"folder": name} for name in names}, "mix": {"moe": moe}}, **sections
    )
    return tiny.build(recipe, tmp_path / "results")


@pytest.mark.parametrize("threads", sampled([2, 1], every=2))
@pytest.mark.parametrize(
    ("kind", "layout", "shared"),
    [
        ("llama", "canonical", False),
        ("mistral", "fused", False),
        ("qwen2", "canonical", True),
        ("qwen3", "canonical", False),
        ("qwen3", "fused", False),
    ],
)
def test_the_loss_is_that_of_transformers(tmp_path, monkeypatch, kind, layout, shared, threads):
    monkeypatch.setattr("herdbook.inference.mixture.ROWS", 7)  # an expert's inputs come in pieces
    plan = mixture(tmp_path, kind, layout, shared)
    folder = plan.layout.folder(plan.released)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ours = LayerwiseMixture(folder, threads)
    *_, (_, streams) = ours.watch(SEQUENCES)
    found = ours.losses(streams, SEQUENCES)
    for ids, loss in zip(SEQUENCES, found, strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([ids]), labels=torch.tensor([ids])).loss
        assert loss == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)


def test_what_routers_choose_is_what_transformers_says(tmp_path):
    plan = mixture(tmp_path)
    folder = plan.layout.folder(plan.released)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        expected = model(torch.tensor([SEQUENCES[0]]), output_router_logits=True).router_logits
    for seen, _ in LayerwiseMixture(folder).watch(SEQUENCES[:1]):
        logits = expected[seen.layer]
        torch.testing.assert_close(seen.logits[0].softmax(-1), logits.softmax(-1), rtol=1e-4, atol=1e-5)
        assert seen.chosen[0].equal(logits.topk(2).indices)


def test_count_is_a_naive_loop():
    draw = torch.Generator().manual_seed(0)
    logits = [torch.randn(tokens, 4, generator=draw) for tokens in (5, 7, 3)]
    groups = ["a", "b", "a"]
    found = count(RouterChoices(0, logits, [one.topk(2).indices for one in logits]), groups)
    for group in "ab":
        hits, first, gaps, tokens = [0] * 4, [0] * 4, 0.0, 0
        for name, sequence in zip(groups, logits, strict=True):
            for token in sequence.tolist() if name == group else []:
                ranked = sorted(range(4), key=lambda expert: -token[expert])
                odds = [math.exp(x) / sum(math.exp(y) for y in token) for x in token]
                hits[ranked[0]] += 1
                hits[ranked[1]] += 1
                first[ranked[0]] += 1
                gaps += odds[ranked[1]] - odds[ranked[2]]
                tokens += 1
        assert found[group]["share"] == pytest.approx([hit / (2 * tokens) for hit in hits], abs=1e-6)
        assert found[group]["first"] == pytest.approx([one / tokens for one in first], abs=1e-6)
        assert found[group]["margin"] == pytest.approx(gaps / tokens, abs=1e-6)


def test_effective_number_of_experts():
    assert effective([0.25] * 4) == pytest.approx(4)
    assert effective([1.0, 0.0]) == 1
    assert effective([0.5, 0.5, 0.0]) == pytest.approx(2)


def test_rows():
    row = torch.tensor([1.0, 2.0, -1.0])
    found = look(3, torch.stack([row, row, torch.zeros(3), row * 2, -row]))
    assert found.zero == (2,)
    assert found.equal == ((0, 1),)
    assert found.parallel == ((0, 3), (1, 3))
    assert found.cosine == pytest.approx(1)
    assert not found.collapsed
    assert found.describe()["equal"] == [[1, 2]]
    assert look(0, row.repeat(3, 1)).collapsed
    assert look(0, torch.zeros(3, 3)).collapsed
    sound = look(0, torch.eye(3))
    assert (sound.zero, sound.equal, sound.parallel) == ((), (), ())


def test_verdict():
    good, row = torch.eye(4)[:3], torch.ones(4)
    assert verdict({0: good, 1: good + torch.eye(4)[1:] / 2}) == []
    era = verdict({0: row.repeat(3, 1), 1: (2 * row).repeat(3, 1)})
    assert "every layer all rows are equal" in era[0]
    assert "2024-02-24" in era[1]
    twins = torch.stack([row, row, good[0]])
    assert verdict({0: good, 1: twins, 2: twins})[0] == "Experts 1 and 2 have equal rows in layers 1-2."
    assert "cheap_embed" in verdict({0: good, 1: good})[0]
    said = verdict({0: good, 1: torch.zeros(3, 4)})
    assert "layers 1 all rows are zero" in said[0]
    assert len(said) == 1


def test_as_many_rows_pass_an_expert_as_the_plan_counts():
    # It stands twice: planning imports no torch, and the step's key holds the step's own module.
    assert layerwise.ROWS == measuring.ROWS


def test_the_report(tmp_path):
    plan = mixture(tmp_path, texts=True)
    routing(plan, plan.report)
    path = plan.layout.report(plan.report)
    once = path.read_bytes()
    routing(plan, plan.report, threads=2)
    assert path.read_bytes() == once
    found = json.loads(once)
    assert found["texts"]["words"]["tokens"] == 30 * 12
    assert len(found["layers"]) == len(found["rows"]) == 2
    for layer in found["layers"]:
        assert sum(layer["words"]["share"]) == pytest.approx(1, abs=1e-5)
    assert list(found["prompts"]) == [f"prompts of expert {place}" for place in (1, 2, 3)]
    assert found["verdict"] == []


def test_a_report_without_texts_tells_of_the_prompts(tmp_path):
    plan = mixture(tmp_path)
    routing(plan, plan.report)
    found = json.loads(plan.layout.report(plan.report).read_text())
    assert found["texts"] == {}
    # the rows were made from these very inputs, so each prompt's last token prefers its own expert
    assert len(found["prompts"]) == 3


def test_a_drawn_router_has_a_report_too(tmp_path):
    plan = mixture(tmp_path, gate="random", experts=[{"model": "b"}, {"model": "c"}])
    routing(plan, plan.report)
    assert json.loads(plan.layout.report(plan.report).read_text())["layers"] == []


def test_routers_of_anybodys_mixture(tmp_path, capsys):
    good = tmp_path / "good.safetensors"
    row = torch.ones(8, dtype=torch.bfloat16)
    save_file({"model.layers.0.mlp.gate.weight": torch.eye(8)[:4], "x": row}, good)
    assert main(["routers", str(good)]) == 0
    assert "no two rows" in capsys.readouterr().out
    bad = tmp_path / "bad"
    bad.mkdir()
    names = [f"model.layers.{layer}.block_sparse_moe.gate.weight" for layer in (0, 1)]
    save_file({name: (row * (i + 1)).repeat(4, 1) for i, name in enumerate(names)}, bad / "model.safetensors")
    assert main(["routers", str(bad), "--json", str(tmp_path / "r.json")]) == 1
    assert "2024-03-18" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["rows"][1]["collapsed"]
    save_file({"x": row}, tmp_path / "none.safetensors")
    with pytest.raises(SourceError, match="has no routers"):
        read_routers(str(tmp_path / "none.safetensors"))


def test_routers_are_read_from_the_hub_by_ranges(tmp_path, monkeypatch):
    plan = mixture(tmp_path)
    folder = plan.layout.folder(plan.released)
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        hub.add_repo("someone/mix", {path.name: path.read_bytes() for path in folder.iterdir()})
        found = read_routers("someone/mix")
        weights = [
            r for r in hub.requests if r.method == "GET" and "safetensors" in r.path and "index" not in r.path
        ]
        assert all(request.range for request in weights)
    assert found.keys() == {0, 1}
    for layer, router in found.items():
        assert router.equal(LayerwiseMixture(folder).router(layer, stored=True))


def test_texts_that_do_not_exist(tmp_path):
    from herdbook.errors import RecipeError

    plan = mixture(tmp_path, texts=True)
    content = yaml.safe_load(plan.recipe_path.read_text())
    content["routing"]["texts"] = ["wrods"]
    plan.recipe_path.write_text(yaml.safe_dump(content))
    with pytest.raises(
        RecipeError, match=r"routing.texts.0: no calibration is named 'wrods'; did you mean 'words'"
    ):
        tiny.lock(plan.recipe_path)
