"""The cache itself: entries, each a result under its key, with the digests of its files and who used it.

An entry is a name in a store:

    open/<name>/<sha256 of a file>    its files, each under its digest
    open/<name>/entry.json            what they are; written last, once, and never changed: without it there is no entry
    open/<name>/uses/<release>        empty; when it was written, the release last put or took this entry

``gated`` stands for ``open`` where something is made of a gated source. Names follow from keys (``Product.entry``), and
files are called by their digests, so several builds may put the same thing at once: who comes first makes the entry, and
where another's bytes differ (another kind of processor made them), both are there and the entry names the first's.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.cache.folder import FolderStore
from herdbook.cache.s3 import SCHEME, S3Store
from herdbook.errors import CacheError, DigestMismatchError
from herdbook.files import dump_json, sha256_file
from herdbook.settings import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from herdbook.cache.product import Product
    from herdbook.cache.store import Store, StoredFile

ENTRY = "entry.json"
USES = "uses"
PLACES = ("open", "gated")
DAY_S = 86400
LEFT_OVER_S = DAY_S  # what has no entry after so long, nobody is still putting


@dataclass(frozen=True)
class CacheEntry:
    """An entry of a cache.

    Args:
        name: Its name in the store.
        kind: What it is, see ``Product``.
        id: What people call it, where it was first made.
        files: By what each file is, its SHA-256 and its size in bytes.
        uses: When each release last put or took it, in seconds since 1970.
        written: When it was made.
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
        """Whether it is made of something gated."""
        return self.name.startswith("gated/")


class Cache:
    """Results of all builds that share a place.

    Args:
        store: The place.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def check(self) -> None:
        """Check that the place is there, and can be written to. Raises CacheError."""
        self.store.check()

    def contained(self, products: Iterable[Product]) -> list[Product]:
        """Return those of some products that are here."""
        asked = list(products)
        with ThreadPoolExecutor(self.store.at_once) as pool:
            found = pool.map(lambda product: self.store.exists(f"{product.entry}/{ENTRY}"), asked)
            return [product for product, there in zip(asked, found, strict=True) if there]

    def put(self, product: Product, release: str) -> bool:
        """Put a product here that was made; say whether it was new.

        Args:
            product: The product, all of whose files are there.
            release: Whom it was made for.

        Raises:
            CacheError: If the place does not take it.
            DigestMismatchError: If a file is not what its record says. Nothing is put then.
        """
        new = not self.store.exists(f"{product.entry}/{ENTRY}")
        if new:
            said = _recorded(product)
            files = {}
            for role, path in product.files.items():
                sha256 = said.get(role) or sha256_file(path)
                name = f"{product.entry}/{sha256}"
                found = self.store.put(path, name)
                if found not in {None, sha256}:
                    self.store.remove(name)
                    raise DigestMismatchError(
                        str(path), sha256, str(found), "It was damaged: delete it and build it again."
                    )
                files[role] = {"sha256": sha256, "size_bytes": path.stat().st_size}
            about = {"kind": product.kind, "id": product.id, "key": product.key, "files": files}
            new = self.store.create(f"{product.entry}/{ENTRY}", dump_json(about).encode())
        self._use(product.entry, release)
        return new

    def restore(self, product: Product, path: Path, release: str) -> None:
        """Take one file of a product over. It is compared with its digest while it is read.

        Args:
            product: The product.
            path: Which of its files, where it shall be.
            release: Who takes it.

        Raises:
            CacheError: If it is gone.
            DigestMismatchError: If it was damaged. The entry is removed, so that the next build makes it again.
        """
        entry = self._read(product.entry)
        if entry is None:
            raise CacheError(f"{product.id}: is gone from the cache since this build began. Run again.")
        role = next(role for role, place in product.files.items() if place == path)
        sha256, _ = entry.files.get(role, ("a digest", 0))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            try:
                found = self.store.get(f"{entry.name}/{sha256}", temporary)
            except FileNotFoundError:
                found = "no file"
            if found != sha256:
                self.remove(entry.name)
                raise DigestMismatchError(
                    f"{product.id} in the cache",
                    sha256,
                    found,
                    "It was damaged and is removed from the cache. Run again: the build makes it anew.",
                )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)  # also left over if both were the same hard link already
        self._use(entry.name, release)

    def entries(self) -> Iterator[CacheEntry]:
        """Yield all entries that we may read, and what is left over of some that were never made."""
        held: dict[str, list[StoredFile]] = defaultdict(list)
        for place in PLACES:
            for item in self.store.names(place):
                held["/".join(item.name.split("/")[:2])].append(item)
        with ThreadPoolExecutor(self.store.at_once) as pool:
            yield from (entry for entry in pool.map(self._look, held, held.values()) if entry)

    def left_over(self) -> Iterator[StoredFile]:
        """Yield files that belong to no entry, and nobody is still putting."""
        named: dict[str, set[str]] = {}
        for place in PLACES:
            for item in self.store.names(place):
                place_of = "/".join(item.name.split("/")[:2])
                if place_of not in named:
                    entry = self._read(place_of)
                    own = {sha256 for sha256, _ in entry.files.values()} if entry else set()
                    named[place_of] = own | ({ENTRY, USES} if entry else set())
                inside = item.name.removeprefix(f"{place_of}/").partition("/")[0]
                if inside not in named[place_of] and time.time() - item.written > LEFT_OVER_S:
                    yield item

    def remove(self, name: str) -> None:
        """Remove an entry. Who has taken files over keeps them."""
        self.store.remove(f"{name}/{ENTRY}")  # first: what has no entry, nobody takes
        for item in list(self.store.names(name)):
            self.store.remove(item.name)

    def damaged(self, entry: CacheEntry) -> dict[str, str]:
        """Read an entry's files in full; return those that are not what they were: by what each is, why."""
        wrong = {}
        for role, (sha256, _) in entry.files.items():
            found = self.store.sha256(f"{entry.name}/{sha256}")
            if found != sha256:
                wrong[role] = "is gone" if found is None else f"now has the digest {found}, not {sha256}"
        return wrong

    def _use(self, name: str, release: str) -> None:
        try:
            self.store.write(f"{name}/{USES}/{release}", b"")
        except CacheError:  # another's entry, which we may read: its last use is not worth a failure
            return

    def _look(self, name: str, held: list[StoredFile]) -> CacheEntry | None:
        entry = self._read(name)
        if entry is None:
            return None
        uses = {
            item.name.rpartition("/")[2]: item.written
            for item in held
            if item.name.startswith(f"{name}/{USES}/")
        }
        written = next((item.written for item in held if item.name == f"{name}/{ENTRY}"), 0.0)
        return CacheEntry(name, entry.kind, entry.id, entry.files, uses, written)

    def _read(self, name: str) -> CacheEntry | None:
        content = self.store.read(f"{name}/{ENTRY}")
        if content is None:
            return None
        try:
            about: dict[str, Any] = json.loads(content)
            files = {role: (item["sha256"], item["size_bytes"]) for role, item in about["files"].items()}
            return CacheEntry(name, about["kind"], about["id"], files, {}, 0.0)
        except (ValueError, KeyError, TypeError, AttributeError):
            return CacheEntry(name, "damaged", name.rpartition("/")[2][:12], {}, {}, 0.0)


def configured(place: str | None = None) -> Cache | None:
    """Return the cache that is configured; None if there is none.

    Args:
        place: A folder, or ``s3://bucket/prefix``; ``$HERDBOOK_CACHE`` if nothing is said.

    Raises:
        CacheError: If it is S3 and the client for that is not installed.
    """
    place = place or CACHE.value
    if not place:
        return None
    return Cache(S3Store(place) if place.startswith(SCHEME) else FolderStore(Path(place).expanduser()))


def _recorded(product: Product) -> dict[str, str]:
    """Return digests that were computed while a file was written, so that it is not read again for them."""
    if "record" not in product.files:
        return {}
    record = json.loads(product.files["record"].read_text(encoding="utf-8"))
    large = next(role for role in product.files if role != "record")
    return {large: record["file"]["sha256"]}
