"""The command line: help for everything, one clear message for what goes wrong, and the exit status for scripts."""

import io
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from herdbook import __version__, errors, humanize, needs, progress, settings
from herdbook import plan as plans
from herdbook.cli.commands import GROUPS, NAMES
from herdbook.cli.main import main
from herdbook.cli.steps import STEPS
from herdbook.forkserver import VARIABLE
from herdbook.plan.jobs import OF_A_MODEL, all_jobs, jobs
from herdbook.steps import registry
from herdbook.steps.machine import Machine
from support import tiny

ROOT = Path(__file__).parents[2]
MODELS = {"base": {"folder": "base"}, "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": "all"}}
COMMANDS = [*([name] for name in NAMES), *(["cache", name] for name in ("add", "list", "prune", "verify"))]


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for setting in settings.SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)


@pytest.fixture
def recipe(tmp_path):
    tiny.write_model(tmp_path / "base", shards=2)
    return tiny.write_recipe(tmp_path / "r.yaml", MODELS)


def configure(text):
    Path("config").mkdir(exist_ok=True)
    Path("config/config.yaml").write_text(text, encoding="utf-8")


def run(*arguments):
    return main([str(argument) for argument in arguments])


def python(script, *arguments, **variables):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


# --- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_a_help_text_for_80_columns(command, capsys):
    assert run(*command, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 5
    assert [line for line in lines if len(line) > 80] == []
    assert lines[2].endswith(".")  # what it does, in a sentence of its own
    assert len(lines[2]) < 72  # and that is whole in the list of commands


def test_help_lists_every_command_in_its_group(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    sections = dict(re.findall(r"^(\S[^\n]*):\n((?:  [^\n]*\n)+)", text, re.MULTILINE))
    for title, names in GROUPS.items():
        assert re.findall(r"^  (\S+)  +\S", sections[title], re.MULTILINE) == list(names)
    assert "..." not in text.partition("Options:")[2]


def test_help_is_shown_before_anything_is_loaded():
    script = (
        "import sys; from herdbook.cli.main import main; main(['--help']); main(['laser', '--help']);"
        "print(sorted({'torch', 'pydantic', 'yaml', 'tqdm', 'huggingface_hub', 'herdbook.plan'} & set(sys.modules)))"
    )
    assert python(script).stdout.splitlines()[-1] == "[]"


def test_a_command_for_each_rule():
    steps = [path for path in (ROOT / "rules").glob("*.smk") if path.name != "targets.smk"]
    text = "".join(path.read_text(encoding="utf-8") for path in steps)
    rules = set(re.findall(r"^\s*(?:rule|use rule \w+ as) (\w+?)(?:_one)?\b", text, re.MULTILINE))
    assert {"fetch", "laser", "restore", "publish"} <= rules
    assert rules | set(OF_A_MODEL) <= set(NAMES)
    assert {*STEPS, "attest"} == set(registry.STEPS)


def test_the_module_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "herdbook", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"herdbook {__version__}\n"


# --- errors and statuses ------------------------------------------------------------------------------------------


def test_exit_statuses_are_those_documented():
    statuses = [
        getattr(errors, name).exit_status
        for name in (
            *("HerdbookError", "RecipeError", "LockError", "SourceError", "DigestMismatchError"),
            *("CheckpointError", "StepError", "VerificationError"),
        )
    ]
    assert statuses == list(range(1, 9))


def test_the_table_of_statuses_has_every_error():
    text = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    listed = {int(status) for status in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_status for kind in kinds if issubclass(kind, errors.HerdbookError)}
    assert listed == raised | {0, 10, 130}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage: herdbook"),
        (["lasre"], "no such command: 'lasre'; did you mean 'laser'?"),
        (["cache", "prnue"], "No such command"),
        (["check"], "no such command: 'check'; a recipe is checked by `herdbook lock` and `herdbook plan`"),
        (["plan", "--recpie", "x"], "--recipe"),
        (["laser"], "Missing argument 'KEY'"),
        (["laser", "ab", "--threads", "0"], "--threads"),
        (["plan", "--gpu-memory", "much"], "'much' is not a number of GB such as 80"),
        (
            ["spectrum", "m", "--device", "cudaa"],
            "'cudaa' is not cpu, cuda (any GPU) or a GPU such as cuda:0",
        ),
        (["cache", "prune", "--keep-size", "5 sheep"], "a size such as 500MB"),
        (["cache", "prune", "--older-than", "5"], "an age such as 12h"),
        (["cache", "prune"], "pass --older-than, --keep-size or --not-used-by"),
        (["verify", "a/x", "--level", "all"], "'all' is not one of"),
        (["verify", "a/x", "--key", "absent"], "absent"),
        (["verify", "a/x", "--key", str(ROOT / "README.md")], "README.md: is not a public key in PEM"),
        (
            ["verify", "results/nowhere/release"],
            "results/nowhere/release: is neither a folder nor owner/name",
        ),
        (["audit", "nowhere"], "nowhere: is neither a folder nor owner/name"),
        (["verify", str(ROOT / "README.md")], "README.md: is a file. Name the release that it should be of"),
        (["verify", "a/x", "--of", "a/y"], "a/x: --of is for one file of a release"),
        (["audit", "a/x", "--gguf", "./nowhere"], "./nowhere: is neither a folder nor owner/name"),
        (["export", "ro-crate", "nowhere", "--to", "c", "--published", "2026-01-02"], "is neither a folder"),
        (["attest", "--key", "x", "--keyless"], "exclude each other"),
        (
            ["verify", ".", "--unsigned", "--identity", "ada@example.org", "--issuer", "https://example.org"],
            "--unsigned accepts what --key and --identity refuse",
        ),
    ],
)
def test_wrong_usage_is_2_and_shows_how(capsys, arguments, message):
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert "--help" in shown.err
    assert "Traceback" not in shown.err


def test_a_private_key_in_place_of_the_public_one_is_wrong_usage(tmp_path, capsys):
    assert run("key", str(tmp_path / "mine.key")) == 0
    for there, message in (
        (True, f"did you mean {tmp_path / 'mine.key'}.pub?"),
        (False, "in a file of its own"),
    ):
        if not there:
            (tmp_path / "mine.key.pub").unlink()
        assert run("verify", str(tmp_path), "--key", str(tmp_path / "mine.key")) == 2
        shown = capsys.readouterr().err
        assert "mine.key: is a private key" in shown
        assert message in shown


@pytest.mark.parametrize("command", [["audit"], ["card"], ["compare", "a/b"]])
def test_a_file_is_not_taken_for_a_repository(command, tmp_path, monkeypatch, capsys):
    """Its path has the form of owner/name, and would be sent to the Hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g").mkdir()
    (tmp_path / "g/Tiny.Q8_0.gguf").write_bytes(b"GGUF")
    assert run(*command, "g/Tiny.Q8_0.gguf") in {2, 9}
    assert "g/Tiny.Q8_0.gguf: is a file; name the folder that it is in" in capsys.readouterr().err


def test_keyless_may_replace_a_configured_key(recipe, monkeypatch, capsys):
    monkeypatch.setenv("HERDBOOK_SIGNING_KEY", "my.key")
    assert run("attest", "--recipe", recipe, "--keyless") == 3  # the first that is wrong is the lock
    assert run("attest", "--recipe", recipe, "--keyless", "--key", "my.key") == 2


def test_lock_plan_and_steps(recipe, capsys):
    assert run("lock", "--recipe", recipe) == 0
    assert capsys.readouterr().out.strip() == str(recipe.with_suffix(".lock.json"))
    assert run("plan", "--recipe", recipe) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    ids = [line[0] for line in lines if ".safetensors" in line[0] or "-" in line[0]]
    keys = {name.rpartition("-")[0]: name.rpartition("-")[2] for name in ids}
    assert run("fetch", "--recipe", recipe, keys["base.1"]) == 0  # by the first digits of its key
    assert run("fetch", "--recipe", recipe, "base.2") == 0  # by its name
    assert run("laser", "--recipe", recipe, next(name for name in ids if name.startswith("cut.1"))) == 0
    capsys.readouterr()
    assert run("plan", "--recipe", recipe) == 0
    assert "0 bytes of it missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "status", "expected"),
    [
        (lambda recipe: recipe.write_text("models: {}"), 2, "release: missing"),
        (lambda recipe: recipe.with_suffix(".lock.json").unlink(), 3, "the lock does not exist"),
        (lambda recipe: recipe.with_suffix(".lock.json").write_text("{}x"), 3, "is damaged at its start"),
        (lambda recipe: recipe.unlink(), 2, "cannot be read: No such file"),
    ],
)
def test_one_message_and_a_status(recipe, capsys, damage, status, expected):
    assert run("lock", "--recipe", recipe) == 0
    damage(recipe)
    capsys.readouterr()
    assert run("plan", "--recipe", recipe) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("herdbook plan: ")
    assert expected in shown.err
    assert "Traceback" not in shown.err


def test_missing_source_while_locking(recipe, capsys):
    recipe.write_text(recipe.read_text().replace("folder: base", "folder: gone"))
    assert run("lock", "--recipe", recipe) == 4
    error = capsys.readouterr().err
    assert f"folder: gone: the folder {recipe.parent / 'gone'} does not exist" in error


def test_a_key_that_no_job_has(recipe, capsys):
    run("lock", recipe)
    assert run("laser", "--recipe", recipe, "xyz") == 2
    message = capsys.readouterr().err
    assert "no job has the key or name 'xyz'" in message
    assert "cut.1-" in message
    assert "herdbook plan" in message
    assert run("fetch", "--recipe", recipe, "") == 2
    assert "may be any of base.1-" in capsys.readouterr().err
    assert run("routing", "--recipe", recipe) == 2
    assert "this recipe has no such step" in capsys.readouterr().err


def test_reader_that_has_seen_enough(recipe):
    run("lock", "--recipe", recipe)
    command = f"{sys.executable} -m herdbook plan --recipe {recipe} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_debug_shows_where_it_happened(recipe):
    recipe.unlink()
    with pytest.raises(errors.RecipeError):
        run("--debug", "plan", "--recipe", recipe)


def failing(monkeypatch, error):
    def fail(*_):
        raise error

    loaded_by(monkeypatch, fail)


def loaded_by(monkeypatch, function):
    """Configure a recipe, of which a plan is made by a function."""
    Path("r.yaml").touch()
    monkeypatch.setenv("HERDBOOK_RECIPE", "r.yaml")
    monkeypatch.setattr(plans, "load", function)


def test_system_error_is_a_message(capsys, monkeypatch):
    failing(monkeypatch, OSError(28, "No space left on device", "results/x"))
    assert run("plan") == 1
    assert capsys.readouterr().err == "herdbook plan: results/x: No space left on device\n"


def test_interruption_has_the_status_of_its_signal(capsys, monkeypatch):
    failing(monkeypatch, KeyboardInterrupt)
    assert run("plan") == 130
    assert capsys.readouterr().err.startswith("herdbook plan: interrupted")


@pytest.mark.parametrize("error", [EOFError, ZeroDivisionError])
def test_an_error_of_the_program_is_not_hidden(monkeypatch, error):
    failing(monkeypatch, error)
    with pytest.raises(error):
        run("plan")


# --- the recipe, and the settings of a repository -----------------------------------------------------------------


def test_the_recipe_is_taken_from_the_nearest_place(capsys, monkeypatch):
    def asked(*arguments):
        assert run("plan", *arguments) == 2
        return re.fullmatch(r"herdbook plan: (\S+): cannot be read: .*\n", capsys.readouterr().err)[1]

    assert run("plan") == 2
    assert "no config/config.yaml here: run in a repository of recipes" in capsys.readouterr().err
    Path("recipes").mkdir()
    Path("recipes/herd.yaml").write_text("models: {}\n", encoding="utf-8")
    assert run("lock", "recipes/hard.yaml") == 2
    assert (
        "cannot be read: No such file or directory; did you mean 'recipes/herd.yaml'?"
        in capsys.readouterr().err
    )
    assert run("lock") == 2
    assert capsys.readouterr().err.endswith("Recipes here: recipes/herd.yaml\n")
    shutil.rmtree("recipes")
    configure("recipe: of-the-file.yaml\n")
    assert asked() == "of-the-file.yaml"
    monkeypatch.setenv("HERDBOOK_RECIPE", "of-the-environment.yaml")
    assert asked() == "of-the-environment.yaml"
    assert asked("--recipe", "of-the-option.yaml") == "of-the-option.yaml"
    assert asked("of-the-argument.yaml") == "of-the-argument.yaml"
    assert asked("same.yaml", "--recipe", "same.yaml") == "same.yaml"


def test_a_place_that_is_neither_here_nor_on_the_hub_is_named_as_both(local_hub_client, capsys):
    assert run("compare", "nope/none", "nope/none") == 4
    assert "there is no folder nope/none here, so it was looked up on the Hub" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["publish", "attest", "gc", "release"])
def test_a_recipe_where_none_is_an_argument_leads_to_the_option(recipe, monkeypatch, capsys, command):
    monkeypatch.setenv("HERDBOOK_RECIPE", str(recipe))
    assert run(command, str(recipe)) == 2
    assert f"--recipe {recipe}" in capsys.readouterr().err


def test_a_release_where_it_is_no_argument_leads_to_the_option(tmp_path, capsys):
    assert run("publish", str(tmp_path)) == 2
    assert f"A release is named by an option here: --release {tmp_path}" in capsys.readouterr().err
    assert run("attest", str(tmp_path)) == 2
    assert "--release" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["lock", "plan", "refresh"])
def test_two_recipes_are_one_too_many(capsys, command):
    assert run(command, "a.yaml", "--recipe", "b.yaml") == 2
    assert "two recipes were given: a.yaml and --recipe b.yaml" in capsys.readouterr().err


def test_the_machine_is_as_the_repository_says(recipe, monkeypatch):
    run("lock", recipe)
    configure(f"recipe: {recipe}\ndevice: cuda:1\ngpu_memory: 80\n")
    ran = []
    monkeypatch.setattr(registry, "run", lambda _plan, job, machine: ran.append((job.label, machine)))

    def machine(*arguments):
        assert run("laser", "cut.1", *arguments) == 0
        return ran.pop()[1]

    assert machine("--threads", "3") == registry.Machine(3, "cuda:1", 80 * 10**9)
    monkeypatch.setenv("HERDBOOK_DEVICE", "cuda:2")
    assert machine() == registry.Machine(1, "cuda:2", 80 * 10**9)
    assert machine("--device", "cpu", "--gpu-memory", "24.5") == registry.Machine(1, "cpu", 24_500_000_000)
    assert machine("--gpu-memory", "24GB") == registry.Machine(1, "cuda:2", 24_000_000_000)
    # The workflow sets a variable to nothing where a setting does not hold for a job.
    monkeypatch.setenv("HERDBOOK_GPU_MEMORY", "")
    assert machine() == registry.Machine(1, "cuda:2", None)


def test_what_steps_read_of_the_environment_is_set_while_a_command_runs(monkeypatch):
    configure("recipe: r.yaml\nsigning_key: own.pem\ncache: /herd\nprice_per_hour: 1.5\ngpu_memory:\n")
    Path("r.yaml").touch()
    monkeypatch.setenv("HERDBOOK_CACHE", "")
    before, seen = dict(os.environ), {}

    def load(*_):
        seen.update(os.environ)
        raise errors.RecipeError("enough")

    monkeypatch.setattr(plans, "load", load)
    assert run("explain") == 2
    own = {name: value for name, value in seen.items() if name.startswith("HERDBOOK_") and name != VARIABLE}
    assert own == {
        "HERDBOOK_RECIPE": "r.yaml",
        "HERDBOOK_SIGNING_KEY": "own.pem",
        "HERDBOOK_PRICE_PER_HOUR": "1.5",
        "HERDBOOK_CACHE": "",
    }
    assert dict(os.environ) == before


def test_the_cache_of_the_repository(tmp_path, capsys):
    (tmp_path / "herd").mkdir()
    configure("cache: herd\n")
    assert run("cache") == 0
    assert run("cache", "list") == 0
    assert capsys.readouterr().out == "herd: 0 entries, 0 bytes\n" * 2
    configure("")
    assert run("cache") == 11
    assert "no cache is configured: pass --cache PLACE" in capsys.readouterr().err
    assert run("cache", "list", "--cache", "nowhere") == 11  # behind the command's name, too
    assert "nowhere: the cache's folder does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("devise: cuda\n", "config/config.yaml: line 1: devise: unknown setting; did you mean 'device'?"),
        ("recipe: [a, b]\n", "config/config.yaml: line 1: recipe: expected text or a number"),
        ("device: true\n", "config/config.yaml: line 1: device: expected text or a number"),
        ("- recipe\n", "config/config.yaml: is not a mapping of settings"),
        ("recipe: {\n", "config/config.yaml: line 2, column 1: "),
        (
            "gpu_memory: much\n",
            "config/config.yaml: line 1: gpu_memory: 'much' is not a number of GB such as 80",
        ),
        (
            "device: cudaa\n",
            "config/config.yaml: line 1: device: 'cudaa' is not cpu, cuda (any GPU) or a GPU such as cuda:0",
        ),
        ("account: lab\n", "config/config.yaml: line 1: account: unknown setting"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(recipe, capsys, text, message):
    configure(text)
    assert run("plan", recipe) == 2
    assert message in capsys.readouterr().err
    # Neither help nor what needs no repository minds.
    assert run("plan", "--help") == 0
    assert run("schema") == 0


# --- other people's models ----------------------------------------------------------------------------------------


def test_verify_foreign_is_audit(tmp_path, capsys):
    def shown(*arguments):
        return run(*arguments), *capsys.readouterr()

    asked = [str(tmp_path), "--seed", "7", "--sample", "1MB"]
    status, out, err = shown("audit", *asked)
    assert (status, err) == (9, "")
    out = re.sub(r"in [0-9.]+ s", "", out)
    for alias in (["verify", "--foreign", *asked], ["verify", *asked, "--foreign"]):
        other = shown(*alias)
        assert (other[0], re.sub(r"in [0-9.]+ s", "", other[1]), other[2]) == (status, out, err)
    assert run("verify", "--foreign", str(tmp_path), "--key", "x") == 2
    assert "No such option '--key'" in capsys.readouterr().err


# --- bars, colours, pipes -----------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_where_somebody_watches(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.track("work", 2) as advance:
        advance()
        progress.say("a line")
        advance()
    assert "work: 100%" in sys.stderr.getvalue()
    assert "a line\n" in sys.stderr.getvalue()
    with progress.track("nothing", 0):
        pass
    assert "nothing" not in sys.stderr.getvalue()


def test_lines_now_and_then_where_nobody_watches(monkeypatch, capsys):
    now = iter([0, 1, 31, 40, 70, 71])  # the start, then each of five steps
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.track("work", 5) as advance:
        for _ in range(5):
            advance()
    assert capsys.readouterr().err.splitlines() == [
        "work: 2 of 5 after 31 s, about 46 s left",
        "work: 4 of 5 after 70 s, about 18 s left",
        "work: 5 of 5 after 71 s",
    ]


def test_bytes_are_shown_as_sizes(monkeypatch, capsys):
    now = iter([0, 31, 62])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.track_bytes("copy", 14 * 10**9) as advance:
        advance(5 * 10**9)
        advance(9 * 10**9)
    assert capsys.readouterr().err.splitlines() == [
        "copy: 5.00 GB of 14.00 GB after 31 s, about 56 s left",
        "copy: 14.00 GB of 14.00 GB after 62 s",
    ]
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.track_bytes("copy", 14 * 10**9) as advance:
        advance(14 * 10**9)
    assert "copy: 100%" in sys.stderr.getvalue()
    assert "14.0G/14.0G" in sys.stderr.getvalue()


def test_what_counts_no_steps_prints_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(progress, "INTERVAL_S", 0.01)
    with progress.waiting("first") as doing:
        doing("second")
        for _ in range(500):
            time.sleep(0.01)
            if printed := capsys.readouterr().err:
                break
    assert printed.splitlines()[0] == "second: still running after 0 s"
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""  # it ended


def test_short_work_leaves_no_line(monkeypatch, capsys):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0)
    with progress.track("work", 3) as advance:
        for _ in range(3):
            advance()
    progress.say("a line")
    assert capsys.readouterr().err == "a line\n"


@pytest.mark.parametrize("variables", [{}, pytest.param({"NO_COLOR": "1"}, marks=pytest.mark.slow)])
def test_pipes_get_no_control_characters_and_no_bars(recipe, variables):
    run("lock", recipe)
    script = (
        "import sys; from herdbook.cli.main import main; import herdbook.plan as plans\n"
        "def load(*_):\n"
        "    from tqdm import tqdm; list(tqdm(range(3))); raise KeyboardInterrupt\n"
        "main(['plan', sys.argv[1]]); plans.load = load; main(['plan', sys.argv[1]])"
    )
    done = python(script, str(recipe), TERM="xterm-256color", **variables)
    assert done.stdout.startswith("2 models ")
    assert done.stderr.splitlines()[-1].startswith("herdbook plan: interrupted")
    assert not re.search(r"[\x1b\r]|%\|", done.stdout + done.stderr)


def test_bars_of_libraries_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    loaded_by(monkeypatch, lambda *_: pytest.fail(os.environ["TQDM_DISABLE"]))
    with pytest.raises(pytest.fail.Exception, match="^0$"):
        run("plan")


# --- completion ---------------------------------------------------------------------------------------------------


def complete(monkeypatch, capsys, *words):
    """Return what bash is offered for the last of some words."""
    monkeypatch.setenv("_HERDBOOK_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["herdbook", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    assert main() == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return [line.partition(",")[2] for line in shown.out.split()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(monkeypatch, capsys, shell):
    monkeypatch.setenv("_HERDBOOK_COMPLETE", f"{shell}_source")
    assert main() == 0
    assert "_HERDBOOK_COMPLETE" in capsys.readouterr().out


def test_commands_options_and_choices_are_completed(monkeypatch, capsys):
    assert complete(monkeypatch, capsys, "re") == ["refresh", "restore", "reference", "release"]
    assert complete(monkeypatch, capsys, "verify", "x", "--level", "re") == ["recomputed", "rebuild"]
    assert complete(monkeypatch, capsys, "plan", "--el") == ["--elsewhere"]


def test_recipes_are_completed(recipe, monkeypatch, capsys):
    configure("recipe: config/a.yaml\n")
    for name in ("config/a.yaml", "recipes/b.yaml", "else/c.yaml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("models: {}\n")
    assert complete(monkeypatch, capsys, "plan", "") == ["config/a.yaml", "r.yaml", "recipes/b.yaml"]
    assert complete(monkeypatch, capsys, "laser", "--recipe", "config/") == ["config/a.yaml"]
    assert complete(monkeypatch, capsys, "lock", "else/") == ["else/c.yaml"]


def test_plan_lists_the_jobs_of_a_build_by_rule(recipe, capsys):
    run("lock", recipe)
    capsys.readouterr()
    assert run("plan", recipe) == 0
    text = capsys.readouterr().out
    planned = plans.load(recipe)
    assert all(len(row) <= 80 for row in text.splitlines())
    text = re.sub(
        r"^(    \S+)\n {20,}", r"\1  ", text, flags=re.MULTILINE
    )  # long names have lines of their own
    models, listed = re.fullmatch(
        r"\d+ models? .*\n((?:  .*\n)+)\d+ jobs +.*\n((?:  .*\n)+)time limits of .*\nto fetch: .*\n", text
    ).groups()
    names = [line.split()[0] for line in models.splitlines() if not line.startswith("    ")]
    assert names == list(planned.recipe.models)
    sections = dict(re.findall(r"^  (\w+): \d+ jobs?\n((?:    .*\n)+)", listed, re.MULTILINE))
    rows = {(rule, row.split()[0]) for rule, rows in sections.items() for row in rows.splitlines()}
    assert rows == {(job.rule, job.id or job.rule) for job in jobs(planned)}
    laser = next(job for job in jobs(planned) if job.rule == "laser")
    row = next(row for row in sections["laser"].splitlines() if laser.id in row)
    needed = (
        humanize.size(needs.disk_bytes(planned, laser.subject)),
        humanize.size(needs.memory_bytes(planned, laser.subject)),
    )
    assert re.split(r"  +", row.strip())[1:3] == list(needed)


@pytest.mark.parametrize("license_", [None, "mit"])
def test_plan_notes_what_publishing_will_refuse(tmp_path, capsys, license_):
    tiny.write_model(tmp_path / "base")
    base = {"folder": "base"} | ({"license": license_} if license_ else {})
    path = tiny.write_recipe(tmp_path / "r.yaml", {"base": base}, release={"license": "mit"})
    tiny.lock(path)
    assert run("plan", str(path)) == 0
    noted = (
        "`herdbook publish` will refuse it: models.base: its license is not known" in capsys.readouterr().err
    )
    assert noted == (license_ is None)


@pytest.mark.parametrize("chosen", [1, 2])
def test_plan_notes_routers_that_choose_nothing(tmp_path, capsys, chosen):
    tiny.write_model(tmp_path / "base")
    experts = [{"model": "base", "prompts": [prompt]} for prompt in ("w1", "w2")]
    mix = {"moe": {"base": "base", "experts": experts, "experts_per_token": chosen}}
    path = tiny.write_recipe(tmp_path / "r.yaml", {"base": {"folder": "base"}, "mix": mix})
    tiny.lock(path)
    assert run("plan", str(path)) == 0
    assert ("note: models.mix.moe: each token goes to all 2 experts" in capsys.readouterr().err) == (
        chosen == 2
    )


def test_jobs_and_models_are_completed(recipe, monkeypatch, capsys):
    run("lock", recipe)
    capsys.readouterr()
    ids = [job.id for job in all_jobs(plans.load(recipe)) if job.rule == "laser"]
    assert ids
    assert complete(monkeypatch, capsys, "laser", "--recipe", "r.yaml", "") == ids
    configure("recipe: r.yaml\n")
    assert complete(monkeypatch, capsys, "laser", "cut") == ids
    assert "cut" in complete(monkeypatch, capsys, "explain", "cu")
    assert complete(monkeypatch, capsys, "explain", "rel") == ["release"]
    recipe.write_text("models: {}")
    assert complete(monkeypatch, capsys, "laser", "") == []


def test_every_target_that_is_offered_is_explained(tmp_path, monkeypatch, capsys):
    tiny.write_model(tmp_path / "base", shards=2)
    recipe = tiny.write_recipe(tmp_path / "r.yaml", MODELS | {"last": MODELS["cut"] | {"laser": "cut"}})
    run("lock", recipe)
    configure("recipe: r.yaml\n")
    capsys.readouterr()
    targets = complete(monkeypatch, capsys, "explain", "")
    monkeypatch.delenv("_HERDBOOK_COMPLETE")
    assert {"all", "fetch", "base", "cut", "verify"} < set(targets)
    assert [target for target in targets if run("explain", target) != 0] == []


# --- devices ------------------------------------------------------------------------------------------------------


def test_jobs_are_spread_over_several_gpus_and_a_named_one_is_kept(monkeypatch):
    torch = pytest.importorskip("torch")
    asked = []
    monkeypatch.setattr(torch, "empty", lambda *_, device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [Machine(device="cuda").device_of(f"{number:064x}") for number in range(5)] == [
        "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0",
    ]  # fmt: skip
    assert Machine(device="cuda:2").device_of("ff") == "cuda:2"
    assert Machine().device_of("ff") == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Machine(device="cuda").device_of("ff") == "cuda"
    assert asked == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0", "cuda:2", "cuda"]


def test_what_help_lists_without_loading_it_is_what_there_is():
    from herdbook.cli import findings, verify
    from herdbook.verify import levels, report

    assert list(verify.LEVELS) == list(levels.LEVELS)
    assert set(findings.STATUSES) == {str(status) for status in report.STATUSES.values()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "verify model --json model/config.json",
            "--json model/config.json: is in model, which is only read",
        ),
        ("verify model --page model/new.html", "--page model/new.html: is in model, which is only read"),
        ("verify linked --summary model/config.json", "is in linked, which is only read"),
        ("verify model --vsa linked/config.json", "is in model, which is only read"),
        ("verify model --work model", "--work model: is what is only read"),
        ("verify model/config.json --of other --junit model/config.json", "is what is only read"),
        ("verify model --page one --json ./one", "--json and --page both name one"),
        ("audit model --junit model/config.json", "is in model, which is only read"),
        ("audit other --candidates model --json model/config.json", "is in model, which is only read"),
        ("compare other model --json model/config.json", "is in model, which is only read"),
        ("routers model --json model/config.json", "is in model, which is only read"),
        ("spectrum model --page model/config.json", "is in model, which is only read"),
        ("verify model --json -", "name a file; /dev/stdout prints it"),
        ("routers model --json -", "name a file; /dev/stdout prints it"),
        ("spectrum model --page one --json one", "--json and --page both name one"),
    ],
)
def test_no_report_is_written_over_what_is_examined(capsys, arguments, said):
    for name in ("model", "other"):
        Path(name).mkdir()
        Path(name, "config.json").write_text("{}", encoding="utf-8")
    Path("linked").symlink_to("model")
    assert run(*arguments.split()) == 2
    assert said in capsys.readouterr().err
    assert Path("model/config.json").read_text(encoding="utf-8") == "{}"
    assert not Path("model/new.html").exists()
    assert not Path("one").exists()
    assert not Path("-").exists()


def test_two_reports_can_follow_each_other_in_what_the_output_goes_to(tmp_path):
    """A file, too, if it is redirected. The path is what /dev/stdout leads to."""
    script = "import sys; from herdbook.cli.main import main; sys.exit(main(sys.argv[1:]))"
    Path("model").mkdir()
    words = ("verify", "model", "--json", "/proc/self/fd/1", "--summary", "/proc/self/fd/1")
    command = [sys.executable, "-c", script, *words]
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.PIPE, text=True, check=False)
    assert "one would replace the other" not in done.stderr
