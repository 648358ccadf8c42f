"""What an image of the whole workflow is built from: Apptainer's definition, the lists of packages, and this Herdbook's wheel."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.tools.installed import ENVIRONMENTS, requirement, root

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFINITIONS = {False: "herdbook.def", True: "herdbook.cuda.def"}  # by whether the image is for NVIDIA GPUs
_PIN = re.compile(r"^([\w.-]+)==([^\s;+]+)", re.MULTILINE | re.ASCII)
_WORKFLOW = "herdbook/workflow/"  # in the wheel; an editable installation has these files elsewhere


def advice() -> str:
    """Return how an image is made and named, for messages."""
    folder, cuda = Path("image"), False
    return (
        f"`herdbook container {folder}`, then `{build_command(folder, cuda=cuda)}`; and name it: "
        f"`--sdm apptainer --config container={image(folder, cuda=cuda)}`"
    )


def image(folder: Path, *, cuda: bool) -> Path:
    """Return the path of the image that is built in a folder."""
    return (folder / DEFINITIONS[cuda]).with_suffix(".sif")


def build_command(folder: Path, *, cuda: bool) -> str:
    """Return the command that builds an image in a folder."""
    built = image(folder, cuda=cuda).name
    return f"(cd {shlex.quote(str(folder))} && apptainer build {built} {DEFINITIONS[cuda]})"


def write(folder: Path, *, cuda: bool) -> list[str]:
    """Write all files that an image is built from.

    Args:
        folder: The folder, which need not exist.
        cuda: Whether the image has torch's CUDA build.

    Returns:
        The names of the files, the definition first and the wheel last.

    Raises:
        StepError: If pip is missing or fails, or if the wheel is not of the Herdbook that runs.
    """
    source, definition = root() / ENVIRONMENTS, DEFINITIONS[cuda]
    folder.mkdir(parents=True, exist_ok=True)
    wheel = _wheel(folder)  # first, since it is what can fail
    lists = [name for name in copied(source / definition) if "*" not in name]
    for name in (definition, *lists):
        shutil.copyfile(source / name, folder / name)
    return [definition, *lists, wheel]


def copied(definition: Path) -> list[str]:
    """Return the names or patterns of the files beside a definition that it copies."""
    _, _, files = definition.read_text(encoding="utf-8").partition("\n%files\n")
    return [line.split()[0] for line in files.partition("\n%")[0].splitlines() if line.strip()]


def versions(folder: Path, *, cuda: bool) -> dict[str, str]:
    """Return the versions in an image, without labels, by the canonical names of distributions.

    Args:
        folder: The folder that was written.
        cuda: As for ``write``.
    """
    lists = [folder / name for name in copied(folder / DEFINITIONS[cuda]) if name.endswith(".txt")]
    pins = [pin for path in lists for pin in _PIN.findall(path.read_text(encoding="utf-8"))]
    return {canonical(name): version for name, version in pins}


def canonical(name: str) -> str:
    """Return the name of a distribution as all its spellings have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _wheel(folder: Path) -> str:
    """Put the wheel of the Herdbook that runs into a folder; return its name."""
    wanted = requirement()
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir", str(folder), wanted]
    done = subprocess.run(
        [*_pip(), "wheel", *options], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        output = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-10:])
        raise StepError(
            f"pip could not make a wheel of {wanted}, from which this Herdbook was installed. The last lines of the output:\n{output}"
        )
    (wheel,) = folder.glob("herdbook-*.whl")
    if other := next(_differing(wheel), None):
        wheel.unlink()
        raise StepError(
            f"the wheel that pip makes of {wanted} is not the Herdbook that runs here: {other} differs, so steps in the image would "
            "refuse the keys of this one. Reinstall Herdbook."
        )
    return wheel.name


def _pip() -> list[str]:
    """Return the start of pip's command line: ours, or the one that uv runs."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip"]
    raise StepError("the wheel of Herdbook is made with pip or uv, and neither is here. Install pip.")


def _differing(wheel: Path) -> Iterator[str]:
    """Yield the modules that a wheel and the package that runs do not have in common."""
    package = Path(__file__).parents[1]
    ours = {
        name: path.read_bytes()
        for path in package.rglob("*.py")
        if not (name := f"herdbook/{path.relative_to(package).as_posix()}").startswith(_WORKFLOW)
    }
    with zipfile.ZipFile(wheel) as archive:
        theirs = {
            name: archive.read(name)
            for name in archive.namelist()
            if name.startswith("herdbook/") and name.endswith(".py") and not name.startswith(_WORKFLOW)
        }
    yield from (name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name))
