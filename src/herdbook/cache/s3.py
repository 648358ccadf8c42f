"""A cache in S3, or a service with the same API: for a team whose machines share no file system."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from herdbook.cache.store import WHERE, StoredFile
from herdbook.errors import CacheError
from herdbook.files import sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEME = "s3://"
# The errors of a conditional write whose name is taken.
TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")
MISSING = ("NoSuchKey", "404", "NotFound")
CHUNK_BYTES = 1 << 20
CONNECT_S = 10


class S3Store:
    """A store in a bucket.

    The client finds endpoint and credentials as all AWS programs do: from the environment, profiles or roles. Access is
    left to the bucket's policy: gated entries have a prefix of their own, and are stored only if a setting names their source.

    Args:
        place: ``s3://bucket`` or ``s3://bucket/prefix``.
    """

    at_once = 16
    private = False

    def __init__(self, place: str) -> None:
        self._bucket, _, prefix = place.removeprefix(SCHEME).strip("/").partition("/")
        self.place = f"{SCHEME}{self._bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        if not self._bucket:
            raise CacheError(f"{place}: contains no bucket name; expected s3://bucket/prefix")
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise CacheError(
                f"{place}: needs the client for S3: pip install 'herdbook[s3]', in the environment that Snakemake runs in"
            ) from error
        # Contents are compared with our own SHA-256; not all servers support the client's checksums.
        # An address behind which nobody listens is given up after five times this, not after five minutes.
        config = Config(
            connect_timeout=CONNECT_S,
            retries={"mode": "standard", "max_attempts": 5},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=2 * self.at_once,
        )
        with self._errors("creating the client"):
            try:
                self._client = boto3.client("s3", config=config)
            # botocore's own checks of addresses, files and settings
            except (ValueError, OSError, TypeError) as error:
                raise CacheError(self._unusable(error, "creating the client")) from error

    def check(self, *, by_writing: bool = True) -> None:
        """Check that the bucket exists and, if an object may be written for that, is writable.

        A web server that answers every request, such as a login page, has no bucket: what is written must come back.
        """
        probe = f"probe-{os.urandom(8).hex()}"
        if not by_writing:
            # an object that is missing is no error, a bucket is
            if self.read(probe) is not None:
                raise CacheError(self._unusable("it has an object that was never written", probe))
            return
        with self._errors("writing a test object"):
            self._client.put_object(Bucket=self._bucket, Key=self._key(probe), Body=probe.encode())
            response = self._client.get_object(Bucket=self._bucket, Key=self._key(probe))
            if response["Body"].read() != probe.encode():
                raise CacheError(self._unusable("an object has another content than was written", probe))
            self._client.delete_object(Bucket=self._bucket, Key=self._key(probe))

    def exists(self, name: str) -> bool:
        """Return whether a file exists and we may read it."""
        with self._errors(name):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._key(name))
            except self._client.exceptions.ClientError as error:
                if _code(error) in {*MISSING, "403", "AccessDenied"}:
                    return False
                raise
        return True

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if it does not exist or we may not read it."""
        with self._errors(name):
            try:
                response = self._client.get_object(Bucket=self._bucket, Key=self._key(name))
            except self._client.exceptions.ClientError as error:
                if _code(error) in {*MISSING, "AccessDenied"}:
                    return None
                raise
            return bytes(response["Body"].read())

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless its name is taken; return whether it was written."""
        with self._errors(name):
            try:
                self._client.put_object(
                    Bucket=self._bucket, Key=self._key(name), Body=content, IfNoneMatch="*"
                )
            except self._client.exceptions.ClientError as error:
                if _code(error) in TAKEN:
                    return False
                raise
        return True

    def write(self, name: str, content: bytes) -> None:
        """Write a small file; replace one of that name."""
        with self._errors(name):
            self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=content)

    def put(self, source: Path, name: str) -> str | None:
        """Store a file, a large one in several parts at once, and return its SHA-256."""
        sha256 = sha256_file(source)
        with self._errors(name):
            self._client.upload_file(str(source), self._bucket, self._key(name))
        return sha256

    def get(self, name: str, target: Path) -> str:
        """Write a stored file to ``target``; return its SHA-256."""
        if name.startswith("gated/"):
            target.touch(mode=0o600)
        with self._errors(name):
            try:
                response = self._client.head_object(Bucket=self._bucket, Key=self._key(name))
                with target.open("wb") as file:
                    self._client.download_fileobj(self._bucket, self._key(name), file)
            except self._client.exceptions.ClientError as error:
                if _code(error) in MISSING:
                    raise FileNotFoundError(name) from error
                raise
        if target.stat().st_size != response["ContentLength"]:
            raise CacheError(f"{self.place}/{name}: the download is incomplete. Try again.")
        return sha256_file(target)

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 of a file, read in full; None if it does not exist."""
        import hashlib

        digest = hashlib.sha256()
        with self._errors(name):
            try:
                response = self._client.get_object(Bucket=self._bucket, Key=self._key(name))
            except self._client.exceptions.ClientError as error:
                if _code(error) in MISSING:
                    return None
                raise
            for piece in response["Body"].iter_chunks(CHUNK_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def names(self, below: str) -> Iterator[StoredFile]:
        """Yield the files below a name."""
        with self._errors(below):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(f"{below}/")):
                for item in page.get("Contents", ()):
                    name = item["Key"].removeprefix(self._prefix)
                    yield StoredFile(name, item["Size"], item["LastModified"].timestamp())

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with self._errors(name):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(name))

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}"

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn the client's errors into CacheError.

        Args:
            what: What is accessed or done, for the message.
        """
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise CacheError(self._unusable(error, what)) from error

    def _unusable(self, error: Exception | str, what: str) -> str:
        return (
            f"{self.place}: the cache cannot be used: {error} ({what}). Check the bucket's name, AWS_ENDPOINT_URL "
            f"(https://...) if it is not Amazon's, and your credentials; or name another cache: {WHERE}"
        )


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
