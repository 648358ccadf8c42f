"""The S3 gateway of the Hub's buckets, on this machine: what its documentation lists, and nothing else of S3.

Path style below a namespace; ListObjectsV2 only; no user metadata; preconditions for PutObject alone; bodies that are framed
for trailing checksums are not understood; keys may not look like paths that lead elsewhere.
https://huggingface.co/docs/hub/storage-buckets-s3
"""

import hashlib
import re
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

NAMESPACE, BUCKET = "herd", "cache"
BAD_KEY = re.compile(r"^/|/$|//|\.\./|^\./|\.\.$|[\\\0]")
PAGE = 7  # objects on a page of a listing


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Answer any request."""
        url = urlsplit(self.path)
        self.query = {name: value[0] for name, value in parse_qs(url.query, keep_blank_values=True).items()}
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        space, _, rest = unquote(url.path).lstrip("/").partition("/")
        bucket, _, self.key = rest.partition("/")
        if self.headers["Host"] != f"127.0.0.1:{self.server.server_port}" or space != NAMESPACE:
            return self.refuse(404, "NoSuchNamespace")  # a bucket as a host name comes here, too
        if not self.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 Credential=HFAK"):
            return self.refuse(403, "AccessDenied")
        if "aws-chunked" in self.headers.get("Content-Encoding", "") or "X-Amz-Trailer" in self.headers:
            return self.refuse(501, "NotImplemented")
        if bucket != BUCKET:
            return self.refuse(404, "NoSuchBucket")
        if not self.key:
            return self.list()
        if BAD_KEY.search(self.key):
            return self.refuse(400, "InvalidArgument")
        with self.server.lock:
            return getattr(self, f"{self.command.lower()}_object")()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def list(self):
        if self.command != "GET" or self.query.get("list-type") != "2":
            return self.refuse(501, "NotImplemented")
        prefix, after = self.query.get("prefix", ""), self.query.get("continuation-token", "")
        found = sorted(key for key in self.server.objects if key.startswith(prefix) and key > after)
        page = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.objects[key])}</Size>"
            f"<LastModified>{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
            for key in found[:PAGE]
        )
        more = (
            f"<NextContinuationToken>{escape(found[PAGE - 1])}</NextContinuationToken>"
            if found[PAGE:]
            else ""
        )
        return self.answer(
            200,
            f"<ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{page}</ListBucketResult>",
        )

    def get_object(self):
        content = self.server.objects.get(self.key)
        if content is None:
            return self.refuse(404, "NoSuchKey")
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not span:
            return self.answer(200, content)
        start, stop = int(span[1]), min(int(span[2] or len(content)) + 1, len(content))
        about = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        return self.answer(206, content[start:stop], about)

    head_object = get_object

    def put_object(self):
        if "uploadId" in self.query:
            self.server.parts[self.query["uploadId"]][int(self.query["partNumber"])] = self.content
        elif self.headers.get("If-None-Match") == "*" and self.key in self.server.objects:
            return self.refuse(412, "PreconditionFailed")
        else:
            self.server.objects[self.key] = self.content
        return self.answer(200, b"", {"ETag": f'"{hashlib.sha256(self.content).hexdigest()}"'})

    def post_object(self):
        if "uploads" in self.query:
            upload = str(len(self.server.parts))
            self.server.parts[upload] = {}
            return self.answer(200, f"<R><UploadId>{upload}</UploadId></R>")
        parts = self.server.parts[self.query["uploadId"]]
        self.server.objects[self.key] = b"".join(parts[number] for number in sorted(parts))
        return self.answer(200, "<R><ETag>1</ETag></R>")

    def delete_object(self):
        self.server.objects.pop(self.key, None)
        self.answer(204, b"")

    def refuse(self, status, code):
        self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>")

    def answer(self, status, content, headers=None):
        content = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        default = {"Content-Length": str(len(content)), "ETag": '"1"'}
        for name, value in {**default, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        """Print nothing."""


@contextmanager
def serve():
    """Run a gateway with one empty bucket; yield its address, with the namespace."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.objects, server.parts, server.lock = {}, {}, threading.Lock()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{NAMESPACE}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
