"""A Sigstore of one's own, on this machine: identity provider, certificate authority and log, for the real client.

It does what Fulcio and Rekor (v1) do, as far as a client sees: certificates of ten minutes with an embedded signed
certificate timestamp (RFC 6962), and log entries with an inclusion proof, a signed checkpoint and a signed promise. Its
keys are in a client trust configuration, as an instance of one's own has it.
"""

import base64
import hashlib
import json
import struct
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ORIGIN = "log.example"
ECDSA = ec.ECDSA(hashes.SHA256())
SECRET = "a secret of the identity provider's"  # noqa: S105 - opens nothing


class LocalSigstore:
    """The services' state: keys, what is in the log, and who asks.

    Args:
        name: Who the identity provider says is there: an e-mail address or a URI.
    """

    def __init__(self, name="https://github.com/herd/book/.github/workflows/release.yml@refs/heads/main"):
        self.name = name
        self.issuer = "https://idp.example"
        self.lifetime = timedelta(minutes=10)  # of a certificate
        self.delay_seconds = 0  # until what is sent to the log is in it
        self.authority, self.log, self.timestamps = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(3)
        )
        self.root = self._make_root()
        self.leaves = []
        self.requests = []  # paths that were asked for
        self.broken = set()  # those that do not work
        self.url = ""

    # --- the services -------------------------------------------------------------------------------------------

    def token(self, audience="sigstore"):
        """Return what the identity provider gives: who is there, for a few minutes, and for whom that is meant."""
        now = int(time.time())
        said = {"iss": self.issuer, "sub": self.name, "aud": audience, "iat": now, "exp": now + 300}
        return jwt.encode(said, SECRET, algorithm="HS256")

    def publisher(self, audience):
        """Return a trusted publisher of a Hub: whether a token is the provider's, about who is there, and for that Hub."""
        name, issuer = self.name, self.issuer

        def accepts(token):
            try:
                said = jwt.decode(token, SECRET, algorithms=["HS256"], audience=audience, issuer=issuer)
            except jwt.InvalidTokenError:
                return False
            return said["sub"] == name

        return accepts

    def certify(self, request):
        """Return a certificate for the key of a signing request, and the authority's own, as Fulcio does."""
        asked = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"]))
        now = datetime.now(UTC)
        san = x509.UniformResourceIdentifier(self.name) if "://" in self.name else x509.RFC822Name(self.name)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(asked.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=5))
            .not_valid_after(now + self.lifetime)
            .add_extension(x509.KeyUsage(True, *[False] * 8), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([san]), critical=True)
            .add_extension(x509.UnrecognizedExtension(ISSUER, self.issuer.encode()), critical=False)
        )
        before = builder.sign(self.authority, hashes.SHA256())
        promised = builder.add_extension(
            x509.UnrecognizedExtension(SCT_LIST, self._timestamp(before.tbs_certificate_bytes)),
            critical=False,
        )
        chain = [promised.sign(self.authority, hashes.SHA256()), self.root]
        return [one.public_bytes(serialization.Encoding.PEM).decode() for one in chain]

    def enter(self, proposed):
        """Put an envelope into the log; return the entry, as Rekor does."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        [verifier] = content["verifiers"]
        payload = base64.b64decode(envelope["payload"])
        body = rfc8785.dumps({
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": _hash(content["envelope"].encode()),
                "payloadHash": _hash(payload),
                "signatures": [
                    {"signature": one["sig"], "verifier": verifier} for one in envelope["signatures"]
                ],
            },
        })  # fmt: skip
        index = len(self.leaves)
        self.leaves.append(hashlib.sha256(b"\0" + body).digest())
        root, path = _tree(self.leaves), _path(index, self.leaves)
        note = f"{ORIGIN}\n{len(self.leaves)}\n{base64.b64encode(root).decode()}\n"
        key_id = hashlib.sha256(_der(self.log)).digest()
        mark = base64.b64encode(key_id[:4] + self.log.sign(note.encode(), ECDSA)).decode()
        promise = {
            "body": base64.b64encode(body).decode(),
            "integratedTime": int(time.time()) + self.delay_seconds,
            "logID": key_id.hex(),
            "logIndex": index,
        }
        proof = {
            "logIndex": index,
            "rootHash": root.hex(),
            "treeSize": len(self.leaves),
            "hashes": [one.hex() for one in path],
            "checkpoint": f"{note}\n\u2014 {ORIGIN} {mark}\n",
        }
        signed = base64.b64encode(self.log.sign(rfc8785.dumps(promise), ECDSA)).decode()
        return {
            "entry": {**promise, "verification": {"inclusionProof": proof, "signedEntryTimestamp": signed}}
        }

    def trust(self):
        """Return the client trust configuration: where the services are, and their keys."""
        since = {"start": "2020-01-01T00:00:00Z"}
        service = {"majorApiVersion": 1, "validFor": since, "operator": "local"}

        def log(key):
            return {
                "baseUrl": self.url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": base64.b64encode(_der(key)).decode(),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": since,
                },
                "logId": {"keyId": base64.b64encode(hashlib.sha256(_der(key)).digest()).decode()},
            }

        root = base64.b64encode(self.root.public_bytes(serialization.Encoding.DER)).decode()
        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.log)],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "local", "commonName": "local"},
                        "uri": self.url,
                        "certChain": {"certificates": [{"rawBytes": root}]},
                        "validFor": since,
                    }
                ],
                "ctlogs": [log(self.timestamps)],
                "timestampAuthorities": [],
            },
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [{"url": self.url, **service}],
                "oidcUrls": [{"url": self.url, **service}],
                "rekorTlogUrls": [{"url": self.url, **service}],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaUrls": [],
                "tsaConfig": {"selector": "ANY"},
            },
        }

    # --- their insides ------------------------------------------------------------------------------------------

    def _make_root(self):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "local authority")])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.authority.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key()), critical=False
            )
            .sign(self.authority, hashes.SHA256())
        )

    def _timestamp(self, certificate):
        """Return the extension with one signed certificate timestamp of a precertificate (RFC 6962, 3.2 and 3.3)."""
        when = int(time.time() * 1000)
        issuer = hashlib.sha256(_der(self.authority)).digest()
        entry = issuer + len(certificate).to_bytes(3, "big") + certificate
        signature = self.timestamps.sign(struct.pack("!BBQH", 0, 0, when, 1) + entry + b"\0\0", ECDSA)
        log = hashlib.sha256(_der(self.timestamps)).digest()
        one = b"\0" + log + struct.pack("!QH", when, 0) + b"\4\3" + _sized(signature)
        content = _sized(_sized(one))
        assert len(content) < 256
        return (
            b"\4"
            + (bytes([len(content)]) if len(content) < 128 else b"\x81" + bytes([len(content)]))
            + content
        )


def _sized(content):
    return len(content).to_bytes(2, "big") + content


def _der(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def _hash(content):
    return {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()}


def _tree(leaves):
    """Return the root of a Merkle tree (RFC 6962, 2.1)."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + _tree(leaves[:split]) + _tree(leaves[split:])).digest()


def _path(index, leaves):
    """Return the audit path of a leaf (RFC 6962, 2.1.1)."""
    if len(leaves) == 1:
        return []
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return [*_path(index, leaves[:split]), _tree(leaves[split:])]
    return [*_path(index - split, leaves[split:]), _tree(leaves[:split])]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        """Give a token to the job that may ask for one, as GitHub's runner does; let a browser's user in (OAuth)."""
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        services = self.server.services
        if url.path == "/.well-known/openid-configuration":
            places = {
                "authorization_endpoint": f"{services.url}/in",
                "token_endpoint": f"{services.url}/token",
            }
            return self._answer(200, places)
        if url.path == "/in":
            self.send_response(302)
            answer = urlencode({"code": "of the user", "state": query["state"]})
            self.send_header("Location", f"{query['redirect_uri']}?{answer}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        scheme, _, secret = self.headers.get("Authorization", "").partition(" ")
        if (scheme.lower(), secret) != ("bearer", "of the job") or "/id" in services.broken:
            return self._answer(403, {})
        return self._answer(200, {"value": services.token(query.get("audience", "sigstore"))})

    def do_POST(self):
        """Certify or log."""
        services = self.server.services
        body = self.rfile.read(int(self.headers["Content-Length"]))
        services.requests.append(self.path)
        if self.path in services.broken:
            return self._answer(500, {"code": 500, "message": "out of order"})
        if self.path == "/token":
            known = dict(parse_qsl(body.decode()))["code"] == "of the user"
            return self._answer(200 if known else 403, {"access_token": services.token()} if known else {})
        asked = json.loads(body)
        if self.path == "/api/v2/signingCert":
            token = self.headers["Authorization"].removeprefix("Bearer ")
            jwt.decode(token, SECRET, algorithms=["HS256"], audience="sigstore")
            chain = {"certificates": services.certify(asked)}
            return self._answer(200, {"signedCertificateEmbeddedSct": {"chain": chain}})
        if self.path == "/api/v1/log/entries":
            return self._answer(201, services.enter(asked))
        return self._answer(404, {})

    def _answer(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def serve(services):
    """Serve; yield the environment of a job in which a client finds the services, but for its trust configuration."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.services = services
    services.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of the job",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{services.url}/token?version=1",
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
