"""The provenance statement: an in-toto Statement v1 with a SLSA provenance v1 predicate.

It holds no times and no host names, so the same build gives the same bytes. It is unsigned and made by whoever ran the
build: SLSA Build L1, no more. Formats: https://in-toto.io/Statement/v1 and https://slsa.dev/spec/v1.2/provenance
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook import __version__
from herdbook.key import package_version
from herdbook.plan.graph import CONVERT_CODE, EVALUATE_CODE, GGUF_FOLDER_CODE, QUANTIZE_CODE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.plan import Node, Plan

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:herdbook:buildtype:release:v1"
BUILDER = "urn:herdbook:builder:local:v1"


def statement(plan: Plan, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return the statement about a release.

    Args:
        plan: The plan that was built.
        digests: SHA-256 of each of the release's files, by name.
    """
    code = GGUF_FOLDER_CODE.describe()
    for part in plan.parts.values():
        code |= part.code
    for search in plan.searches.values():
        code |= search.code
    if plan.report:
        code |= plan.report.code
    if plan.evaluations:
        code |= EVALUATE_CODE.describe()
    if plan.quantized:
        code |= CONVERT_CODE.describe() | QUANTIZE_CODE.describe()
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digests[name]}} for name in sorted(digests)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"recipe": "recipe.yaml", "lock": "recipe.lock.json"},
                "internalParameters": {
                    "keys": {name: node.key for name, node in plan.nodes.items()},
                    "code": code,
                },
                "resolvedDependencies": _dependencies(plan),
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": {"herdbook": __version__, "snakemake": package_version("snakemake")},
                }
            },
        },
    }


def _dependencies(plan: Plan) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in plan.nodes:
        if name in plan.lock.sources:
            source = plan.lock.sources[name]
            git = {"gitCommit": source.revision} if source.uri.startswith("pkg:huggingface/") else {}
            digest = git or {"sha256": source.revision}
            found.append(
                {
                    "name": name,
                    "uri": source.uri,
                    "digest": digest,
                    "annotations": _annotations(source, plan.nodes[name]),
                }
            )
        if name in plan.lock.adapters:
            found += [
                {"name": f"{name}: {file.name}", "digest": {"sha256": str(file.sha256)}}
                for file in plan.lock.adapters[name].files
            ]
    for task in plan.lock.tasks.values():
        found += [
            {"name": f"task {task.name}: {file.name}", "digest": {"sha256": str(file.sha256)}}
            for file in (task.file, *task.data)
        ]
    for name, text in plan.lock.calibration.items():
        found += [
            {"name": f"calibration {name}: {file.name}", "digest": {"sha256": str(file.sha256)}}
            for file in text.data
        ]
    found += [
        {"name": f"leaderboard {name}: {file.name}", "digest": {"sha256": str(file.sha256)}}
        for name, file in plan.lock.leaderboards.items()
    ]
    return found


def _annotations(source: Any, node: Node) -> dict[str, Any]:
    files = {
        file.name: {
            "size": file.size_bytes,
            **({"sha256": file.sha256} if file.sha256 else {"gitBlob": file.git_blob}),
        }
        for file in source.files
    }
    if any("ranges" in part.parameters for part in node.parts):
        # only what was read can be vouched for
        files = {name: {**about, "read": "ranges of it"} for name, about in files.items()}
    return {"files": files, **({"license": source.license} if source.license else {})}
