"""The command line: help for everything, one clear message for what goes wrong, and the exit status for scripts."""

import subprocess
import sys

import pytest

from herdbook import errors
from herdbook.cli import main as cli
from herdbook.steps.machine import Machine
from support import tiny

MODELS = {"base": {"folder": "base"}, "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": "all"}}
COMMANDS = (
    *(
        "new",
        "lock",
        "refresh",
        "plan",
        "explain",
        "fetch",
        "search",
        "laser",
        "adapter",
        "moe",
        "assemble",
        "evaluate",
        "convert",
        "quantize",
        "card",
    ),
    *("release", "spectrum", "verify", "schema"),
)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HERDBOOK_RECIPE", raising=False)
    tiny.write_model(tmp_path / "base", shards=2)
    return tiny.write_recipe(tmp_path / "r.yaml", MODELS)


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(command, capsys):
    with pytest.raises(SystemExit) as caught:
        run(command, "--help")
    assert caught.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) >= 5


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    said = capsys.readouterr().out
    assert all(f"    {command} " in said or f"    {command}\n" in said for command in COMMANDS)


def test_exit_statuses_are_those_documented():
    statuses = [
        getattr(errors, name).exit_status
        for name in (
            *(
                "HerdbookError",
                "RecipeError",
                "LockError",
                "SourceError",
                "DigestMismatchError",
                "CheckpointError",
            ),
            *("StepError", "VerificationError"),
        )
    ]
    assert statuses == list(range(1, 9))


def test_lock_plan_and_steps(recipe, capsys):
    assert run("lock", "--recipe", recipe) == 0
    assert capsys.readouterr().out.strip() == str(recipe.with_suffix(".lock.json"))
    assert run("plan", "--recipe", recipe) == 0
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    keys = {
        line[0].rpartition("-")[0]: line[0].rpartition("-")[2]
        for line in lines
        if ".safetensors" in line[0] or "-" in line[0]
    }
    assert run("fetch", "--recipe", recipe, keys["base.1"]) == 0
    assert run("fetch", "--recipe", recipe, keys["base.2"]) == 0
    assert run("laser", "--recipe", recipe, keys["cut.1"]) == 0
    capsys.readouterr()
    assert run("plan", "--recipe", recipe) == 0
    assert "of which 0 bytes are missing" in capsys.readouterr().out


def test_recipe_by_environment(recipe, monkeypatch):
    monkeypatch.setenv("HERDBOOK_RECIPE", str(recipe))
    assert run("lock") == 0


@pytest.mark.parametrize(
    ("damage", "status", "expected"),
    [
        (lambda recipe: recipe.write_text("models: {}"), 2, "release: missing"),
        (lambda recipe: recipe.with_suffix(".lock.json").unlink(), 3, "there is no lock yet"),
        (lambda recipe: recipe.with_suffix(".lock.json").write_text("{}x"), 3, "is damaged at its start"),
        (lambda recipe: recipe.unlink(), 2, "cannot be read: No such file"),
    ],
)
def test_one_message_and_a_status(recipe, capsys, damage, status, expected):
    assert run("lock", "--recipe", recipe) == 0
    damage(recipe)
    capsys.readouterr()
    assert run("plan", "--recipe", recipe) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("herdbook plan: ")
    assert expected in said.err
    assert "Traceback" not in said.err


def test_missing_source_while_locking(recipe, capsys):
    recipe.write_text(recipe.read_text().replace("folder: base", "folder: gone"))
    assert run("lock", "--recipe", recipe) == 4
    assert "folder: gone: there is no such folder" in capsys.readouterr().err


def test_key_of_another_recipe(recipe, capsys):
    run("lock", "--recipe", recipe)
    assert run("laser", "--recipe", recipe, "0123") == 2
    assert "laser: no job has a key that begins with '0123'" in capsys.readouterr().err


def test_reader_that_has_seen_enough(recipe):
    run("lock", "--recipe", recipe)
    command = f"{sys.executable} -m herdbook plan --recipe {recipe} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_debug_shows_where_it_happened(recipe):
    recipe.unlink()
    with pytest.raises(errors.RecipeError):
        run("--debug", "plan", "--recipe", recipe)


def test_system_error_is_a_message(recipe, capsys, monkeypatch):
    run("lock", "--recipe", recipe)

    def full(*_):
        raise OSError(28, "No space left on device", "results/x")

    monkeypatch.setattr(cli.plans, "load", full)
    assert run("plan", "--recipe", recipe) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "herdbook plan: results/x: No space left on device"


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
