"""Programs of others that run in a process of their own, apart from our packages: llama.cpp's converter, mergekit.

Each is a PyPI package that lives in a conda environment whose ``bin`` is on the PATH, or in a folder of its own under
``sys.prefix``, where it finds torch and transformers in ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Tool:
    """A program of others.

    Args:
        package: Its name on PyPI.
        version: The version that is wanted; no other is run.
        executable: What it is called on the PATH.
        module: What ``python -m`` runs.
        with_it: What else goes into its folder: what it needs and our own dependencies lack.
    """

    package: str
    version: str
    executable: str
    module: str
    with_it: str = ""

    @property
    def requirements(self) -> str:
        """What pip installs into its folder."""
        return f"{self.package}=={self.version} {self.with_it}".strip()

    @property
    def install(self) -> str:
        """The command that installs it."""
        return (
            f"{sys.executable} -m pip install --no-deps --target {sys.prefix}/tools/{self.package} "
            f"{self.requirements}"
        )

    def find(self) -> tuple[list[str], dict[str, str]]:
        """Find it: on the PATH (a conda environment that has it), else under ``sys.prefix``.

        Returns:
            The start of a command line, and the environment to run it in.

        Raises:
            StepError: If there is none of the version that is wanted, with the command to install it.
        """
        environment = dict(os.environ)
        # a program among machines without network must not wait for it, and none may decide what comes out
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONNOUSERSITE": "1"}
        executable = shutil.which(self.executable)
        if executable is not None:
            prefix = Path(executable).resolve().parent.parent
            if self._is_installed(prefix.glob("lib/python*/site-packages")):
                environment.pop("PYTHONPATH", None)
                return [executable], environment
        overlay = Path(sys.prefix) / "tools" / self.package
        if self._is_installed([overlay]):
            inherited = os.environ.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join([str(overlay)] + ([inherited] if inherited else []))
            # -P: nothing may be imported from the folder it runs in
            return [sys.executable, "-P", "-m", self.module], environment
        raise StepError(
            f"the program {self.package} {self.version} is not installed. Install it with:\n  {self.install}"
        )

    def run(self, arguments: list[str], folder: Path, log: Callable[[str], None] | None = None) -> None:
        """Run it in a folder and pass on what it says.

        Raises:
            StepError: If it is not installed, or fails; its last lines are quoted.
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
        ) as process:
            for line in process.stdout or ():
                if log:
                    log(line.rstrip("\n"))
                tail = [*tail[-9:], line.rstrip()]
        if process.returncode:
            said = "\n".join(f"  {line}" for line in tail)
            raise StepError(f"{self.package} ended with status {process.returncode}. It said last:\n{said}")

    def _is_installed(self, places: Any) -> bool:
        """Tell whether one of these folders of packages holds it in the version that is wanted."""
        distribution = f"{self.package.replace('-', '_')}-{self.version}.dist-info"
        return any((place / distribution).is_dir() for place in places)
