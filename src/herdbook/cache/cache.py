"""The cache itself: entries, each a result under its key, with the digests of its files and who used it.

An entry is a name in a store:

    open/<name>/<sha256 of a file>    its files, each under its digest
    open/<name>/entry.json            what they are; written last, once, and never changed: without it the entry does not exist
    open/<name>/uses/<release>        empty; its modification time is when the release last saved or restored the entry
    open/<name>/spent/<release>       what its job took, if it was made for the release on a machine that shares no disk

Results that descend from a gated source are below ``gated`` instead of ``open``. Names follow from keys
(``Product.entry``), and files are named by their digests, so several builds may save the same result at once: the first
one writes the entry. If another build's bytes differ (another kind of processor made them), both files are stored, and the
entry names those of the first build.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import jsonio, limits
from herdbook.cache.folder import FolderStore
from herdbook.cache.s3 import SCHEME, S3Store
from herdbook.errors import CacheError, DigestMismatchError
from herdbook.files import dump_json, scratch, sha256_file
from herdbook.settings import CACHE, GATED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from herdbook.cache.product import Product
    from herdbook.cache.store import Store, StoredFile

ENTRY = "entry.json"
USES, SPENT = "uses", "spent"
PLACES = ("open", "gated")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
DAY_S = 86400
LEFT_OVER_S = DAY_S  # a file without an entry that is older than this does not belong to a running build


@dataclass(frozen=True)
class CacheEntry:
    """An entry of a cache.

    Args:
        name: Its name in the store.
        kind: What it is, see ``Product``.
        id: The job's id in the build that saved it.
        files: SHA-256 and size in bytes of each file, by the file's role (``product.ROLES``).
        uses: When each release last saved or restored it, in seconds since 1970.
        written: When it was written, likewise.
    """

    name: str
    kind: str
    id: str
    files: dict[str, tuple[str, int]]
    uses: dict[str, float]
    written: float

    @property
    def size_bytes(self) -> int:
        """Size of its files in bytes."""
        return sum(size for _, size in self.files.values())

    @property
    def used(self) -> float:
        """When it was last used, in seconds since 1970."""
        return max([self.written, *self.uses.values()])

    @property
    def gated(self) -> bool:
        """Whether it descends from a gated source."""
        return self.name.startswith("gated/")


class Cache:
    """Results of all builds that share a store.

    Args:
        store: Where the files are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def check(self, *, by_writing: bool = True) -> None:
        """Check that the store exists and, if something may be written for that, is writable. Raises CacheError."""
        self.store.check(by_writing=by_writing)

    def withheld(self, product: Product) -> tuple[str, ...]:
        """Return the gated repositories because of which a product is not stored: whoever may read a bucket reads all of it.

        Raises:
            CacheError: If the setting that names repositories means nothing.
        """
        if self.store.private or not product.gated:
            return ()
        try:
            allowed = GATED.parsed or ()
        except ValueError as error:
            raise CacheError(f"{GATED.key} (${GATED.variable}): {error}") from error
        return tuple(name for name in product.gated if name not in allowed)

    def contained(self, products: Iterable[Product]) -> list[Product]:
        """Return those of the products that the cache contains, in their order."""
        candidates = list(products)
        with ThreadPoolExecutor(self.store.at_once) as pool:
            exists = pool.map(lambda product: self.store.exists(f"{product.entry}/{ENTRY}"), candidates)
            return [product for product, is_stored in zip(candidates, exists, strict=True) if is_stored]

    def put(self, product: Product, release: str) -> bool:
        """Save a product that was built; return whether it was new.

        Args:
            product: The product; all of its files exist.
            release: The release that it was built for.

        Raises:
            CacheError: If the store does not accept it.
            DigestMismatchError: If a file differs from its record. The entry is not written then.
        """
        new = not self.store.exists(f"{product.entry}/{ENTRY}")
        if new:
            recorded = _recorded_digests(product)
            files = {}
            for role, path in product.files.items():
                sha256 = recorded.get(role) or sha256_file(path)
                name = f"{product.entry}/{sha256}"
                stored_sha256 = self.store.put(path, name)
                if stored_sha256 not in {None, sha256}:
                    self.store.remove(name)
                    raise DigestMismatchError(
                        str(path),
                        sha256,
                        str(stored_sha256),
                        "The file is damaged: delete it and rebuild it.",
                    )
                files[role] = {"sha256": sha256, "size_bytes": path.stat().st_size}
            about = {"kind": product.kind, "id": product.id, "key": product.key, "files": files}
            new = self.store.create(f"{product.entry}/{ENTRY}", dump_json(about).encode())
        self._use(product.entry, release)
        return new

    def restore(self, product: Product, path: Path, release: str) -> dict[Path, str]:
        """Restore one file of a product. It is compared with its digest while it is read.

        Args:
            product: The product.
            path: Which of its files, as a path in the results.
            release: The release that it is restored for.

        Returns:
            SHA-256 of each of the product's files, by path.

        Raises:
            CacheError: If the entry no longer exists.
            DigestMismatchError: If the file is damaged. The entry is removed, so that the next build rebuilds it.
        """
        entry = self._read(product.entry)
        if entry is None:
            raise CacheError(
                f"{product.id}: was removed from the cache since this build began. Run the build again."
            )
        role = next(role for role, file in product.files.items() if file == path)
        sha256, _ = entry.files.get(role, ("a digest", 0))
        with scratch(path) as folder:
            restored = folder / path.name
            try:
                restored_sha256 = self.store.get(f"{entry.name}/{sha256}", restored)
            except FileNotFoundError:
                restored_sha256 = "no file"
            if restored_sha256 != sha256:
                self.remove(entry.name)
                raise DigestMismatchError(
                    f"{product.id} in the cache",
                    sha256,
                    restored_sha256,
                    "The entry was damaged and has been removed from the cache. Run the build again to rebuild it.",
                )
            restored.replace(path)
        self._use(entry.name, release)
        return {file: entry.files[role][0] for role, file in product.files.items() if role in entry.files}

    def note_spent(self, product: Product, release: str, content: bytes) -> None:
        """Keep the note of what a product's job took for a release; one that the store does not accept is lost."""
        with suppress(CacheError):
            self.store.write(f"{product.entry}/{SPENT}/{release}", content)

    def spent(self, product: Product, release: str) -> bytes | None:
        """Return the note of what a product's job took for a release; None if there is none."""
        with suppress(CacheError):
            return self.store.read(f"{product.entry}/{SPENT}/{release}")
        return None

    def entries(self) -> Iterator[CacheEntry]:
        """Yield all entries that we may read."""
        files: dict[str, list[StoredFile]] = defaultdict(list)
        for place in PLACES:
            for file in self.store.names(place):
                files["/".join(file.name.split("/")[:2])].append(file)
        with ThreadPoolExecutor(self.store.at_once) as pool:
            yield from (entry for entry in pool.map(self._describe, files, files.values()) if entry)

    def left_over(self) -> Iterator[StoredFile]:
        """Yield the files that belong to no entry and are too old to belong to a build that is still saving."""
        expected: dict[str, set[str]] = {}  # by entry: the names inside it
        for place in PLACES:
            for file in self.store.names(place):
                entry_name = "/".join(file.name.split("/")[:2])
                if entry_name not in expected:
                    entry = self._read(entry_name)
                    digests = {sha256 for sha256, _ in entry.files.values()} if entry else set()
                    expected[entry_name] = digests | ({ENTRY, USES, SPENT} if entry else set())
                inside = file.name.removeprefix(f"{entry_name}/").partition("/")[0]
                if inside not in expected[entry_name] and time.time() - file.written > LEFT_OVER_S:
                    yield file

    def remove(self, name: str) -> None:
        """Remove an entry. Files that were restored from it stay where they are."""
        self.store.remove(f"{name}/{ENTRY}")  # first: files without an entry are not restored
        for file in list(self.store.names(name)):
            self.store.remove(file.name)

    def damaged(self, entry: CacheEntry) -> dict[str, str]:
        """Read an entry's files in full; return what is wrong with each damaged one, by its role."""
        damages = {}
        for role, (sha256, _) in entry.files.items():
            stored_sha256 = self.store.sha256(f"{entry.name}/{sha256}")
            if stored_sha256 is None:
                damages[role] = "is missing"
            elif stored_sha256 != sha256:
                damages[role] = f"now has the digest {stored_sha256}, not {sha256}"
        return damages

    def _use(self, name: str, release: str) -> None:
        try:
            self.store.write(f"{name}/{USES}/{release}", b"")
        except (
            CacheError
        ):  # another user's entry, which is read-only for us: noting the use is not worth a failure
            return

    def _describe(self, name: str, files: list[StoredFile]) -> CacheEntry | None:
        entry = self._read(name)
        if entry is None:
            return None
        uses = {
            file.name.rpartition("/")[2]: file.written
            for file in files
            if file.name.startswith(f"{name}/{USES}/")
        }
        written = next((file.written for file in files if file.name == f"{name}/{ENTRY}"), 0.0)
        return CacheEntry(name, entry.kind, entry.id, entry.files, uses, written)

    def _read(self, name: str) -> CacheEntry | None:
        content = self.store.read(f"{name}/{ENTRY}")
        if content is None:
            return None
        try:
            about = jsonio.load_object(content, limits.DOCUMENT)
            files = {role: (item["sha256"], item["size_bytes"]) for role, item in about["files"].items()}
            return CacheEntry(name, about["kind"], about["id"], files, {}, 0.0)
        except (ValueError, KeyError, TypeError, AttributeError):
            return CacheEntry(name, "damaged", name.rpartition("/")[2][:12], {}, {}, 0.0)


def configured(place: str | None = None) -> Cache | None:
    """Return the configured cache; None if no cache is configured.

    Args:
        place: A folder, or ``s3://bucket/prefix`` (default: ``$HERDBOOK_CACHE``).

    Raises:
        CacheError: If it is of neither form, or if it is S3 and the client for S3 is not installed.
    """
    place = place or CACHE.value
    if not place:
        return None
    if _URL.match(place) and not place.startswith(SCHEME):
        raise CacheError(f"{place}: a cache is in a folder or in s3://bucket/prefix, and this is neither")
    return Cache(S3Store(place) if place.startswith(SCHEME) else FolderStore(Path(place).expanduser()))


def _recorded_digests(product: Product) -> dict[str, str]:
    """Return the digests that were computed while a file was written, which saves a second read."""
    if "record" not in product.files:
        return {}
    record = json.loads(product.files["record"].read_text(encoding="utf-8"))
    large = next(role for role in product.files if role != "record")
    return {large: record["file"]["sha256"]}
