"""External programs, which run in a process of their own, apart from our packages.

Each is a PyPI package, installed in a conda environment whose ``bin`` is on the PATH, or in a folder of its own under
``sys.prefix``, from which it uses our torch and transformers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.tools.installed import ENVIRONMENTS, root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class Tool:
    """An external program.

    Args:
        package: Its name on PyPI.
        version: The required version; no other is run.
        executable: Its name on the PATH.
        module: What ``python -m`` runs.
    """

    package: str
    version: str
    executable: str
    module: str

    @property
    def requirement(self) -> str:
        """The requirement that pip installs; what it needs besides, our own dependencies include."""
        return f"{self.package}=={self.version}"

    @property
    def folder(self) -> Path:
        """Its folder below ``sys.prefix``."""
        return Path(sys.prefix) / "tools" / self.package

    @property
    def installation(self) -> str:
        """The command that installs it."""
        return f"{sys.executable} -m herdbook install {self.package}"

    def install(self) -> None:
        """Install it into its folder, with pip or uv: the pinned file and no other.

        Raises:
            StepError: If neither is here, or it fails; the message contains its last lines.
        """
        options = ["--quiet", "--no-deps", "--require-hashes", "--target", str(self.folder)]
        options += ["--requirement", str(root() / ENVIRONMENTS / f"{self.package}.txt")]
        if find_spec("pip"):
            command = [
                sys.executable,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "--upgrade",
                *options,
            ]
        elif uv := shutil.which("uv"):
            command = [uv, "pip", "install", "--python", sys.executable, *options]
        else:
            raise StepError(f"{self.package} is installed with pip or uv, and neither is here. Install pip.")
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            output = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-10:])
            raise StepError(f"{self.package} could not be installed. The last lines of the output:\n{output}")

    def find(self) -> tuple[list[str], dict[str, str]]:
        """Find it: on the PATH (a conda environment that has it), else under ``sys.prefix``.

        Returns:
            The start of a command line, and the environment to run it in.

        Raises:
            StepError: If the required version is not installed; the message contains the command to install it.
        """
        environment = dict(os.environ)
        # On a machine without network the program must not wait for one, and elsewhere the network must not affect its result.
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONNOUSERSITE": "1"}
        executable = shutil.which(self.executable)
        if executable is not None:
            prefix = Path(executable).resolve().parent.parent
            if self._is_installed(prefix.glob("lib/python*/site-packages")):
                environment.pop("PYTHONPATH", None)
                return [executable], environment
        if self._is_installed([self.folder]):
            inherited = os.environ.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join(
                [str(self.folder)] + ([inherited] if inherited else [])
            )
            # -P: nothing is imported from its working folder
            return [sys.executable, "-P", "-m", self.module], environment
        raise StepError(
            f"the program {self.package} {self.version} is not installed. Install it with:\n  {self.installation}"
        )

    def run(self, arguments: list[str], folder: Path, log: Callable[[str], None] | None = None) -> None:
        """Run it in a folder.

        Args:
            arguments: Its command line, without its name.
            folder: Its working folder.
            log: Called with each line of its output.

        Raises:
            StepError: If it is not installed, or fails; the message contains its last lines.
        """
        command, environment = self.find()
        tail: list[str] = []
        with subprocess.Popen(
            [*command, *arguments],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            close_fds=False,  # a scratch folder that it writes to stays locked, even if this process is killed
        ) as process:
            for line in process.stdout or ():
                if log:
                    log(line.rstrip("\n"))
                tail = [*tail[-9:], line.rstrip()]
        if process.returncode:
            output = "\n".join(f"  {line}" for line in tail)
            raise StepError(
                f"{self.package} failed with status {process.returncode}. Its last lines:\n{output}"
            )

    def _is_installed(self, folders: Iterable[Path]) -> bool:
        """Return whether one of these folders of packages contains the required version."""
        distribution = f"{self.package.replace('-', '_')}-{self.version}.dist-info"
        return any((folder / distribution).is_dir() for folder in folders)
