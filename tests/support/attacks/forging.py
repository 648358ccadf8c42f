"""What several attacks do: change a file, and let checksums and signatures follow."""

import json

from herdbook.files import sha256_file
from herdbook.layout import CLAIMS, PUBLIC_KEY, SIGNATURE
from herdbook.signing import keys
from herdbook.signing.bundle import bundle, read
from herdbook.signing.oms import manifest
from support import lies


def sign_again(folder):
    """Write checksums and model signature anew, with another key, and put that key beside them."""
    lies.write_sums(folder)
    key = keys.PrivateKey(keys.ec.generate_private_key(keys.ec.SECP256R1()))
    (folder / PUBLIC_KEY).write_text(key.public.pem)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    digests = {name: sha256_file(folder / name) for name in names}
    (folder / SIGNATURE).write_bytes(bundle(manifest("Tiny", digests), key))
    claims = (folder / CLAIMS).read_bytes().splitlines()
    (folder / CLAIMS).write_bytes(b"".join(bundle(read(one, "").statement, key) + b"\n" for one in claims))


def edit(name, change):
    """Return an attack that changes a JSON file, and writes the checksums anew."""

    def attack(folder):
        path = next(iter(sorted(folder.glob(name))))
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        lies.write_sums(folder)

    return attack


def configured(**changes):
    """Return an attack that changes the configuration and signs everything again."""

    def attack(folder):
        edit("config.json", lambda config: config.update(changes))(folder)
        sign_again(folder)

    return attack
