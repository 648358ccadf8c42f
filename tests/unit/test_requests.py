"""What models were asked: pinned from finished measurements, and compared before a model answers and by verify."""

import json
from types import SimpleNamespace

import pytest

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook.cli.main import main
from herdbook.errors import LockError, StepError
from herdbook.plan.requests import with_requests
from herdbook.steps.evaluate.measure import check_requests
from support import measured, tiny

DIGESTS = ("1" * 64, "2" * 64)


def plan_of(folder, models=("base", "tuned"), *, template=False, digests=DIGESTS[:1]):
    """Return a plan with measurements that state digests of requests, the last one for all further models."""
    for seed, name in enumerate(models):
        model = tiny.write_model(folder / name, seed=seed)
        (model / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    tiny.write_task(folder / "task.yaml")
    asked = {"task": "task.yaml", **({"chat_template": True} if template else {})}
    recipe = tiny.write_recipe(
        folder / "r.yaml",
        {name: {"folder": name} for name in models},
        evaluate={"tasks": [asked], "models": list(models)},
    )
    plan = tiny.build(recipe, folder / "results")
    for number, item in enumerate(plan.evaluations):
        measured.write(plan, item, [0.5])
        path = plan.layout.evaluation(item)
        digest = digests[min(number, len(digests) - 1)]
        path.write_text(path.read_text(encoding="utf-8").replace("0" * 64, digest), encoding="utf-8")
    return plan


def test_requests_are_pinned_without_another_key(tmp_path, monkeypatch, capsys):
    plan = plan_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["lock", "--requests", "r.yaml"]) == 0
    assert capsys.readouterr().out == "r.lock.json\n"
    after = plans.load(plan.recipe_path, tmp_path / "results")
    assert after.lock.requests == {"held_out": {"*": DIGESTS[0]}}
    assert after.lock.requests_of("base") == {"held_out": DIGESTS[0]}
    assert [item.key for item in after.evaluations] == [item.key for item in plan.evaluations]
    tiny.lock(plan.recipe_path)
    assert locks.load(locks.path_for(plan.recipe_path)).requests == {}


def test_with_a_chat_template_each_model_is_asked_in_its_own_way(tmp_path):
    plan = plan_of(tmp_path, template=True, digests=DIGESTS)
    lock = with_requests(plan)
    assert lock.requests == {"held_out": dict(zip(("base", "tuned"), DIGESTS, strict=True))}
    assert lock.requests_of("tuned") == {"held_out": DIGESTS[1]}
    assert lock.requests_of("other") == {}


def test_models_that_were_asked_other_things_are_refused(tmp_path):
    plan = plan_of(tmp_path, digests=DIGESTS)
    with pytest.raises(LockError, match="tuned was asked other things in held_out"):
        with_requests(plan)


def test_nothing_is_pinned_before_a_measurement(tmp_path):
    plan = plan_of(tmp_path)
    for item in plan.evaluations:
        plan.layout.evaluation(item).unlink()
    with pytest.raises(LockError, match="no measurement is finished"):
        with_requests(plan)


def test_other_requests_than_the_pinned_ones_are_refused_before_a_model_answers():
    def task(text):
        requests = [
            SimpleNamespace(doc_id=number, idx=choice, args=(text, f" {choice}"))
            for number in (1, 0)
            for choice in (1, 0)
        ]
        return SimpleNamespace(config=SimpleNamespace(task="one"), instances=requests)

    import hashlib

    asked = [[number, [["w1", " 0"], ["w1", " 1"]]] for number in (0, 1)]
    pinned = {"one": hashlib.sha256(json.dumps(asked).encode()).hexdigest(), "other": "0"}
    check_requests([task("w1")], pinned)
    with pytest.raises(StepError, match=r"evaluate\.tasks: one: what models are asked has changed"):
        check_requests([task("w2")], pinned)
    check_requests([task("w2"), {"task": "plain"}], {})
