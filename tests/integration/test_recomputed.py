"""The levels `recomputed` and `rebuild`: on an honest release, and on those of builders who lie in all that they write.

Sources are on a local Hub. A builder who lies has his own key, so nothing but making it again can tell.
"""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from pytest_local_hub import LocalHub, client
from safetensors import safe_open

from herdbook.layout import CARD, LOCK, RECIPE
from herdbook.plan import parsed
from herdbook.plan.parsed import package_version
from herdbook.release.finding import Outcome
from herdbook.signing import keys
from herdbook.steps.card.step import render_card
from herdbook.steps.laser.step import Reducer
from herdbook.steps.moe import router
from herdbook.verify.rebuild.bounds import bound
from herdbook.verify.rebuild.recompute import draw_whole
from support import tiny
from support.verification import findings, status

MODELS = {
    "base": {"hub": "herd/base"},
    "tuned": {"hub": "herd/tuned"},
    "folded": {"adapter": {"hub": "herd/adapter"}, "on": "tuned"},
    "cut": {"laser": "folded", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "base-cut": {"laser": "base", "rank": {"fraction": 0.25}, "matrices": ["mlp.up_proj"]},
    "mix": {
        "moe": {
            "base": "base-cut",
            "experts": [{"model": "cut", "prompts": ["w1"]}, {"model": "base-cut", "prompts": ["w2"]}],
        }
    },
}
# By hand: the first expert is folded (three matrices a layer) and cut, the second's up_proj is cut.
MADE = {
    f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{matrix}.weight"
    for layer in range(2)
    for expert, matrix in ((0, "w1"), (0, "w2"), (0, "w3"), (1, "w3"))
}
KEY = keys.PrivateKey(keys.ec.generate_private_key(keys.ec.SECP256R1()))


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("again")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        for seed, name in enumerate(("base", "tuned")):
            tiny.write_model(root / name, seed=seed, shards=2)
            hub.add_repo(f"herd/{name}", files_of(root / name), license="apache-2.0")
        tiny.write_adapter(root / "adapter", root / "base", seed=7)
        hub.add_repo("herd/adapter", files_of(root / "adapter"), license="apache-2.0")
        yield hub


def build(root, models=None, **sections):
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", models or MODELS, **sections), root / "results")
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan, KEY)


@pytest.fixture(scope="module")
def honest(hub, tmp_path_factory):
    return build(tmp_path_factory.mktemp("honest"))


def at(found, level, check=None):
    return [one for one in found if one.level == level and check in {None, one.check}]


def bad(found):
    return [one for one in found if one.outcome is not Outcome.PASSED]


def test_a_pull_request_that_the_recipe_asks_for_is_named_and_passes(hub, tmp_path):
    hub.repos["herd/base"].propose({"README.md": b"better"})
    cut = {"laser": "base", "rank": 4, "matrices": ["mlp.up_proj"]}
    folder = build(tmp_path, {"base": {"hub": "herd/base@refs/pr/1"}, "cut": cut})
    found = findings(folder, "upstream")
    assert bad(found) == []
    named = [one for one in at(found, "claims", "lock") if "pull request" in one.detail]
    assert [one.subject for one in named] == ["models.base"]
    assert "refs/pr/1" in at(found, "upstream", "history")[0].detail


def test_all_that_was_made_comes_out_again(honest):
    found = findings(honest, "recomputed", sample_bytes=None)
    assert status(found) == 0, bad(found)
    again = at(found, "recomputed", "made")
    assert {one.tensor for one in again if one.tensor} == MADE
    assert all("reproduced bit by bit" in one.detail for one in again if one.tensor)
    assert "8 of 8 tensors" in again[-1].detail
    (routers,) = at(found, "recomputed", "routers")
    assert routers.subject == "2 of 2 routers"
    assert "2 by `ridge` reproduced bit by bit" in routers.detail
    (card,) = at(found, "recomputed", "card")
    assert card.subject == CARD


def test_a_sample_says_what_it_would_catch(honest):
    found = at(findings(honest, "recomputed", sample_bytes=1, seed=3), "recomputed", "made")
    assert len(found) == 2
    assert f"Detection probability: {1 / 8:.4f} for one altered tensor" in found[-1].detail


def test_the_same_seed_draws_the_same(honest):
    def drawn(seed):
        return [
            one.tensor for one in at(findings(honest, "recomputed", sample_bytes=1, seed=seed), "recomputed")
        ]

    first = drawn(5)
    assert drawn(5) == first
    assert any(drawn(seed)[1] != first[1] for seed in range(12))


def test_a_matrix_that_laser_never_made_is_named(hub, tmp_path, monkeypatch):
    reduce = Reducer.reduce

    def lie(self, tensor):
        found = reduce(self, tensor)
        if tensor.name == "model.layers.1.mlp.down_proj.weight":
            found = replace(found, matrix=found.matrix.roll(1, 0))
        return found

    monkeypatch.setattr(Reducer, "reduce", lie)
    folder = build(tmp_path)
    monkeypatch.undo()
    client.use(hub, tmp_path / "home", monkeypatch)
    assert (
        status(findings(folder, "equality", sample_bytes=None)) == 0
    )  # nothing short of making it again can tell
    found = findings(folder, "recomputed", sample_bytes=None)
    assert status(found) == 8
    assert {one.tensor for one in bad(found)} == {"model.layers.1.block_sparse_moe.experts.0.w2.weight"}
    (wrong,) = bad(found)
    assert wrong.expected != wrong.found
    assert wrong.source == "cut: model.layers.1.mlp.down_proj.weight"


def test_an_error_of_a_step_is_not_blamed_on_the_release(honest, monkeypatch):
    def broken(self, tensor):
        raise KeyError(tensor.name)

    monkeypatch.setattr(Reducer, "reduce", broken)
    found = findings(honest, "recomputed", sample_bytes=None)
    assert status(found) == 10
    (told,) = bad(found)
    assert "internal error of the verifier (KeyError in broken" in told.detail


def test_a_matrix_within_its_tolerance_passes(hub, tmp_path, monkeypatch):
    """As where a GPU made it: entries beside a rounding boundary come out on the other side."""
    reduce = Reducer.reduce

    def near(self, tensor):
        found = reduce(self, tensor)
        wide = found.matrix.clone()
        one = wide[0].abs().argmin()  # the smallest of a row, so that the next number is near
        wide[0, one] = torch.nextafter(wide[0, one], torch.tensor(9, dtype=wide.dtype))
        return replace(found, matrix=wide)

    monkeypatch.setattr(Reducer, "reduce", near)
    folder = build(tmp_path)
    monkeypatch.undo()
    client.use(hub, tmp_path / "home", monkeypatch)
    # one entry of so few weighs more than in a real matrix
    monkeypatch.setattr("herdbook.steps.laser.reduce.tolerance", lambda *_: 1e-9)
    found = findings(folder, "recomputed", sample_bytes=None)
    told = [one.detail for one in at(found, "recomputed", "made") if one.tensor and "w2" in one.tensor]
    assert len(told) == 2
    assert all("within the tolerance" in one for one in told), told


def test_routers_that_no_prompt_gave_are_named(hub, tmp_path, monkeypatch):
    rows = router.router_rows

    def lie(*arguments, **options):
        for layer, found in enumerate(rows(*arguments, **options)):
            yield found.flip(0) if layer == 1 else found

    monkeypatch.setattr(router, "router_rows", lie)
    folder = build(tmp_path)
    monkeypatch.undo()
    client.use(hub, tmp_path / "home", monkeypatch)
    found = findings(folder, "recomputed", sample_bytes=None)
    assert status(found) == 8
    assert {one.tensor for one in bad(found)} == {"model.layers.1.block_sparse_moe.gate.weight"}


def test_routers_of_a_base_that_is_no_expert_need_it_from_upstream(hub, tmp_path):
    models = {
        **MODELS,
        "mix": {
            "moe": {
                **MODELS["mix"]["moe"],
                "experts": [{"model": "cut", "prompts": ["w1"]}, {"model": "folded", "prompts": ["w2"]}],
            }
        },
    }
    folder = build(tmp_path, models)
    (told,) = at(findings(folder, "recomputed", sample_bytes=1000), "recomputed", "routers")
    assert told.outcome is Outcome.UNVERIFIED
    assert "--sample all" in told.detail
    (told,) = at(findings(folder, "recomputed", sample_bytes=None), "recomputed", "routers")
    assert told.outcome is Outcome.PASSED
    assert "6 rebuilt from upstream" in told.detail  # two layers of three matrices


def test_drawn_routers_are_drawn_again(hub, tmp_path, monkeypatch):
    models = {**MODELS, "mix": {"moe": {**MODELS["mix"]["moe"], "gate": "random"}}}
    folder = build(tmp_path / "honest", models)
    found = findings(folder, "recomputed", sample_bytes=1)
    assert status(found) == 0, bad(found)
    from herdbook.steps.moe import random_gate

    rows = random_gate.random_rows
    monkeypatch.setattr(random_gate, "random_rows", lambda *a: rows(*a)[::-1].copy())
    folder = build(tmp_path / "lie", models)
    monkeypatch.undo()
    client.use(hub, tmp_path / "home", monkeypatch)
    assert status(findings(folder, "recomputed", sample_bytes=1)) == 8


def test_a_card_that_says_more_than_the_records_is_named(hub, tmp_path, monkeypatch):
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", MODELS), tmp_path / "results")
    render_card(plan, plan.layout.card_folder)
    path = plan.layout.card_folder / CARD
    path.write_text(path.read_text() + "\nThe best model in the world.\n")
    found = findings(tiny.release(plan, KEY), "recomputed", sample_bytes=1)
    (wrong,) = bad(found)
    assert (wrong.check, wrong.file, wrong.outcome) == ("card", CARD, Outcome.FAILED)
    assert "The best model in the world." in wrong.found or "no such line" in wrong.expected


def test_a_card_of_another_version_is_not_called_a_lie(honest, hub, tmp_path, monkeypatch):
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", MODELS), tmp_path / "results")
    render_card(plan, plan.layout.card_folder)
    path = plan.layout.card_folder / CARD
    path.write_text(path.read_text().replace("Mixture", "Blend"))
    folder = tiny.release(plan, KEY)
    monkeypatch.setattr(
        parsed, "package_version", lambda name: "9.9.9" if name == "herdbook" else package_version(name)
    )
    (told,) = at(findings(folder, "recomputed", sample_bytes=1), "recomputed", "card")
    assert told.outcome is Outcome.UNVERIFIED


def test_sources_in_a_folder_of_the_author_s_need_a_copy(tmp_path):
    tiny.write_model(tmp_path / "base", seed=1)
    models = {"base": {"folder": "base"}, "cut": {"laser": "base", "rank": 4, "matrices": ["mlp.up_proj"]}}
    folder = build(tmp_path, models)
    for level in ("recomputed", "rebuild"):
        found = at(findings(folder, level, sample_bytes=None), level)
        assert any("--inputs" in one.detail for one in bad(found))
        assert {one.outcome for one in bad(found)} == {Outcome.UNVERIFIED}
        found = at(findings(folder, level, sample_bytes=None, inputs=tmp_path / "r.yaml"), level)
        assert not bad(found)
    (tmp_path / "r.yaml").write_text((tmp_path / "r.yaml").read_text() + "\n")
    found = at(findings(folder, "rebuild", inputs=tmp_path / "r.yaml"), "rebuild")
    assert any("is not the recipe.yaml of the release" in one.detail for one in bad(found))


@pytest.mark.parametrize("climbing", [False, True], ids=["absolute", "climbing"])
def test_a_path_of_this_machine_in_a_stranger_s_recipe_is_not_read(tmp_path, climbing):
    """The folder holds just the bytes that the lock pins, so reading it would pass."""
    tiny.write_model(tmp_path / "base", seed=1)
    models = {"base": {"folder": "base"}, "cut": {"laser": "base", "rank": 4, "matrices": ["mlp.up_proj"]}}
    folder = build(tmp_path, models)
    place = f"{'../' * 30 if climbing else '/'}{str(tmp_path / 'base').lstrip('/')}"
    for name, quote in ((RECIPE, ""), (LOCK, '"')):
        path = folder / name
        asked = f"{quote}folder{quote}: {quote}base{quote}"
        assert asked in path.read_text()
        path.write_text(path.read_text().replace(asked, asked.replace("base", place)))
    for level in ("recomputed", "rebuild"):
        found = at(findings(folder, level, sample_bytes=None), level)
        assert any("is made from a local folder of the author" in one.detail for one in bad(found)), found
        # the card, which shows the recipe, is the only other thing that is told
        assert {one.check for one in found if one.outcome is Outcome.FAILED} <= {"card"}, found


@pytest.mark.parametrize("place", ["/dev/zero", "../../../../../../../../../../../../../../dev/zero"])
def test_a_text_of_this_machine_in_a_stranger_s_recipe_is_not_read(hub, tmp_path, place):
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "w1 w2 w3 w4 " * 600}) + "\n")
    models = {
        "base": {"hub": "herd/base"},
        "cut": {
            "laser": "base",
            "rank": {"svd-llm": 8},
            "matrices": ["mlp.up_proj"],
            "calibration": "text",
        },
    }
    calibration = {"text": {"data": ["text.jsonl"], "split": "validation", "windows": 30, "tokens": 64}}
    folder = build(tmp_path, models, calibration=calibration)
    assert not bad(at(findings(folder, "rebuild", inputs=tmp_path / "r.yaml"), "rebuild"))
    for name in (RECIPE, LOCK):
        path = folder / name
        assert "text.jsonl" in path.read_text()
        path.write_text(path.read_text().replace("text.jsonl", place))
    for level in ("recomputed", "rebuild"):
        found = at(findings(folder, level, sample_bytes=None), level)
        assert any("names zero, which is too many levels above" in one.detail for one in bad(found)), found
        assert {one.outcome for one in bad(found)} == {Outcome.UNVERIFIED}


@pytest.mark.slow
def test_a_shard_of_a_folder_is_read_from_an_equal_one_on_the_hub(hub, tmp_path):
    """The name that comes first is the author's, and the shard is made under it."""
    tiny.write_model(tmp_path / "mine", seed=0, shards=2)  # as herd/base
    laser = {"rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]}
    models = {
        "local": {"folder": "mine"},
        "mirror": {"hub": "herd/base"},
        "cut": {"laser": "local", **laser},
        "other": {"laser": "tuned", **laser},
        "tuned": {"hub": "herd/tuned"},
        "mix": {
            "moe": {
                "base": "mirror",
                "experts": [{"model": "cut", "prompts": ["w1"]}, {"model": "other", "prompts": ["w2"]}],
            }
        },
    }
    folder = build(tmp_path, models)
    shutil.rmtree(tmp_path / "mine")
    assert bad(at(findings(folder, "recomputed", sample_bytes=None), "recomputed")) == []
    assert bad(at(findings(folder, "rebuild"), "rebuild")) == []


def test_a_rebuild_gives_the_same_files(honest, tmp_path):
    found = findings(honest, "rebuild", work=tmp_path / "work")
    assert not bad(at(found, "rebuild"))
    names = {path.relative_to(honest).as_posix() for path in honest.rglob("*") if path.is_file()}
    count = len(names) - 4  # sums, claims, signature and key are about the files
    assert any(
        one.detail == "are equal, byte by byte" and one.subject == f"{count} of {count} files"
        for one in found
    )


def test_a_gpu_in_a_record_excuses_no_noise_in_a_rebuild(hub, tmp_path, monkeypatch):
    reduce = Reducer.reduce

    def on_a_gpu(self, tensor, worse):
        found = reduce(self, tensor)
        evidence = {**found.evidence, "device": "cuda"}
        return replace(found, matrix=found.matrix.roll(1, 0) if worse else found.matrix, evidence=evidence)

    cut = {"laser": "base", "rank": 4, "matrices": ["mlp.up_proj"]}
    outcomes = {}
    for worse in (False, True):
        monkeypatch.setattr(
            Reducer, "reduce", lambda self, tensor, worse=worse: on_a_gpu(self, tensor, worse)
        )
        folder = build(tmp_path / str(worse), {"base": {"hub": "herd/base"}, "cut": cut})
        monkeypatch.setattr(Reducer, "reduce", reduce)
        found = at(findings(folder, "rebuild"), "rebuild", "same files")
        outcomes[worse] = {one.file: one.outcome for one in bad(found)}
    assert set(outcomes[False].values()) == {Outcome.UNVERIFIED}  # the records, and what quotes them
    failed = {name for name, outcome in outcomes[True].items() if outcome is Outcome.FAILED}
    assert failed
    assert all(name.endswith(".safetensors") for name in failed)


@pytest.mark.slow
def test_a_rebuild_goes_on_where_it_was_stopped(honest, tmp_path, monkeypatch):
    from herdbook.steps.moe import step

    moe = step.moe

    def stop(plan, part):
        if part.label == "routers" and "rebuild" in plan.layout.root.parts:
            raise KeyboardInterrupt
        moe(plan, part)

    monkeypatch.setattr(step, "moe", stop)
    with pytest.raises(KeyboardInterrupt):
        findings(honest, "rebuild", work=tmp_path / "work")
    made = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "work/rebuild/results/shards").glob("*.json")
    }
    assert made
    monkeypatch.setattr(step, "moe", moe)
    found = findings(honest, "rebuild", work=tmp_path / "work")
    assert not bad(at(found, "rebuild"))
    assert {path: path.stat().st_mtime_ns for path in made} == made


@pytest.mark.slow
def test_a_rebuild_names_the_files_that_a_lie_is_in(hub, tmp_path, monkeypatch):
    reduce = Reducer.reduce
    monkeypatch.setattr(
        Reducer,
        "reduce",
        lambda self, tensor: replace(reduce(self, tensor), matrix=reduce(self, tensor).matrix * 2),
    )
    folder = build(tmp_path / "lie")
    monkeypatch.undo()
    client.use(hub, tmp_path / "home", monkeypatch)
    named = {one.file for one in bad(at(findings(folder, "rebuild"), "rebuild"))}
    changed = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            if any(name.endswith(("0.w2.weight", "1.w3.weight")) for name in file.keys()):  # noqa: SIM118
                changed.add(path.name)
    assert changed <= named
    assert "tokenizer.json" not in named


def test_what_is_allowed_adds_up():
    once = {"action": "laser", "tolerance": 1e-12}
    assert bound([], "BF16") == 0
    assert bound([{"action": "copy"}], "BF16") == 0
    assert bound([once], "F32") == pytest.approx(1e-12 + 4 * (1e-12 / 2**24) ** 0.5)
    assert bound([once, {**once, "tolerance": 3e-12}], "BF16") == pytest.approx(
        4e-12 + 4 * (4e-12 / 256) ** 0.5
    )
    assert bound([once, {"action": "laser", "tolerance": None}], "BF16") == math.inf


def test_tensors_are_drawn_whole():
    sizes = [5, 7, 3, 9]
    assert draw_whole(sizes, None, 0) == [0, 1, 2, 3]
    for seed in range(20):
        drawn = draw_whole(sizes, 10, seed)
        assert drawn == sorted(drawn)
        assert len(drawn) == 1 or sum(sizes[place] for place in drawn) <= 10
    assert {tuple(draw_whole(sizes, 1, seed)) for seed in range(40)} == {(0,), (1,), (2,), (3,)}
