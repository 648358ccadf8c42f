"""A folder in which the workflow runs on a recipe of its own, and what a run made."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from support import forkserver, loaded

REPOSITORY = Path(__file__).parents[2]
WORKFLOW = ("Snakefile", "rules", "envs", "profiles", "templates")


class Project:
    """The workflow's files as links, a recipe in ``config/``, and results."""

    def __init__(self, root):
        self.root = root
        self.recipe = root / "config" / "tiny.yaml"
        self.results = root / "results"
        self.recipe.parent.mkdir(parents=True, exist_ok=True)
        for name in WORKFLOW:
            if not (root / name).exists():
                (root / name).symlink_to(REPOSITORY / name)
        (root / "config/config.yaml").write_text("recipe: config/tiny.yaml\n", encoding="utf-8")

    def copy(self, root):
        """Return a copy with the times and links of this one."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)

    def own_code(self):
        """Give the folder its own copy of the package, to change; what is not changed is not compiled again."""
        shutil.copytree(REPOSITORY / "src", self.root / "src")

    def snakemake(self, *arguments, check=True, **options):
        """Run Snakemake and return the finished process."""
        done = self._run("snakemake", "--cores", "2", *arguments, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"snakemake failed:\n{done.stdout}\n{done.stderr}")
        if (
            check and (self.root / "src").exists()
        ):  # steps of its own code are not those that are followed by this
            for sums in self.results.glob("*/release/SHA256SUMS"):
                loaded.check(sums.parent)
        return done

    def herdbook(self, *arguments, **options):
        """Run a command of herdbook's and return the finished process, whatever its exit status."""
        return self._run("herdbook", *arguments, **options)

    def _run(self, *command, **options):
        """Run a program in the folder and return the finished process."""
        environment = self.environment()
        return subprocess.run(
            [shutil.which(command[0], path=environment["PATH"]), *command[1:]],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    def environment(self, *, forked=True):
        """Return the variables that a run sees: this interpreter's programs, and this folder's code if it has some.

        Programs are forked from the server of a test run, but not with code of the folder's own.
        """
        own = self.root / "src"
        programs = [Path(sys.executable).parent, os.environ["PATH"]]
        if forked and forkserver.ADDRESS in os.environ and not own.exists():
            programs.insert(0, forkserver.PROGRAMS)
        return {
            **{name: value for name, value in os.environ.items() if name != "HERDBOOK_RECIPE"},
            "PATH": os.pathsep.join(map(str, programs)),
            "PYTHONPATH": str(own if own.exists() else REPOSITORY / "src"),
            **({"PYTHONDONTWRITEBYTECODE": "1"} if own.exists() else {}),  # it is changed within seconds
            "COLUMNS": "200",
        }

    def run(self, *arguments):
        """Build; return the steps that ran, each with the base name of its first output."""
        before = self.logs()
        self.snakemake(*arguments)
        return steps_of(self.logged(before))

    def logs(self):
        """Return the files of Snakemake's own logs of all runs: they have every job, whatever a terminal shows."""
        return frozenset((self.root / ".snakemake/log").glob("*.log"))

    def logged(self, before=frozenset()):
        """Return what Snakemake logged in all runs but some."""
        return "".join(path.read_text(encoding="utf-8") for path in sorted(self.logs() - before))

    def released_weights(self):
        """Return all tensors of the release, by name."""
        tensors = {}
        for path in sorted((self.results / "Tiny" / "release").glob("*.safetensors")):
            tensors |= load_file(path)
        return tensors


def steps_of(log):
    """Return (rule, first output) of every job in a log, but the target ``all``. A dry run indents those in groups."""
    found = re.findall(r"^ *(?:local)?rule (\S+):\n(?: +input: .*\n)? +output: ([^,\n]+)", log, re.MULTILINE)
    return {(rule, output) for rule, output in found if rule != "all"}


def shards_made(steps):
    """Return which shards were made: ``model.label``, without the key."""
    return {
        Path(output).name.removesuffix(".safetensors").rpartition("-")[0]
        for _, output in steps
        if output.endswith(".safetensors") and "/shards/" in output
    }
