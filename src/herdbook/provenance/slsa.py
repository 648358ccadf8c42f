"""The provenance of a build: an in-toto Statement v1 with a SLSA provenance v1 predicate.

It contains no times and no host names, so the same build gives the same bytes. It is written by the user who runs the
build, signed or not, which is SLSA Build L1. Formats: https://in-toto.io/Statement/v1 and https://slsa.dev/spec/v1.2/provenance
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import quote

from herdbook.layout import LINEAGE, LOCK, RECIPE
from herdbook.plan.card import CARD_CODE
from herdbook.plan.evaluate import DEQUANTIZE_CODE, EVALUATE_CODE, RUNTIME_CODE
from herdbook.plan.material import inputs, materials
from herdbook.plan.node import ASSEMBLE_CODE, TOKENIZER_CODE
from herdbook.plan.quantize import CONVERT_CODE, QUANTIZE_CODE
from herdbook.plan.release import PROVENANCE_CODE, RELEASE_CODE, VERSIONS, computed_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.jsonio import Json, JsonObject
    from herdbook.lock import LockedFile
    from herdbook.plan import Plan
    from herdbook.plan.code import DescribedCode
    from herdbook.plan.material import Material

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:herdbook:buildtype:release:v4"  # docs/buildtype.md
BUILDER = "urn:herdbook:builder:local:v1"
HUB_PAGES = "https://huggingface.co"


class Subject(TypedDict):
    """A file that a statement is about: its name, and its digests by algorithm."""

    name: str
    digest: dict[str, str]


class Statement(TypedDict):
    """An in-toto Statement v1."""

    _type: str
    subject: list[Subject]
    predicateType: str
    predicate: JsonObject


def statement(subject: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Json]) -> Statement:
    """Return an in-toto Statement.

    Args:
        subject: SHA-256 of each file that it is about, by name.
        predicate_type: The type of the predicate.
        predicate: The content of the statement.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": subject[name]}} for name in sorted(subject)],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }


def codes(plan: Plan) -> list[DescribedCode]:
    """Return all code that a plan's keys and its release's documents depend on, each operation's once, sorted by name."""
    found = [code.describe() for code in (ASSEMBLE_CODE, CARD_CODE, PROVENANCE_CODE, RELEASE_CODE)]
    found += [part.code for part in plan.parts.values()]
    if any(name in plan.nodes and own.files for name, own in plan.lock.vocabularies.items()):
        found.append(TOKENIZER_CODE.describe())
    found += [search.code for search in plan.searches.values()]
    if plan.report:
        found.append(plan.report.code)
    if plan.reference:
        found.append(plan.reference.code)
    if plan.evaluations:
        found.append(EVALUATE_CODE.describe())
    if any(item.quantized for item in plan.evaluations):
        found.append(DEQUANTIZE_CODE.describe())
    if any(item.runtime for item in plan.evaluations):
        found.append(RUNTIME_CODE.describe())
    if plan.quantized:
        found += [CONVERT_CODE.describe(), QUANTIZE_CODE.describe()]
    if plan.imatrix:
        found.append(plan.imatrix.code)
    by_name = {code.of.name: code for code in found}
    return [by_name[name] for name in sorted(by_name)]


def provenance(plan: Plan, digests: Mapping[str, str]) -> JsonObject:
    """Return the provenance predicate of a release.

    Args:
        plan: The plan that was built.
        digests: SHA-256 of each of the release's files, by name.
    """
    versions = PROVENANCE_CODE.describe().packages
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"recipe": RECIPE, "lock": LOCK},
            "internalParameters": {
                "keys": {name: node.key for name, node in plan.nodes.items()},
                "operations": {
                    code.of.name: {"modules": dict(code.modules), "packages": dict(code.packages)}
                    for code in codes(plan)
                },
            },
            "resolvedDependencies": [
                *({"name": name, "digest": {"sha256": digests[name]}} for name in (RECIPE, LOCK)),
                *(
                    entry
                    for material in materials(plan, tuple(plan.nodes.values()))
                    for entry in _entries(material)
                ),
                *(
                    {
                        "name": f"{entry.role} {entry.name}: {entry.file.name}",
                        **({"uri": entry.uri} if entry.uri else {}),
                        "digest": digest_set(entry.file),
                    }
                    for entry in inputs(plan)
                ),
            ],
        },
        "runDetails": {
            "builder": {
                "id": BUILDER,
                "version": {name: versions[name] for name in VERSIONS},
            },
            **(
                {"byproducts": [{"name": LINEAGE, "digest": {"sha256": digests[LINEAGE]}}]}
                if LINEAGE in computed_files(plan)
                else {}
            ),
        },
    }


def digest_set(file: LockedFile) -> dict[str, str]:
    """Return the digest that pins a file: its SHA-256, or git's id for small files on the Hub."""
    return {"sha256": file.sha256} if file.sha256 else {"gitBlob": str(file.git_blob)}


def download_location(material: Material, file: LockedFile) -> str | None:
    """Return where a file of a model or an adapter can be downloaded from; None if it is not on the Hub."""
    if not material.repo:
        return None
    return f"{HUB_PAGES}/{material.repo}/resolve/{material.revision}/{quote(file.name)}"


def _entries(material: Material) -> Iterator[JsonObject]:
    """Yield an entry for a model or an adapter as a whole, and one for each file that generic tools can match."""
    # the digest was compared only for files that were read as a whole
    read = {"read": "ranges of it"} if material.in_part else {}
    yield {
        "name": material.name,
        "uri": material.uri,
        "digest": _whole(material),
        "annotations": {
            "files": {
                file.name: {"size": file.size_bytes, **digest_set(file), **read} for file in material.files
            },
            **({"license": material.license} if material.license else {}),
        },
    }
    for file in material.files:
        if file.sha256 != material.revision:  # a wheel is the whole already
            yield {
                "name": f"{material.name}: {file.name}",
                "uri": f"{material.uri}#{quote(file.name)}",
                "digest": digest_set(file),
                **({"downloadLocation": location} if (location := download_location(material, file)) else {}),
                "annotations": {"size": file.size_bytes, **read},
            }


def _whole(material: Material) -> dict[str, str]:
    """Return the digest that pins a model or an adapter as a whole; a folder by in-toto's ``dirHash`` of its relevant files."""
    if material.repo:
        return {"gitCommit": str(material.revision)}
    if material.uri.startswith("pkg:"):
        return {"sha256": str(material.revision)}
    listing = "".join(
        f"{file.sha256}  {file.name}\n" for file in sorted(material.files, key=lambda file: file.name)
    )
    return {"dirHash": hashlib.sha256(listing.encode()).hexdigest()}
