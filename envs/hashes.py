"""Write the locks once more with the digests of the files that pip may install: `requirements.lock` -> `requirements.hashes.lock`.

Run by `make lock`. uv asks the package index for each pinned version's files; kept are the wheels for Python 3.11 on Linux and macOS,
and the source of a package without such a wheel. torch's build for processors comes from another index, so pip is asked for it.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename

HERE = Path(__file__).parent
UV = HERE.parent / ".venv" / "tools" / "uv" / "bin" / "uv"
LOCKS = ("requirements.lock", "requirements.cuda.lock")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PYTHON = 11  # of Python 3
HEAD = "# {lock} with the digests of what pip may install. Made by `make lock`.\n"


def hashed(lock: Path) -> Path:
    """Return where a lock's pins with digests are."""
    return lock.with_name(lock.name.replace(".lock", ".hashes.lock"))


def digests(lock: Path) -> dict[str, list[str]]:
    """Return the SHA-256 of each file of the pinned versions that may be installed, by canonical names."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "pylock.toml"
        command = [
            UV,
            "pip",
            "compile",
            lock,
            "--no-deps",
            "--quiet",
            "--universal",
            "--python-version",
            "3.11",
        ]
        subprocess.run([*command, "--format", "pylock.toml", "--output-file", answer], check=True)
        packages = tomllib.loads(answer.read_text(encoding="utf-8"))["packages"]
    return {canonicalize_name(package["name"]): _files(package) for package in packages}


def _files(package: dict) -> list[str]:
    """Return the digests of a package's files that may be installed, sorted."""
    wheels = [
        wheel["hashes"]["sha256"]
        for wheel in package.get("wheels", [])
        if _fits(wheel["url"].rpartition("/")[2])
    ]
    return sorted(wheels) or [package["sdist"]["hashes"]["sha256"]]


def _fits(file: str) -> bool:
    """Return whether Python 3.11 can install a wheel on Linux with glibc or on macOS, on x86-64 or ARM."""
    _, _, _, tags = parse_wheel_filename(file.replace("%2B", "+"))
    return any(_python(tag.interpreter, tag.abi) and _platform(tag.platform) for tag in tags)


def _python(interpreter: str, abi: str) -> bool:
    if interpreter in {"py3", f"py3{PYTHON}", f"cp3{PYTHON}"}:
        return abi in {"none", "abi3", f"cp3{PYTHON}"}
    oldest = interpreter.removeprefix("cp3")
    return abi == "abi3" and oldest.isdecimal() and int(oldest) <= PYTHON


def _platform(platform: str) -> bool:
    return platform == "any" or (
        platform.startswith(("manylinux", "linux", "macosx"))
        and platform.endswith(("x86_64", "64", "universal2"))
        and not platform.endswith(("ppc64", "riscv64", "loongarch64"))
    )


def of_the_cpu(pin: str) -> list[str]:
    """Return the digest of torch's build for processors, as pip finds it on this machine."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--ignore-installed",
        "--no-deps",
    ]
    more = ["--report", "-", "--extra-index-url", CPU_INDEX, f"{pin}+cpu"]
    report = subprocess.run([*command, *more], check=True, capture_output=True, text=True).stdout
    return [
        found["download_info"]["archive_info"]["hashes"]["sha256"] for found in json.loads(report)["install"]
    ]


def main() -> None:
    """Write the pins with digests of both locks."""
    for name in LOCKS:
        lock = HERE.parent / name
        found = digests(lock)
        lines = []
        for pin in lock.read_text(encoding="utf-8").splitlines():
            if not pin or pin.startswith("#"):
                continue
            package = canonicalize_name(pin.partition("==")[0])
            files = found[package]
            if package == "torch" and name == LOCKS[0]:
                files = [*files, *of_the_cpu(pin)]
            lines.append(" ".join([pin, *(f"--hash=sha256:{sha256}" for sha256 in files)]))
        hashed(lock).write_text(
            HEAD.format(lock=name) + "".join(f"{line}\n" for line in lines), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
