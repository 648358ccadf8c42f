"""A large made-up release: 32 layers, 8 experts, 12 tasks, 10 files, names of sixty characters. Models are tiny, and files empty."""

import hashlib

from herdbook.files import write_json
from herdbook.plan.jobs import result_jobs
from herdbook.steps.registry import run
from support import measured, tiny

LAYERS, EXPERTS, TASKS = 32, 8, 12
METHODS = ["Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_L", "Q3_K_M", "Q2_K", "Q4_0"]


def name(number):
    """Return the name of a model, of sixty characters; names differ in their ends."""
    start = "an-instruction-tuned-and-then-again-fine-tuned-model-of-the-"
    return f"{start[: 60 - 3]}-{number:02}"


def write(root):
    """Write the release's inputs and results below a folder; return its plan."""
    models = {}
    for number in range(EXPERTS):
        tiny.write_model(root / f"source{number}", seed=number, layers=LAYERS, hidden=16, intermediate=16)
        models[name(number)] = {"folder": f"source{number}", "license": "apache-2.0"}
    sources = list(models)
    models["mix"] = {
        "moe": {
            "base": sources[0],
            "gate": "random",
            "experts": [{"model": source} for source in sources],
        }
    }
    tasks = [f"task{number:02}" for number in range(TASKS)]
    for task in tasks:
        path = tiny.write_task(root / f"{task}.yaml", name=task)
        path.write_text(path.read_text(encoding="utf-8").replace("Held-out text", f"Held-out text {task}"))
    recipe = tiny.write_recipe(
        root / "r.yaml",
        models,
        release={
            "name": "A-large-release-with-a-name-of-about-sixty-characters-8x1B",
            "summary": "A made-up release with more of everything than most releases have. " * 2,
            "limits": "It is made up, and answers nothing.",
            "quote": {"text": "Call me Ishmael.", "author": "Herman Melville"},
            "repo": "an-organization-with-a-long-name/a-large-release-8x1B",
        },
        evaluate={
            "tasks": [f"{task}.yaml" for task in tasks],
            "models": [*sources, "mix"],
            "compare": {"mix": [sources[0]]},
        },
        quantize={"methods": METHODS},
    )
    tiny.lock(recipe)
    from herdbook import plan as plans

    plan = plans.load(recipe, root / "results")
    for job in result_jobs(plan):
        if job.rule not in {"convert", "quantize", "data", "evaluate"}:
            run(plan, job)
    for number, item in enumerate(plan.quantized, start=1):
        path = plan.layout.quantized(item)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = b"GGUF" * (40 - 3 * number)
        path.write_bytes(content)
        file = {"size_bytes": 10**9 * (9 - number // 2), "sha256": hashlib.sha256(content).hexdigest()}
        about = {
            "name": item.file,
            "method": item.method,
            "key": item.key,
            "file": file,
            "bits_per_weight": 8.5 - number / 2,
        }
        write_json(plan.layout.quantized_record(item), {**about, "tensors": {}})
    for number, item in enumerate(plan.evaluations):
        shift = 0.01 * (item.name != "mix") * (1 + number % 5)
        values = [0.9 + shift + 0.01 * document for document in range(12)]
        measured.write(plan, item, values, task=tasks[0], also=tasks[1:])
    return plan
