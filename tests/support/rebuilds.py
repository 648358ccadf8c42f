"""What a change makes again, how that is explained, and what a build looks like, shown in workflow.md by the workflow itself.

Write all: ``PYTHONPATH=tests python -m support.rebuilds``, in the repository, in an environment that has everything.
"""

import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import yaml
from safetensors.torch import load_file, save_file

from support import forkserver, tiny
from support.project import REPOSITORY, Project, steps_of
from support.terminal import pictures, watch

DOCUMENT = REPOSITORY / "workflow.md"
COMMAND = "PYTHONPATH=tests python -m support.rebuilds"
MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "tuned": {"adapter": "adapter", "on": "base"},
    "base-laser": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "tuned-laser": {"laser": "tuned", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "mix": {
        "moe": {
            "base": "base-laser",
            "experts": [
                {"model": "tuned-laser", "prompts": ["w1 w2 w3"]},
                {"model": "other", "prompts": ["w9 w8"]},
            ],
        }
    },
}
EXPLAINED = ("mix.expert1", "base-laser")
BAR = "\u2501"  # what the bar is drawn with
RULES = (
    "fetch",
    "files",
    "adapter",
    "laser",
    "moe",
    "assemble",
    "routing",
    "card",
    "release",
    "attest",
    "verify",
)
OTHER_TORCH = """import importlib.metadata

version = importlib.metadata.version
importlib.metadata.version = lambda name: "999.0" if name == "torch" else version(name)
"""


def herd(root):
    """Return a folder with a small recipe: two sources, one of two files; an adapter, two LASERs and a mixture."""
    project = Project(root)
    sources = project.recipe.parent
    tiny.write_model(sources / "base", seed=1)
    tiny.write_model(sources / "other", seed=2, shards=2)
    tiny.write_adapter(sources / "adapter", sources / "base", seed=3)
    tiny.write_recipe(project.recipe, MODELS, release={"quote": {"text": "Before.", "author": "Nobody"}})
    tiny.lock(project.recipe)
    return project


def edit(project, change):
    """Change the recipe and lock it again."""
    recipe = yaml.safe_load(project.recipe.read_text(encoding="utf-8"))
    change(recipe)
    project.recipe.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    tiny.lock(project.recipe)


def nothing(project):
    """Change nothing."""


def quotation(project):
    """Change the quotation on the card."""
    edit(project, lambda recipe: recipe["release"].update(quote={"text": "After."}))


def prompts(project):
    """Change one expert's prompts."""
    edit(project, lambda recipe: recipe["models"]["mix"]["moe"]["experts"][1].update(prompts=["w5"]))


def swap(project):
    """Let two experts change places."""
    edit(project, lambda recipe: recipe["models"]["mix"]["moe"]["experts"].reverse())


def revision(project):
    """Let a source have a new revision, in which one number in one of its two weights files is another."""
    path = min((project.recipe.parent / "other").glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name in tensors if ".mlp." in name)
    tensors[name][0, 0] += 1
    path.unlink()  # results link to it
    save_file(tensors, path, metadata={"format": "pt"})
    tiny.lock(project.recipe)


def rename(recipe, old, new):
    """Give a model of a recipe another name, and change nothing else."""

    def renamed(value):
        if isinstance(value, list):
            return [renamed(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: new if key in {"laser", "on", "base", "model"} and item == old else renamed(item)
            for key, item in value.items()
        }

    recipe["models"] = {
        new if name == old else name: renamed(entry) for name, entry in recipe["models"].items()
    }


def threshold(project):
    """Change one LASER's rank."""
    edit(project, lambda recipe: recipe["models"]["tuned-laser"].update(rank={"fraction": 0.75}))


def torch_version(project):
    """Let another torch be installed, as far as the workflow can tell."""
    project.own_code()
    (project.root / "src/sitecustomize.py").write_text(OTHER_TORCH, encoding="utf-8")


CHANGES = {
    "nothing": nothing,
    "the quotation": quotation,
    "one expert's prompts": prompts,
    "two experts swapped": swap,
    "a source's revision: one of its two files": revision,
    "one LASER threshold": threshold,
    "the version of torch": torch_version,
}


# All steps but those that a test looks at while they run. The terminal is drawn at intervals, between which they could begin
# and end: so these end when it has shown what is looked at. All have a core each but a LASER, which takes all cores.
SOME_FORKED = """#!/bin/sh
case "$1" in fetch | laser) exec {python} {held} "$@" ;; esac
exec {forked} "$@"
"""
HELD = """import sys, time
from pathlib import Path

from herdbook.cli.main import main

status, end = main(), time.monotonic() + 60
while not Path({shown!r}, sys.argv[1]).exists() and time.monotonic() < end:
    time.sleep(0.05)
sys.exit(status)
"""
# A running job, whichever of the two is the first: with memory of a process that has torch, and its bytes.
LASERED = re.compile(
    r"^laser +(?:base|tuned)-laser\.1 +[\d.]+ s +[12]\d\d\.\d\d MB +.* of 45\.38 kB", re.MULTILINE
)
HEAD = re.compile(r"(\d+) of (\d+) steps done, (\d+) running, (\d+) waiting")


def build(project):
    """Build in a terminal; return all that stood on it."""
    environment = project.environment(forked=False)
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    programs = project.root / "bin"
    shown = programs / "shown"

    def heard(_, seen):
        drawn = progress(seen.decode("utf-8", errors="replace"))
        if any(running == 2 for _, _, running, _ in heads(drawn)):
            (shown / "fetch").touch()
        if any(map(LASERED.search, drawn)):
            (shown / "laser").touch()

    in_a_test = forkserver.ADDRESS in os.environ
    if in_a_test:
        shown.mkdir(parents=True)
        (programs / "held").mkdir()
        held = programs / "held/herdbook"  # the view looks for a process of this name
        held.write_text(HELD.format(shown=str(shown)), encoding="utf-8")
        forked = forkserver.PROGRAMS / "herdbook"
        some = SOME_FORKED.format(python=sys.executable, held=held, forked=forked)
        (programs / "herdbook").write_text(some, encoding="utf-8")
        (programs / "herdbook").chmod(0o755)
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    status, seen = watch(command, project.root, environment, heard if in_a_test else None)
    assert status == 0, seen
    return seen


def progress(seen):
    """Return the pictures of a build that runs."""
    return [one for one in pictures(seen) if BAR in one]


def heads(drawn):
    """Return how many steps are done, there are, run and wait in each picture."""
    return [[int(number) for number in found] for one in drawn for found in HEAD.findall(one)]


def would_run(project):
    """Return the jobs that Snakemake would run, as (rule without a model's name, first output)."""
    steps = steps_of(project.snakemake("--dry-run").stdout)
    return {(plain(rule), output) for rule, output in steps}


def plain(rule):
    """Return a rule's name without a model's."""
    return next((name for name in ("assemble", "files") if rule.startswith(f"{name}_")), rule)


def counts(steps):
    """Return the number of jobs of each rule."""
    found = Counter(plain(rule) for rule, _ in steps)
    assert set(found) <= set(RULES), found
    return found


def table(rows):
    """Return the table of workflow.md: for each change, the jobs of each rule."""
    lines = [
        f"| change | {' | '.join(RULES)} |",
        f"| --- |{' ---: |' * len(RULES)}",
        *(
            f"| {change} | {' | '.join(str(found[rule] or '') for rule in RULES)} |"
            for change, found in rows.items()
        ),
    ]
    return "\n".join(line.replace("|  |", "| |").replace("|  |", "| |") for line in lines)


def explanation(project):
    """Return what `herdbook explain` prints of some targets, without keys: every change of the code has others."""
    lines = []
    for target in EXPLAINED:
        done = project.herdbook("explain", "--recipe", "config/tiny.yaml", target)
        lines += [f"$ herdbook explain {target}", *re.sub(r"-[0-9a-f]{12}\b", "-…", done.stdout).splitlines()]
    return "\n".join(["```", *lines, "```"])


def picture(seen):
    """Return what a build looked like: a moment when most was going on, and how it ended."""
    drawn = [one for one in pictures(seen) if BAR in one.partition("\n")[2].partition("\n")[0]]
    busiest = max(enumerate(drawn), key=lambda pair: (" left" in pair[1], pair[1].count("B  "), pair[0]))[1]
    end = pictures(seen)[-1].splitlines()
    return (
        "```\n"
        + "\n".join(line.rstrip() for line in [*busiest.splitlines(), "", "[...]", "", *end])
        + "\n```"
    )


def between(text, name):
    """Return what stands between a pair of markers, and the markers' pattern."""
    pattern = re.compile(rf"(<!-- {name}: [^\n]* -->\n)(.*?)(\n<!-- end of {name} -->)", re.DOTALL)
    return pattern.search(text)[2], pattern


def write(name, content):
    """Put something between a pair of markers of workflow.md."""
    text = DOCUMENT.read_text(encoding="utf-8")
    _, pattern = between(text, name)
    DOCUMENT.write_text(pattern.sub(lambda found: found[1] + content + found[3], text), encoding="utf-8")


def main():
    """Build the herd, make every change in a copy of it, and write down what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        project = herd(Path(folder) / "built")
        seen = build(project)
        rows = {"a first build": counts(steps_of(project.logged()))}
        for number, (name, change) in enumerate(CHANGES.items()):
            copy = project.copy(Path(folder) / f"copy{number}")
            change(copy)
            rows[name] = counts(would_run(copy))
            if change is threshold:
                write("explanation", explanation(copy))
    write("changes", table(rows))
    write("view", picture(seen))


if __name__ == "__main__":
    main()
