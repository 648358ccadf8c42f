"""A repository for recipes, as ``herdbook new`` makes it: it builds, and its workflows do what they say."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from pytest_local_hub import LocalHub, client
from safetensors.torch import load_file, save

from herdbook import __version__, settings
from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.cli.main import main
from herdbook.lock import Lock
from herdbook.signing.bundle import read
from herdbook.signing.keyless import CONFIG_VARIABLE
from herdbook.tools import installed
from support import forkserver, local_sigstore, tiny

ROOT = Path(__file__).parents[2]
MODELS = {
    "base": {"hub": "herd/tiny"},
    "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["self_attn.o_proj"], "layers": "0-0"},
    "mix": {"moe": {"base": "base", "gate": "random", "experts": [{"model": "base"}, {"model": "cut"}]}},
}


def load(path):
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506 - strings alone; `on` is no boolean


@pytest.fixture
def folder(tmp_path, capsys):
    assert main(["new", str(tmp_path / "herd")]) == 0
    capsys.readouterr()
    return tmp_path / "herd"


class Repository:
    """A repository with one tiny recipe of a model on a local Hub, and a runner's environment."""

    def __init__(self, root, hub, home):
        self.root, self.hub = root, hub
        self.recipe = root / "recipes/tiny.yaml"
        (root / "recipes/example.yaml").unlink()
        source = tiny.write_model(home / "upstream", seed=1)
        self.files = {path.name: path.read_bytes() for path in source.iterdir()}
        self.weights = source / "model.safetensors"
        hub.add_repo("herd/tiny", self.files, license="apache-2.0")
        tiny.write_recipe(self.recipe, MODELS)
        tiny.lock(self.recipe)
        self.runner = home / "runner"
        self.runner.mkdir()
        programs = [self.runner / "bin", forkserver.PROGRAMS, Path(sys.executable).parent, os.environ["PATH"]]
        self.environment = {
            **client.environment(hub, home / "hf"),
            "PATH": os.pathsep.join(map(str, programs)),
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.runner),
            "RUNNER_TEMP": str(self.runner),
            "GITHUB_OUTPUT": str(self.runner / "output"),
            "GITHUB_STEP_SUMMARY": str(self.runner / "summary.md"),
        }

    def run(self, *command, **variables):
        """Run a command in the repository and return the finished process."""
        return subprocess.run(
            command,
            cwd=self.root,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def step(self, workflow, name, **variables):
        """Run a step of a workflow as a runner does; variables are what expressions would give."""
        about = load(self.root / f".github/workflows/{workflow}.yml")
        (step,) = [step for job in about["jobs"].values() for step in job["steps"] if step.get("id") == name]
        given = {key: value for key, value in step.get("env", {}).items() if "${{" not in value}
        expected = step.get("env", {}).keys() - given.keys()
        assert expected <= variables.keys()
        script = self.runner / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        interpreter = (
            [sys.executable]
            if step.get("shell") == "python"
            else ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"]
        )
        return self.run(*interpreter, str(script), **given, **variables)

    def outputs(self):
        lines = (self.runner / "output").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def move(self):
        """Commit other weights upstream."""
        tensors = load_file(self.weights)
        tensors["lm_head.weight"] = tensors["lm_head.weight"] * 2
        self.hub.commit("herd/tiny", {"model.safetensors": save(tensors, metadata={"format": "pt"})})


@pytest.fixture
def repository(folder, tmp_path, monkeypatch):
    with LocalHub() as hub:
        client.use(hub, tmp_path / "here", monkeypatch)
        yield Repository(folder, hub, tmp_path)


@pytest.mark.usefixtures("conda")
def test_conda_s_environments_are_those_that_come_with_herdbook(repository):
    done = repository.run("snakemake", "-n", "--sdm", "conda", "--config", "recipe=recipes/tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    environment = Path(re.search(r"^Conda environment (\S+) will be created", done.stdout, re.MULTILINE)[1])
    assert environment.samefile(installed.root() / "envs/build.yaml")


@pytest.mark.slow
def test_a_tag_builds_what_the_next_run_takes_over(repository):
    listed = repository.step("build", "list", RECIPE="")
    assert listed.returncode == 0, listed.stderr
    assert json.loads(repository.outputs()["recipes"]) == [{"recipe": "recipes/tiny.yaml", "name": "tiny"}]
    cache = str(repository.root / ".cache")
    asked = {"RECIPE": "recipes/tiny.yaml", "HF_TOKEN": "", "HERDBOOK_CACHE": cache}
    done = repository.step("build", "build", **asked)
    assert done.returncode == 0, done.stdout + done.stderr
    release = repository.root / "results/Tiny/release"
    first = (release / "SHA256SUMS").read_bytes()
    assert json.loads((repository.root / "results/Tiny/verification.json").read_text())
    assert repository.step("build", "prune", HERDBOOK_CACHE=cache).returncode == 0
    assert list((repository.root / ".cache").glob("hub-*")) == []
    shutil.rmtree(repository.root / "results")
    shutil.rmtree(repository.root / ".snakemake")
    repository.hub.forget()
    again = repository.step("build", "build", **asked)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (release / "SHA256SUMS").read_bytes() == first
    assert [request for request in repository.hub.requests if "safetensors" in request.path] == []


@pytest.mark.slow
def test_publishing_signs_and_uploads_with_the_job_s_identity(repository):
    tiny.write_recipe(repository.recipe, {"base": MODELS["base"]}, release={"repo": "herd/made"})
    tiny.lock(repository.recipe)
    services = local_sigstore.LocalSigstore()
    hub, trust = repository.hub, repository.runner / "trust.json"
    hub.add_repo("herd/made", {".gitattributes": b"x"})
    hub.publishers["herd/made"] = services.publisher(hub.url)
    with local_sigstore.serve(services) as environment:
        trust.write_text(json.dumps(services.trust()))
        job = {
            **environment,
            CONFIG_VARIABLE: str(trust),
            "RECIPE": "recipes/tiny.yaml",
            "HERDBOOK_CACHE": str(repository.root / ".cache"),
        }
        target = repository.step("publish", "target", **job)
        assert target.returncode == 0, target.stderr
        assert repository.outputs() == {"repo": "herd/made"}
        built = repository.step("publish", "build", HF_TOKEN="", **job)
        assert built.returncode == 0, built.stdout + built.stderr
        assert hub.scopes == {}  # what builds has no token that may write
        done = repository.step("publish", "publish", HF_OIDC_RESOURCE="herd/made", **job)
    assert done.returncode == 0, done.stdout + done.stderr
    publication = json.loads((repository.root / "results/Tiny/publication.json").read_text())
    assert publication["url"] in (repository.runner / "summary.md").read_text()
    held = hub.repos["herd/made"].find("main").files
    *of_build, last = (read(each, "claims") for each in held["claims.jsonl"].content.splitlines())
    assert all(each.certified for each in (*of_build, last))
    assert publication["commit"] in last.statement["predicate"]["purl"]
    kept = [path.read_bytes() for path in repository.root.rglob("*") if path.is_file()]
    for token in hub.scopes:
        assert not any(token.encode() in each for each in (*kept, (done.stdout + done.stderr).encode()))


@pytest.mark.slow
def test_checking_names_the_recipe_that_is_wrong(repository):
    good = repository.step("check", "check")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "::error" not in good.stdout
    text = repository.recipe.read_text(encoding="utf-8")
    (repository.root / "recipes/other.yaml").write_text(text.replace("herd/tiny", "herd/other"))
    bad = repository.step("check", "check")
    assert bad.returncode == 1
    assert re.findall(r"::error file=(\S+?)::", bad.stdout) == ["recipes/other.yaml"]
    assert "other.lock.json: the lock does not exist" in bad.stderr


class Remote:
    """A bare repository as ``origin``, and a ``gh`` that writes down what it is asked."""

    def __init__(self, repository):
        self.repository = repository
        self.bare = repository.runner / "origin.git"
        self.asked = repository.runner / "asked"
        for command in (
            ("git", "init", "--quiet", "--bare", str(self.bare)),
            ("git", "init", "--quiet", "--initial-branch", "main"),
            ("git", "remote", "add", "origin", str(self.bare)),
            ("git", "add", "--all"),
            (
                "git",
                "-c",
                "user.name=me",
                "-c",
                "user.email=me@example.org",
                "commit",
                "--quiet",
                "-m",
                "first",
            ),
            ("git", "push", "--quiet", "origin", "main"),
        ):
            done = repository.run(*command)
            assert done.returncode == 0, done.stderr
        self.open_requests = repository.runner / "open"
        self.open_requests.touch()
        gh = repository.runner / "bin/gh"
        gh.parent.mkdir()
        gh.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$*" >>{self.asked}\n[ "$1 $2" != "pr list" ] || cat {self.open_requests}\n'
        )
        gh.chmod(gh.stat().st_mode | stat.S_IXUSR)

    def git(self, *arguments):
        return self.repository.run("git", f"--git-dir={self.bare}", *arguments).stdout

    def propose(self):
        done = self.repository.step("refresh", "propose", GH_TOKEN="secret")  # noqa: S106
        assert done.returncode == 0, done.stderr
        return self.asked.read_text().splitlines() if self.asked.exists() else []


def test_nothing_moved_proposes_nothing(repository):
    remote = Remote(repository)
    assert repository.step("refresh", "refresh", HF_TOKEN="").returncode == 0
    assert repository.outputs() == {"status": "0"}
    assert remote.propose() == []
    assert remote.git("branch", "--list").split() == ["main"] or remote.git("branch", "--list").split() == [
        "*",
        "main",
    ]


@pytest.mark.slow
def test_what_moved_is_proposed(repository):
    remote = Remote(repository)
    repository.move()
    text = repository.recipe.read_text(encoding="utf-8")
    other = repository.root / "recipes/gone.yaml"
    other.write_text(text.replace("herd/tiny", "herd/gone"), encoding="utf-8")
    repository.hub.add_repo("herd/gone", repository.files)
    tiny.lock(other)
    del repository.hub.repos["herd/gone"]
    assert repository.step("refresh", "refresh", HF_TOKEN="").returncode == 0
    assert repository.outputs() == {"status": "4"}  # the job ends red, after the pull request
    asked = remote.propose()
    assert [line.split()[:2] for line in asked] == [["auth", "setup-git"], ["pr", "list"], ["pr", "create"]]
    assert not any("secret" in line for line in asked)
    head = repository.hub.repos["herd/tiny"].branches["main"]
    pushed = Lock.model_validate_json(remote.git("show", "refresh-locks:recipes/tiny.lock.json"))
    assert pushed.sources["base"].revision == head
    changed = remote.git("diff", "--name-only", "main", "refresh-locks").split()
    assert changed == ["recipes/gone.lock.json", "recipes/tiny.lock.json"]
    body = (repository.runner / "body.md").read_text(encoding="utf-8")
    assert head in body
    assert "Unavailable" in body
    assert (repository.runner / "summary.md").read_text(encoding="utf-8") == (
        repository.runner / "moved.md"
    ).read_text(encoding="utf-8")


def test_a_pull_request_that_is_open_is_kept_and_its_body_fits(repository):
    remote = Remote(repository)
    repository.move()
    tiny.lock(repository.recipe)
    remote.open_requests.write_text("7\n")
    with (repository.runner / "moved.md").open("a", encoding="utf-8") as file:
        file.write("é→" * 20_000)
    body = f"body=@{repository.runner}/body.md"
    assert remote.propose()[-1].endswith(f" PATCH repos/{{owner}}/{{repo}}/pulls/7 --field {body}")
    body = (repository.runner / "body.md").read_bytes()
    assert 59_990 < len(body) <= 60_000
    assert set(body.decode()) == {"é", "→"}


def test_verifying_lists_releases_and_ends_as_herdbook_does(repository):
    text = "# a comment\nowner/name@v1 keys/owner key.pem\n\nowner/other not-before:v1\n"
    no_reference = {"expect": "", "not_before": ""}
    (repository.root / "releases.txt").write_text(text, encoding="utf-8")
    assert repository.step("verify", "list").returncode == 0
    assert json.loads(repository.outputs()["releases"]) == [
        {**no_reference, "number": 1, "release": "owner/name@v1", "key": "keys/owner key.pem"},
        {**no_reference, "number": 2, "release": "owner/other", "key": "", "not_before": "v1"},
    ]
    program = repository.runner / "bin/herdbook"
    program.parent.mkdir()
    for status, says in ((0, ""), (8, "::error title=Verification failed"), (9, "::warning"), (10, "broken")):
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{repository.runner}/asked\nexit {status}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        wicked = "$(touch pwned)"
        done = repository.step(
            "verify",
            "verify",
            RELEASE=wicked,
            KEY="a b.pem",
            EXPECT="12ab",
            NOT_BEFORE="",
            SEED="7",
            HF_TOKEN="",
        )
        assert (done.returncode, says in done.stdout) == (status, True)
        asked = (repository.runner / "asked").read_text().splitlines()
        assert asked[-2:] == ["--", wicked]
        assert asked[asked.index("--key") + 1] == "a b.pem"
        assert asked[asked.index("--expect") + 1] == "12ab"
        assert "--not-before" not in asked
    assert not (repository.root / "pwned").exists()


def test_a_job_of_the_hub_verifies_each_release_and_ends_with_the_worst_status(repository):
    script = repository.root / "jobs/verify.py"
    assert f'dependencies = ["herdbook=={__version__}"]' in script.read_text().partition('"""')[0]
    asked, package = repository.runner / "asked", repository.runner / "fake"
    (package / "herdbook").mkdir(parents=True)
    (package / "herdbook/__init__.py").touch()
    (package / "herdbook/__main__.py").write_text(
        f"import sys\nopen({str(asked)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
        "sys.exit(9 if sys.argv[-1].endswith('gone') else 0)\n"
    )
    for releases, status in (((), 2), (("a/b@v1", "a/c"), 0), (("a/gone", "a/b@v1"), 9)):
        asked.write_text("")
        done = repository.run(sys.executable, str(script), *releases, PYTHONPATH=str(package))
        assert done.returncode == status, done.stderr
        assert asked.read_text().splitlines() == [f"verify --level upstream -- {one}" for one in releases]


@pytest.mark.parametrize(("extras", "wanted"), [("", "herdbook"), ("workflow", "herdbook[workflow]")])
def test_installing_takes_the_pinned_versions(repository, extras, wanted):
    pip = repository.runner / "bin/pip"
    pip.parent.mkdir()
    pip.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{repository.runner}/asked\n')
    pip.chmod(pip.stat().st_mode | stat.S_IXUSR)
    (step,) = [
        step
        for step in load(repository.root / ".github/actions/herdbook/action.yml")["runs"]["steps"]
        if "run" in step
    ]
    done = repository.run("bash", "-e", "-o", "pipefail", "-c", step["run"], EXTRAS=extras)
    assert done.returncode == 0, done.stderr
    asked = (repository.runner / "asked").read_text().splitlines()
    assert asked[-3:] == ["--constraint", "constraints.txt", f"{wanted}=={__version__}"]


def test_versions_are_those_of_the_package(folder):
    assert f"herdbook[all]=={__version__}" in (folder / "requirements.txt").read_text().splitlines()
    assert (folder / "constraints.txt").read_bytes() == (ROOT / "requirements.lock").read_bytes()
    left = [path for path in folder.rglob("*") if path.is_file() and "@version@" in path.read_text()]
    assert left == []
    profile = "profiles/default/profile.v9+.yaml"
    assert (folder / profile).read_bytes() == (ROOT / profile).read_bytes()


def test_the_example_can_be_planned(folder):
    path = folder / "recipes/example.yaml"
    recipe = recipes.load(path)
    known = locks.load(ROOT / "config/miniature.lock.json").sources["base"]
    lock = Lock(sources={"base": known})
    locks.check_fits(lock, recipe, path)
    assert plans.make(recipe, lock, path).released.name == recipe.release.model


@pytest.mark.parametrize("there", ["a file", "a folder"])
def test_what_is_there_is_left_alone(tmp_path, capsys, there):
    place = tmp_path / "herd"
    if there == "a file":
        place.write_text("mine")
    else:
        (place / "mine").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert main(["new", str(place)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_of_a_release_is_unpacked_first(tmp_path, capsys):
    (tmp_path / "release.tar").write_bytes(b"\xc8")
    assert main(["new", str(tmp_path / "herd"), "--from", str(tmp_path / "release.tar")]) == 2
    assert "is an archive; unpack it, and name the folder that it contains" in capsys.readouterr().err
    assert not (tmp_path / "herd").exists()


def test_the_next_commands_can_be_typed_as_they_are_shown(tmp_path, capsys):
    assert main(["new", str(tmp_path / "my merge")]) == 0
    assert f"  cd '{tmp_path}/my merge'\n" in capsys.readouterr().out


def test_a_repository_that_was_cloned_empty_will_do(tmp_path, capsys):
    (tmp_path / ".git").mkdir()
    assert main(["new", str(tmp_path)]) == 0
    assert (tmp_path / "Snakefile").is_file()


@pytest.mark.slow
def test_a_wheel_has_what_it_takes(tmp_path, repository):
    """The package's files, put where the wheel puts them, and nothing of the checkout: a dry run knows every job."""
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    site = tmp_path / "site"
    for package in target["packages"]:
        shutil.copytree(ROOT / package, site / Path(package).name)
    for source, place in target["force-include"].items():
        (site / place).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile
        copy(ROOT / source, site / place)
    repository.environment["PYTHONPATH"] = str(site)
    made = repository.run(sys.executable, "-m", "herdbook", "new", str(tmp_path / "other"))
    assert made.returncode == 0, made.stderr
    names = {path.relative_to(repository.root) for path in repository.root.rglob("*") if path.is_file()}
    assert {
        path.relative_to(tmp_path / "other") for path in (tmp_path / "other").rglob("*") if path.is_file()
    } == (names - {Path("recipes/tiny.yaml"), Path("recipes/tiny.lock.json")}) | {
        Path("recipes/example.yaml")
    }
    done = repository.run(sys.executable, "-m", "snakemake", "-n", "--config", "recipe=recipes/tiny.yaml")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert all(part.id in said for part in plans.load(repository.recipe).parts.values())
    assert re.search(r"^verify +1$", said, re.MULTILINE)
    assert not re.search(rf"{re.escape(str(ROOT))}/(?!\.venv/)", said)


MERGE = """\
merge_method: slerp
base_model: herd/one
models:
  - model: herd/one
  - model: herd/two
parameters:
  t: 0.5
dtype: bfloat16
"""


@pytest.fixture
def herd(tmp_path, monkeypatch):
    """A Hub with two models, and a merge of them with its configuration in its card."""
    with LocalHub() as hub:
        client.use(hub, tmp_path / "here", monkeypatch)
        for seed, name in enumerate(("one", "two"), 1):
            source = tiny.write_model(tmp_path / name, seed=seed)
            hub.add_repo(
                f"herd/{name}",
                {path.name: path.read_bytes() for path in source.iterdir()},
                license="apache-2.0",
            )
        card = f"---\nlicense: apache-2.0\n---\n# Merged\n\n```yaml\n{MERGE}```\n"
        hub.add_repo("herd/Merged", {"README.md": card.encode()})
        yield hub


@pytest.mark.parametrize("source", ["merge.yml", "herd/Merged"])
def test_a_repository_from_a_merge_is_locked_and_planned(herd, tmp_path, monkeypatch, capsys, source):
    monkeypatch.chdir(tmp_path)
    Path("merge.yml").write_text(MERGE, encoding="utf-8")
    assert main(["new", "herd", "--from", source]) == 0
    said = capsys.readouterr()
    (recipe,) = (tmp_path / "herd/recipes").glob("*.yaml")
    assert recipe.read_text().startswith(
        "# yaml-language-server: $schema=recipe.schema.json\n# Imported from "
    )
    assert load(tmp_path / "herd/config/config.yaml")["recipe"] == f"recipes/{recipe.name}"
    plan = plans.load(recipe)
    assert {plan.recipe.models[name].hub: locked.revision for name, locked in plan.lock.sources.items()} == {
        f"herd/{name}": herd.repos[f"herd/{name}"].branches["main"] for name in ("one", "two")
    }
    assert all(part.id in said.out for part in plan.parts.values())
    assert "assumed: " in said.err
    assert plan.recipe.release.name == ("herd" if source == "merge.yml" else "Merged")


def test_commands_need_no_recipe_inside(herd, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "herd", "--from", "herd/Merged"]) == 0
    monkeypatch.chdir(tmp_path / "herd")
    monkeypatch.delenv("HERDBOOK_RECIPE", raising=False)
    for command in (
        ["lock"],
        ["plan"],
        ["explain", "all"],
        ["refresh"],
        ["gc"],
        ["files", "one"],
        ["fetch", "one.1"],
    ):
        assert main(command) == 0, (command, capsys.readouterr().err)
    assert list(Path("results/shards").glob("one.1-*.safetensors"))
    assert load(Path("recipes/merged.yaml"))["release"]["model"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ({"README.md": b"# A model\n"}, "herd/other", "contains no configuration"),
        ({"config.json": b"{}"}, "herd/other", "nothing states what it was merged from"),
        # what a card on the Hub names is not looked for on this machine
        (
            {"README.md": MERGE.replace("herd/two", "./two").encode()},
            "herd/other",
            "'./two' is neither a folder",
        ),
        ({}, "mistyped", "is neither a file, a folder, nor owner/name"),
        ({}, "herd/gone", "herd/gone"),
    ],
)
def test_from_what_is_no_merge_nothing_is_written(
    herd, tmp_path, monkeypatch, capsys, files, source, message
):
    monkeypatch.chdir(tmp_path)
    if files:
        herd.add_repo("herd/other", files)
    assert main(["new", "made", "--from", source]) != 0
    assert message in capsys.readouterr().err
    assert not Path("made").exists()


def test_a_source_that_is_gone_leaves_a_repository_to_correct(herd, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    del herd.repos["herd/two"]
    assert main(["new", "herd", "--from", "herd/Merged"]) != 0
    said = capsys.readouterr().err
    assert "recipes/merged.yaml could not be locked or planned" in said
    assert "herd/two" in said
    assert Path("herd/recipes/merged.yaml").exists()


def test_what_comes_along_is_understood(folder):
    """The example with what it has as comments, the task, the suites, and the schemas."""
    text = (folder / "recipes/example.yaml").read_text(encoding="utf-8")
    head, _, rest = text.partition("# evaluate:")
    (folder / "recipes/more.yaml").write_text(head + f"# evaluate:{rest}".replace("\n# ", "\n")[2:])
    recipe = recipes.load(folder / "recipes/more.yaml")
    assert list(recipe.evaluate.models) == ["base", "pair"]
    assert recipe.quantize is not None
    suites = ROOT / "config/suites"
    for path in suites.iterdir():
        assert (folder / "recipes/suites" / path.name).read_bytes() == path.read_bytes()
    for yaml_file, schema in (
        ("recipes/example.yaml", recipes.json_schema()),
        ("config/config.yaml", settings.json_schema()),
    ):
        first = (folder / yaml_file).read_text(encoding="utf-8").splitlines()[0]
        named = (folder / yaml_file).with_name(first.removeprefix("# yaml-language-server: $schema="))
        assert json.loads(named.read_text(encoding="utf-8")) == schema
