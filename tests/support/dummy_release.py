"""Small releases of made-up content, for tests of what is done with a release as a whole: no model is built."""

import hashlib
import json

import yaml

from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.lock import Lock, LockedSource
from herdbook.publish import local


def write(
    root,
    *,
    sources=None,
    gated=None,
    made_from=None,
    license="apache-2.0",  # noqa: A002 - as in a recipe
    publish=None,
    waivers=(),
    repo=None,
    files=None,
    weights=b"weights",
    card="",
):
    """Write a release's folder below ``root`` and return it as it is read.

    Args:
        root: Where.
        sources: Licence of each source folder, by name.
        gated: How access to a source is granted, by name.
        made_from: The source that is released; the first otherwise.
        license: Licence of the release.
        publish: The recipe's section.
        waivers: Those of obligations of licences.
        repo: The recipe's release.repo.
        files: More files, by name.
        weights: What the weights file holds.
        card: Body of the card.
    """
    folder = root / "release"
    sources = {"base": "apache-2.0"} if sources is None else sources
    data = {
        "models": {name: {"folder": name} for name in sources},
        "release": {"model": made_from or next(iter(sources)), "name": "Tiny", "license": license},
        **({"publish": publish} if publish else {}),
    }
    if waivers:
        data["release"]["waivers"] = list(waivers)
    if repo:
        data["release"]["repo"] = repo
    text = yaml.safe_dump(data, sort_keys=False)
    recipe = recipes.parse(text)
    lock = Lock(
        sources={
            name: LockedSource(
                asked=locks.request(recipe.models[name]),
                uri=f"folder:{name}",
                revision="0" * 64,
                weights="safetensors",
                files=(),
                members=(),
                tensors=(),
                config={},
                license=sources[name],
                gated=(gated or {}).get(name, False),
            )
            for name in sources
        }
    )
    held = {
        "README.md": f"---\nlicense: {license}\n---\n# Tiny\n{card}".encode(),
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors": weights,
        "recipe.yaml": text.encode(),
        "recipe.lock.json": locks.render(lock).encode(),
        **(files or {}),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in held.items()}
    held["SHA256SUMS"] = "".join(f"{digests[name]}  {name}\n" for name in sorted(held)).encode()
    digests["SHA256SUMS"] = hashlib.sha256(held["SHA256SUMS"]).hexdigest()
    held["claims.jsonl"] = (
        json.dumps(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [
                    {"name": name, "digest": {"sha256": digest}} for name, digest in sorted(digests.items())
                ],
                "predicateType": "https://slsa.dev/provenance/v1",
                "predicate": {},
            }
        ).encode()
        + b"\n"
    )
    for name, content in held.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return local.read(folder)
