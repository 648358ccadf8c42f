"""What steps really import: each way to run one in a process that has imported nothing of ours before.

Run as a program, it makes everything below a folder that has a recipe and its lock, and prints a JSON object: for each job,
the code that its key has, and what the step's modules really imported, directly or by way of others that are not neutral.
A process is a fork of one that has only packages of others in it, so that it costs little.
"""

import builtins
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

OTHERS = (
    "numpy",
    "torch",
    "transformers",
    "safetensors.torch",
    "gguf",
    "libgguf",
    "datasets",
    "lm_eval",
    "jinja2",
)
MODELS_ALONE = ("models", "macs")  # recipes whose release is not made
OF_A_RELEASE = ("evaluate", "routing", "card", "release", "attest", "verify")
STEPS = "herdbook.steps.registry"
VERIFY = "herdbook.cli.verify"
ENTRIES = {
    "convert": "herdbook.steps.quantize.step",
    "files": "herdbook.steps.assemble.step",
    "search": "herdbook.steps.laser.search",
    "reference": "herdbook.steps.loss.step",
}


class Edges:
    """Notes which module of ours imports what, statement by statement, as it happens."""

    def __init__(self):
        self.found = {}
        self._import = builtins.__import__

    def __call__(self, name, globals=None, locals=None, fromlist=(), level=0):  # noqa: A002 - as Python calls it
        module = self._import(name, globals, locals, fromlist, level)
        importer = (globals or {}).get("__name__", "")
        if importer.partition(".")[0] == "herdbook":
            noted = self.found.setdefault(importer, set())
            inner = {f"{name}.{one}" for one in fromlist or ()} & sys.modules.keys()
            noted |= inner | {name}
        return module

    def reached(self, roots, stops):
        """Return what modules import, directly or by way of others, but for those at which to stop."""
        found, pending = set(), list(roots)
        while pending:
            name = pending.pop()
            if name not in found and not stops(name):
                found.add(name)
                pending += self.found.get(name, ())
        return found


def run(folder):
    """Run this file on a folder in a fresh interpreter; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HERDBOOK_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(folder)],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _main(folder):
    for name in OTHERS:
        importlib.import_module(name)
    assert not [name for name in sys.modules if name.partition(".")[0] == "herdbook"]
    read = _forked(_read)
    found = {}
    for recipe in sorted((folder / "recipes").glob("*.yaml")):
        while made := _forked(lambda recipe=recipe: _made(recipe, read)):
            new = {f"{recipe.stem}: {name}": seen for name, seen in made.items()}
            assert not new.keys() & found.keys(), f"made again, so its files are elsewhere: {sorted(new)}"
            found |= new
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def _forked(function):
    """Return what a function returns in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.dup2(2, 1)
            with os.fdopen(writing, "w") as pipe:
                json.dump(function(), pipe)
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on as a copy of the other
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"a step failed: {text}")
    return json.loads(text)


def _read():
    """Return what `plan.parsed` reads from the source of each module, which takes longer than a step."""
    import pkgutil

    import herdbook
    from herdbook.plan import parsed

    own = [module.name for module in pkgutil.walk_packages(herdbook.__path__, "herdbook.")]
    return {
        asked: {name: getattr(parsed, asked)(name) for name in own if not name.endswith("__main__")}
        for asked in ("module_digest", "imports", "is_empty")
    }


def _made(recipe, read):
    """
    Make what can be made of a recipe: of each step in one way alone, so that no module imports what another way needs.
    Return what was imported and what the keys have, by job; nothing if everything is made.
    """
    edges = builtins.__import__ = Edges()
    from herdbook import plan as plans
    from herdbook.plan import code, parsed
    from herdbook.plan.jobs import all_jobs
    from herdbook.steps import registry

    for asked, answers in read.items():
        setattr(parsed, asked, answers.__getitem__)
    _stand_in()
    plan = plans.load(recipe, Path("results") / recipe.stem)
    ways, made = {}, {}
    for job in all_jobs(plan):
        if recipe.stem in MODELS_ALONE and job.rule in OF_A_RELEASE:
            continue
        keyed = sorted(_code_of(plan, job))
        step = ENTRIES.get(job.rule, f"herdbook.steps.{job.rule}.step")
        waits = keyed and ways.get(step, keyed) != keyed
        if waits or all(map(Path.exists, job.outputs)) or not all(map(Path.exists, job.inputs)):
            continue
        if keyed:
            ways[step] = keyed
        if job.rule == "verify":
            from herdbook.cli.main import main

            arguments = ["verify", str(plan.layout.release_folder), "--json", str(plan.layout.verification)]
            arguments += ["--page", str(plan.layout.page)]
            main(arguments)
            levels = json.loads(plan.layout.verification.read_text(encoding="utf-8"))["levels"]
            found = [one for level in levels for one in level["findings"]]
            wrong = {one["check"] for one in found if one["outcome"] != "passed"}
            # the hand-made GGUF has the header of another model
            assert wrong == ({"gguf headers"} if recipe.stem == "gguf" else set()), wrong
            roots = [
                one for one in edges.found[VERIFY] if one.startswith(("herdbook.verify", "herdbook.release"))
            ]
        else:
            registry.run(plan, job)
            roots = [one for one in edges.found[STEPS] if one == step]
        assert roots, job.rule
        stops = {one for one in sys.modules if code.neutral(one) and one not in keyed}
        reached = edges.reached(roots, stops.__contains__)
        ours = {one for one in reached if one.startswith("herdbook.") and not parsed.is_empty(one)}
        others = {one.partition(".")[0] for one in reached} - sys.stdlib_module_names - {"herdbook"}
        others = {parsed.DISTRIBUTIONS[one] for one in others} - code.NEUTRAL_PACKAGES.keys()
        made[job.name] = {"key": keyed, "imported": sorted(ours | others)}
    return made


def _code_of(plan, job):
    """Return the code in a job's key."""
    from herdbook.plan import card, evaluate, quantize, release

    codes = {
        "convert": quantize.CONVERT_CODE,
        "quantize": quantize.QUANTIZE_CODE,
        "card": card.CARD_CODE,
        "release": release.RELEASE_CODE,
        "attest": release.ATTEST_CODE,
        "verify": release.VERIFY_CODE,
    }
    if job.rule == "evaluate":
        made = evaluate.RUNTIME_CODE if job.subject.runtime else evaluate.DEQUANTIZE_CODE
        more = made.describe().json if job.subject.quantized else {}
        return evaluate.EVALUATE_CODE.describe().json | more
    if job.rule in codes:
        return codes[job.rule].describe().json
    return job.subject.code.json if hasattr(job.subject, "code") else {}


def _stand_in():
    """Let programs of others be done without: what they would write is written."""
    import shutil

    from herdbook.tools.external import Tool

    def run(tool, arguments, folder, log=None):
        del log
        shutil.copyfile("full.gguf", arguments[arguments.index("--outfile") + 1])
        del tool, folder

    Tool.run = run


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
