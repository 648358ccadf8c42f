"""Tasks of lm-eval from the lock, on stand-ins of well-known data sets: prompts and results are those of lm-eval run by hand."""

import hashlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytest_local_hub import LocalHub, client

from herdbook import plan as plans
from herdbook.comparison.groups import derive, follows
from herdbook.errors import DigestMismatchError, LockError
from herdbook.layout import input_file
from herdbook.plan.jobs import result_jobs
from herdbook.release.finding import Outcome
from herdbook.steps.evaluate.tasks import rounds
from herdbook.steps.registry import run
from herdbook.verify import tasks
from support import benchmarks, tiny

pytestmark = pytest.mark.slow
SHORT = {"max_gen_toks": 8}
GROUP = """
group: mmlu_small
task: [mmlu_anatomy, mmlu_virology]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
metadata: {version: 1}
"""
COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {train: train.jsonl, test: test.jsonl}}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["w1", "w2 w3"]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
# YAML with code beside it, of which no definition says more than where it is.
OWN = """
include: common
task: own
process_docs: !function code.odd
doc_to_target: !function code.target
num_fewshot: 1
"""
CODE = """
def odd(documents):
    return documents.filter(lambda document: document["number"] % 2)


def target(document):
    return document["number"] // 2 % 2
"""
ASKED = [
    "hellaswag",
    {"task": "arc_challenge", "num_fewshot": 3, "limit": 5},
    {"task": "gsm8k", "num_fewshot": 2, "gen_kwargs": SHORT},
    {"task": "small.yaml", "num_fewshot": 2, "chat_template": True, "system": "w7 w8"},
    {"task": "eq_bench", "gen_kwargs": SHORT},
    "own/own.yaml",
]
IFEVAL = [{"task": "leaderboard_ifeval", "gen_kwargs": SHORT}] if find_spec("langdetect") else []
MATH = [{"task": "leaderboard_math_algebra_hard", "gen_kwargs": SHORT}] if find_spec("math_verify") else []
TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
# As `lm_eval` does, but that it reads the folders of these tasks alone.
BY_HAND = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
model, calls = sys.argv[1], json.loads(sys.argv[2])
manager = TaskManager(include_defaults=False, include_path=sys.argv[3:])
found = {"results": {}, "prompts": {}}
for call in calls:
    done = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": model, "dtype": "float32"}, batch_size=1, device="cpu",
        task_manager=manager, **call)
    found["results"] |= done["results"]
    found["prompts"] |= {
        task: {one["doc_id"]: one["arguments"] for one in samples} for task, samples in done["samples"].items()}
print("\\n" + json.dumps(found, default=str))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    (root / "nltk/tokenizers/punkt_tab").mkdir(parents=True)  # no instruction here needs what is in it
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch, hub.token)
        patch.setenv("NLTK_DATA", str(root / "nltk"))
        benchmarks.add_all(hub)
        yield hub


@pytest.fixture(scope="module")
def plan(hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    model = tiny.write_model(folder / "base", seed=3, max_position_embeddings=2048)
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    (model / "tokenizer_config.json").write_text(
        json.dumps({**settings, "chat_template": TEMPLATE}), encoding="utf-8"
    )
    (folder / "small.yaml").write_text(GROUP, encoding="utf-8")
    (folder / "own").mkdir()
    files = {"common": COMMON, "own.yaml": OWN, "code.py": CODE}
    for split, count in (("train", 6), ("test", 8)):
        rows = [{"number": number, "question": f"w{number}"} for number in range(count)]
        files[f"{split}.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows)
    for name, text in files.items():
        (folder / "own" / name).write_text(text, encoding="utf-8")
    evaluate = {"tasks": [*ASKED, *IFEVAL, *MATH], "models": ["base"], "trust": ["own/code.py"]}
    recipe = tiny.write_recipe(folder / "r.yaml", {"base": {"folder": "base"}}, evaluate=evaluate)
    tiny.lock(recipe)
    made = plans.load(recipe, folder / "results")
    for job in result_jobs(made):
        if job.rule != "evaluate":
            run(made, job)
            assert all(path.exists() for path in job.outputs)
    return made


def test_what_is_asked_and_what_comes_out_is_as_by_hand(hub, plan, tmp_path):
    import lm_eval

    base = plan.recipe_path.parent / "base"
    hub.forget()
    (job,) = [job for job in result_jobs(plan) if job.rule == "evaluate"]
    run(plan, job)
    assert hub.requests == []
    ours = json.loads(plan.layout.evaluation(job.subject).read_text(encoding="utf-8"))
    calls = [
        {"tasks": ["hellaswag"]},
        {"tasks": ["arc_challenge"], "num_fewshot": 3, "limit": 5},
        {"tasks": ["gsm8k"], "num_fewshot": 2, "gen_kwargs": SHORT},
        {
            "tasks": ["mmlu_small"],
            "num_fewshot": 2,
            "apply_chat_template": True,
            "system_instruction": "w7 w8",
        },
        {"tasks": ["eq_bench", *(one["task"] for one in (*IFEVAL, *MATH))], "gen_kwargs": SHORT},
    ]
    calls[0]["tasks"].append("own")
    package = Path(lm_eval.__file__).parent / "tasks"
    folders = (
        "arc",
        "hellaswag",
        "gsm8k",
        "mmlu/default",
        "eq_bench",
        *(["leaderboard/ifeval"] if IFEVAL else []),
        *(["leaderboard/math"] if MATH else []),
    )
    own = plan.recipe_path.parent / "own"
    (own / "small.yaml").write_text(GROUP, encoding="utf-8")
    command = [
        sys.executable,
        "-c",
        BY_HAND,
        str(base),
        json.dumps(calls),
        *(str(package / one) for one in folders),
    ]
    environment = client.environment(hub, tmp_path / "home", hub.token)
    done = subprocess.run(
        [*command, str(own)], cwd=own, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    by_hand = json.loads(done.stdout.splitlines()[-1])
    assert list(ours["groups"]) == ["mmlu_small"]
    assert {*ours["tasks"], *ours["groups"]} == set(by_hand["results"])
    for task, theirs in by_hand["results"].items():
        stated = {
            number
            for label, score in {**ours["tasks"], **ours["groups"]}[task]["metrics"].items()
            for kind, value in (("", score["value"]), ("_stderr", score["stderr"]))
            for metric, _, filter_name in (label.partition(","),)
            for number in ((f"{metric}{kind},{filter_name or 'none'}", value),)
        }
        assert stated == {
            (key, float(f"{value:.6g}") if isinstance(value, float) else None)
            for key, value in theirs.items()
            if "," in key
        }, task
    for task, prompts in by_hand["prompts"].items():
        asked = [[int(number), asked] for number, asked in prompts.items()]
        text = json.dumps(asked, ensure_ascii=False, sort_keys=True)
        assert ours["tasks"][task]["requests"] == hashlib.sha256(text.encode()).hexdigest(), task
    assert len(by_hand["prompts"]["arc_challenge"]) == 5
    assert "w7 w8" in str(by_hand["prompts"]["mmlu_anatomy"]["0"])
    assert follows(
        ours["groups"]["mmlu_small"], derive(plan.lock.tasks["small.yaml"], "mmlu_small", ours["tasks"])
    )


def test_the_lock_pins_all_that_tasks_are_made_of(plan):
    own = plan.lock.tasks["own/own.yaml"]
    assert [file.name for file in own.sources] == ["own/code.py", "own/common"]
    assert own.definitions["own"]["process_docs"] == {"!function": "odd", "file": "own/code.py"}
    assert "include" not in own.definitions["own"]
    names = {file.name for file in plan.lock.tasks["hellaswag"].sources}
    assert names == {"lm_eval:tasks/hellaswag/hellaswag.yaml", "lm_eval:tasks/hellaswag/utils.py"}
    assert str(plan.recipe_path.parent) not in plan.recipe_path.with_suffix(".lock.json").read_text(
        encoding="utf-8"
    )


def test_a_verifier_derives_what_lm_eval_makes_of_tasks(plan):
    local = {
        input_file(file.name, str(file.sha256)): (plan.recipe_path.parent / file.name).read_bytes()
        for task in plan.lock.tasks.values()
        for file in task.local
    }
    release = SimpleNamespace(
        lock=plan.lock, recipe=plan.recipe, subject=SimpleNamespace(read=local.__getitem__)
    )
    [finding] = tasks.check(release)
    assert finding.outcome is Outcome.PASSED, finding
    count = len(plan.lock.tasks)
    assert (
        finding.detail
        == f"have the definitions and code that lm-eval {plan.lock.harness.lm_eval} makes of them"
    )
    assert finding.subject == f"{count} tasks"
    honest = plan.lock.tasks["arc_challenge"]
    lie = honest.definitions["arc_challenge"] | {"test_split": "validation"}
    found = {"arc_challenge": honest.model_copy(update={"definitions": {"arc_challenge": lie}})}
    release.lock = plan.lock.model_copy(update={"tasks": found})
    [finding] = tasks.check(release)
    assert (finding.outcome, finding.subject) == (Outcome.FAILED, "arc_challenge")
    assert (finding.expected, finding.found) == ("test", "validation")
    release.lock = plan.lock.model_copy(
        update={"harness": plan.lock.harness.model_copy(update={"lm_eval": "0.4.1"})}
    )
    [finding] = tasks.check(release)
    assert finding.outcome is Outcome.UNVERIFIED
    assert "the lock names lm-eval 0.4.1, and" in finding.detail


def test_documents_are_counted_before_a_model_is_built(plan):
    record = json.loads(plan.layout.data_record(plan.data).read_text(encoding="utf-8"))
    assert record["documents"]["arc_challenge"] == 6
    assert record["documents"]["mmlu_anatomy"] == 4
    assert record["documents"]["own"] == 4


def test_code_that_changed_is_not_run(plan):
    path = plan.recipe_path.parent / "own/code.py"
    before = path.read_text(encoding="utf-8")
    path.write_text(before + "raise SystemExit\n", encoding="utf-8")
    with pytest.raises(LockError, match=r"own/code\.py has changed since it was locked"), rounds(plan):
        pass
    path.write_text(before, encoding="utf-8")


def test_data_that_are_not_the_pinned_ones_are_refused(hub, plan):
    asked, data_set = plan.data.data_sets[0]
    wrong = data_set.files[-1].model_copy(update={"sha256": "0" * 64})
    item = plan.data.__class__(
        "0" * 64, ((asked, data_set.model_copy(update={"files": (*data_set.files[:-1], wrong)})),)
    )
    (job,) = [job for job in result_jobs(plan) if job.rule == "data"]
    with pytest.raises(DigestMismatchError, match=f"datasets/{data_set.repo}.*{wrong.name}"):
        run(plan, job.__class__(**{**job.__dict__, "subject": item}))
