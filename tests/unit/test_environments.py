"""Conda environments and containers: what they install is what the locks say, all of it, for both builds of torch."""

import importlib.metadata
import os
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path
from unittest import mock

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from herdbook.tools.converter import CONVERTER

ROOT = Path(__file__).parents[2]
ENVS = ROOT / "envs"
EXTRAS = {
    "build": {"build", "gguf", "keyless", "s3"},
    "evaluate": {"build", "evaluate", "gguf", "s3"},
    "quantize": {"build", "gguf", "quantize", "s3"},
}
WHOLE = {"workflow", "build", "evaluate", "quantize", "gguf", "keyless", "s3", "slurm"}
# How NVIDIA and PyTorch call what a GPU needs.
CUDA_NAME = re.compile(r"(cuda|nvidia)-|triton$")


def pins(path):
    """Return the versions that a file of requirements pins, by canonical names."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return versions(line for line in lines if not line.startswith("#"))


def versions(lines, system="linux"):
    """Return the versions that lines pin on a system, by canonical names; each name once, each pin exact."""
    wanted = [
        line
        for line in map(Requirement, (line.partition(" --hash=")[0] for line in lines))
        if not line.marker or line.marker.evaluate({"sys_platform": system})
    ]
    found = {}
    for requirement in wanted:
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert found.setdefault(canonicalize_name(requirement.name), pin.version) is pin.version
    return found


LOCK = pins(ROOT / "requirements.lock")
CUDA_LOCK = pins(ROOT / "requirements.cuda.lock")
# PyTorch's index has the build for processors under this label, PyPI CUDA's without one.
CPU_LOCK = LOCK | {"torch": f"{LOCK['torch']}+cpu"}


def environment(name, system="linux"):
    """Return the options with which an environment's script calls pip, and the versions that it pins."""
    dependencies = yaml.safe_load((ENVS / f"{name}.yaml").read_text(encoding="utf-8"))["dependencies"]
    assert dependencies == ["python=3.11", "pip"]
    script = (ENVS / f"{name}.post-deploy.sh").read_text(encoding="utf-8")
    options, lines = re.search(
        r"^pip install ([^\n]+) --requirement /dev/stdin <<'PINS'\n(.+?)\nPINS\n",
        script,
        re.MULTILINE | re.DOTALL,
    ).groups()
    assert options.startswith("--quiet --no-deps --require-hashes")
    options = options.removeprefix("--quiet --no-deps --require-hashes").strip()
    return options, versions(lines.splitlines(), system)


def asked(extras):
    """Return what the package's own table of dependencies names for some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(x for e in extras for x in project["optional-dependencies"][e])]
    return {canonicalize_name(Requirement(line).name) for line in lines} - {"herdbook"}


def unmet(listed):
    """Return what listed distributions ask for without an extra and the list lacks."""
    return {
        f"{name}: {requirement}"
        for name in listed
        for requirement in map(Requirement, importlib.metadata.requires(name) or [])
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if canonicalize_name(requirement.name) not in listed
        or not requirement.specifier.contains(listed[canonicalize_name(requirement.name)])
    }


@pytest.mark.parametrize("name", sorted(EXTRAS))
def test_an_environment_is_that_of_the_lock_and_lacks_nothing(name):
    options, listed = environment(name)
    assert listed.items() <= CPU_LOCK.items()
    assert asked(EXTRAS[name]) <= listed.keys()
    assert not unmet(listed)
    assert options == "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert environment(name, "darwin")[1] == listed | {"torch": LOCK["torch"]}


@pytest.mark.parametrize("name", sorted(EXTRAS))
def test_with_cuda_it_differs_in_what_a_gpu_needs_alone(name):
    options, listed = environment(f"{name}.cuda")
    assert options == ""
    assert listed == CUDA_LOCK | environment(name)[1] | {"torch": LOCK["torch"]}


@pytest.mark.parametrize(
    ("file", "lock"),
    [
        ("requirements.hashes.lock", "requirements.lock"),
        ("requirements.cuda.hashes.lock", "requirements.cuda.lock"),
    ],
)
def test_each_pin_has_the_digests_of_its_files(file, lock):
    assert pins(ROOT / file) == pins(ROOT / lock), "run: make lock"
    lines = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert all(re.fullmatch(r"\S+==\S+( --hash=sha256:[0-9a-f]{64})+", line) for line in lines)


@pytest.mark.parametrize(
    "path", sorted([*ENVS.glob("herdbook*.txt"), *ENVS.glob("*.post-deploy.sh")]), ids=lambda path: path.name
)
def test_whatever_is_installed_has_a_digest_from_the_locks(path):
    """Torch's build for processors is another file under the same pin, so that its digest stands beside those of PyPI."""
    known = {
        line.partition("==")[0]: set(line.split()[1:])
        for lock in (
            "requirements.cuda.hashes.lock",
            "requirements.hashes.lock",
            f"envs/{CONVERTER.package}.txt",
        )
        for line in (ROOT / lock).read_text(encoding="utf-8").splitlines()
    }
    content = path.read_text(encoding="utf-8")
    found = re.findall(r"^\s*(?:- )?(\S+)==\S+(?: ;[^-]+)?((?: --hash=\S+)*)$", content, re.MULTILINE)
    assert len(found) == content.count("==") - content.count("sys_platform ==")
    for name, hashes in found:
        assert hashes
        assert set(hashes.split()) <= known[name]


@pytest.mark.parametrize(
    ("file", "installable"),
    [
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", True),
        ("numpy-2.4.6-cp311-cp311-macosx_11_0_arm64.whl", True),
        ("safetensors-0.8.0-cp38-abi3-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", True),
        ("six-1.17.0-py2.py3-none-any.whl", True),
        ("torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl", True),
        ("numpy-2.4.6-cp312-cp312-manylinux_2_28_x86_64.whl", False),
        ("x-1-cp312-abi3-manylinux_2_28_x86_64.whl", False),
        ("numpy-2.4.6-cp311-cp311-musllinux_1_2_x86_64.whl", False),
        ("numpy-2.4.6-cp311-cp311-win_amd64.whl", False),
        ("aiohttp-3.14.5-cp311-cp311-manylinux_2_31_riscv64.whl", False),
        ("numpy-2.4.6-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", False),
    ],
)
def test_digests_are_those_of_files_that_can_be_installed(file, installable):
    assert runpy.run_path(str(ENVS / "hashes.py"))["_fits"](file) == installable


def test_the_locks_agree_and_only_cuda_s_has_cuda():
    assert {package for package in CUDA_LOCK if CUDA_NAME.match(package)} == CUDA_LOCK.keys() - LOCK.keys()
    assert {package: LOCK[package] for package in CUDA_LOCK.keys() & LOCK.keys()}.items() <= CUDA_LOCK.items()
    assert {"torch", "triton", "nvidia-cublas"} <= CUDA_LOCK.keys()


def test_a_container_s_requirements_are_those_of_the_lock_and_lack_nothing():
    listed = pins(ENVS / "herdbook.txt")
    assert listed.items() <= CPU_LOCK.items()
    assert asked(WHOLE) <= listed.keys()
    assert not unmet(listed)
    assert not listed.keys() & {"pytest", "ruff", "mypy"}
    assert pins(ENVS / "herdbook.cuda.txt") == CUDA_LOCK | listed | {"torch": LOCK["torch"]}


def test_what_lies_there_is_what_is_rendered(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ENVS), *sys.path])
    rendered = runpy.run_path(str(ENVS / "render.py"))["files"]()
    stale = [name for name, text in rendered.items() if (ENVS / name).read_text(encoding="utf-8") != text]
    assert not stale, "run: python envs/render.py"


@pytest.mark.parametrize(("step", "tool"), [("quantize", CONVERTER)])
def test_an_environment_has_the_program_of_others_that_its_steps_run(step, tool):
    for kind in ("", ".cuda"):
        script = (ENVS / f"{step}{kind}.post-deploy.sh").read_text(encoding="utf-8")
        ((options, listed),) = re.findall(
            rf"pip install (.+)/tools/{tool.package}\" --requirement /dev/stdin <<'PINS'\n(.+)\nPINS\n",
            script,
        )
        assert "--require-hashes" in options
        assert versions(listed.splitlines()) == versions([tool.requirement])
    own = pins(ENVS / f"{tool.package}.txt")
    assert own == versions([tool.requirement])
    # what it asks for is in its own folder or beside Herdbook; it is installed without asking
    (program,) = importlib.metadata.distributions(
        name=tool.package, path=[f"{sys.prefix}/tools/{tool.package}"]
    )
    for beside in (environment(step)[1], environment(f"{step}.cuda")[1], pins(ENVS / "herdbook.txt")):
        there = beside | own
        for requirement in map(Requirement, program.requires):
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                assert requirement.specifier.contains(there[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize(("device", "kind"), [("cpu", ""), ("cuda:1", ".cuda")])
def test_the_device_chooses_the_environment(device, kind, monkeypatch):
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import (
        ConfigSettings,
        OutputSettings,
        Quietness,
        ResourceSettings,
        StorageSettings,
    )

    monkeypatch.chdir(ROOT)
    # the workflow tells its steps by the environment, and this process is not the workflow's alone
    with mock.patch.dict(os.environ), SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            snakefile=ROOT / "Snakefile",
            config_settings=ConfigSettings(config={"device": device}),
            storage_settings=StorageSettings(),
        )
        chosen = {rule.name: rule.conda_env for rule in workflow._workflow.rules}
    assert {chosen.pop(target) for target in ("all", "models", "evaluate", "quantize")} == {None}
    steps = dict.fromkeys(chosen, "build") | {
        "evaluate_one": "evaluate",
        "convert": "quantize",
        "imatrix": "quantize",
        "loss": "quantize",
        "reference": "quantize",
        "quantize_one": "quantize",
    }
    assert chosen == {name: f"../envs/{step}{kind}.yaml" for name, step in steps.items()}
    assert all((ROOT / "rules" / path).is_file() for path in chosen.values())


def instructions(kind):
    """Return a Dockerfile's instructions, in order, as (name, the rest)."""
    text = (ENVS / f"Dockerfile{kind}").read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def sections(kind):
    """Return the lines of Apptainer's definition by section; what comes before the first is the header."""
    found = {"": []}
    current = ""
    for line in (ENVS / f"herdbook{kind}.def").read_text(encoding="utf-8").splitlines():
        if line.startswith("%"):
            current = line[1:]
            found[current] = []
        elif line.strip() and not line.strip().startswith("#"):
            found[current].append(line.strip())
    return found


def installed(commands):
    """Return the files of requirements that commands install, by where they go."""
    found = {}
    for words in map(shlex.split, commands):
        if words[:2] == ["pip", "install"]:
            target = words[words.index("--target") + 1] if "--target" in words else ""
            found.setdefault(target, []).extend(
                words[place + 1].removeprefix("/usr/local/src/herdbook/")
                for place, word in enumerate(words)
                if word == "--requirement"
            )
    return found


@pytest.mark.parametrize("kind", ["", ".cuda"])
def test_a_container_installs_the_locked_requirements_and_the_programs(kind):
    commands = [
        command.strip() for name, rest in instructions(kind) if name == "RUN" for command in rest.split("&&")
    ]
    assert installed(commands) == {
        "": [f"envs/herdbook{kind}.txt"],
        f"/opt/herdbook/tools/{CONVERTER.package}": [f"envs/{CONVERTER.package}.txt"],
    }
    # an unpinned name would be neither a file of requirements nor the package itself
    for words in map(shlex.split, commands):
        if words[:2] == ["pip", "install"]:
            loose = [word for word in words[2:] if not word.startswith("-") and "/" not in word]
            assert not loose
            assert ("--requirement" in words) == ("--require-hashes" in words)
    arguments = [rest for name, rest in instructions(kind) if name == "ARG"]
    assert arguments == ([] if kind else ["PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"])


@pytest.mark.parametrize("kind", ["", ".cuda"])
def test_apptainer_does_what_docker_does(kind):
    docker = instructions(kind)
    apptainer = sections(kind)
    runs = [command.strip() for name, rest in docker if name == "RUN" for command in rest.split("&&")]
    post = [line for line in apptainer["post"] if not line.startswith(("set ", "export "))]
    # the lists lie beside the definition, not in envs, and Herdbook is a wheel, not a checkout
    moved = [run.replace("/envs/", "/").removesuffix(" /usr/local/src/herdbook") for run in runs]
    own = [line.removesuffix(" /usr/local/src/herdbook/herdbook-*.whl") for line in post]
    assert [run for run in moved if not run.startswith(("useradd", "install "))] == own
    assert sum(run != line for run, line in zip(runs, post, strict=False)) == 3
    assert {line.split()[1] for line in apptainer["files"]} == {"/usr/local/src/herdbook/"}
    exported = {line.removeprefix("export ") for line in apptainer["post"] if line.startswith("export ")}
    assert exported == {rest for name, rest in docker if name == "ARG"} | {
        line.removeprefix("export ") for line in apptainer["environment"]
    }
    variables = {rest for name, rest in docker if name == "ENV" and not rest.startswith("HOME=")}
    assert {line.removeprefix("export ") for line in apptainer["environment"]} == variables
    base = next(rest for name, rest in docker if name == "FROM")
    name, tag, digest = re.fullmatch(r"(\w+):([\w-]+)@(sha256:[0-9a-f]{64})", base).groups()
    assert name == "debian"
    assert re.fullmatch(r"bookworm-\d{8}-slim", tag)
    assert apptainer[""] == ["Bootstrap: docker", f"From: debian@{digest}"]


@pytest.mark.parametrize("kind", ["", ".cuda"])
def test_a_container_runs_as_nobody_in_particular_and_holds_the_package_alone(kind):
    users = [rest for name, rest in instructions(kind) if name == "USER"]
    assert users == ["1000:1000"]
    assert instructions(kind)[-1] == ("CMD", '["herdbook", "--help"]')
    let_in = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line[:1] == "!"
    ]
    copied = [Path(rest.split()[0]) for name, rest in instructions(kind) if name == "COPY"]
    for path in copied:
        assert (ROOT / path).exists()
        assert any(path.match(pattern) for pattern in let_in), path
    # all that the wheel is made from
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*wheel["packages"], *wheel["force-include"]}
    assert not [path for path in needed if not {Path(path), *Path(path).parents} & set(copied)]


def test_the_catalog_of_workflows_lists_the_deployments_that_there_are():
    content = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    found = {word for word in ("conda", "container") if re.search(rf"^ +{word}:$", text, re.MULTILINE)}
    # without these two, it lists the workflow only among those that it does not tell how to use
    assert (ROOT / "workflow/Snakefile").is_file()
    assert (ROOT / "config/README.md").is_file()
    stack = content["usage"]["software-stack-deployment"]
    assert stack == {"conda": "conda" in found, "apptainer": "container" in found, "apptainer+conda": False}
    assert content["usage"]["report"] == ("report(" in text)
