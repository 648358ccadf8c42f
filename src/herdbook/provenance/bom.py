"""The bill of materials of a release: CycloneDX 1.6 and 1.7, with a model card and a pedigree.

It repeats content of the release's other files in a format that scanners read. It is written as plain JSON, since the
format's Python library has no model card; tests validate it with that library. It contains no times, which the citations of
1.7 require, so the origin of a license is stated only by ``acknowledgement``. Format: https://cyclonedx.org/docs/1.7/json/
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from herdbook.architectures.modules import reads_images
from herdbook.comparison.marks import results_of
from herdbook.key import canonical_json, digest
from herdbook.layout import CARD, CLAIMS, EVALUATIONS, LINEAGE, RECIPE
from herdbook.plan.asked import asked_tasks
from herdbook.plan.material import ancestry, inputs, materials
from herdbook.plan.release import PROVENANCE_CODE, computed_files
from herdbook.provenance.license import spdx
from herdbook.provenance.slsa import BUILD_TYPE, HUB_PAGES
from herdbook.recipe import Moe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from herdbook.jsonio import JsonObject
    from herdbook.lock import LockedFile
    from herdbook.plan import Evaluation, Node, Plan
    from herdbook.plan.material import Material

RELEASE_REF = "release"


def bom(plan: Plan, version: str, digests: Mapping[str, str], read_json: Callable[[str], Any]) -> JsonObject:
    """Return a bill of materials.

    Args:
        plan: The plan that was built.
        version: The CycloneDX version, ``1.6`` or ``1.7``.
        digests: SHA-256 of the release's files by name, without the bills, the checksums and files made after these.
        read_json: Returns a JSON file of the release by its name.
    """
    sources = list(materials(plan, ancestry(plan)))
    content: JsonObject = {
        "bomFormat": "CycloneDX",
        "specVersion": version,
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [_tool()]},
            "component": _release(plan, sources, digests, read_json),
        },
        "components": [
            *({"bom-ref": _ref(source), **_identity(source)} for source in sources),
            *_data(plan),
            *_data_sets(plan),
        ],
        "dependencies": [{"ref": RELEASE_REF, "dependsOn": [_ref(source) for source in sources]}],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{BUILD_TYPE}#{digest(content)}")
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{version}.schema.json",
        "serialNumber": serial.urn,
        **content,
    }


def _tool() -> JsonObject:
    return {
        "type": "application",
        "name": "herdbook",
        "version": PROVENANCE_CODE.describe().packages["herdbook"],
    }


def _release(
    plan: Plan, sources: list[Material], digests: Mapping[str, str], read_json: Callable[[str], Any]
) -> JsonObject:
    release = plan.recipe.release
    owner = plan.repo.partition("/")[0] if plan.repo else None
    return {
        "type": "machine-learning-model",
        "bom-ref": RELEASE_REF,
        **({"group": owner} if owner else {}),
        "name": plan.title,
        "version": plan.released.key,
        **({"description": release.summary} if release.summary else {}),
        # The author declares it; whether the sources' licenses allow it is not concluded here.
        "licenses": _licenses(release.license_name or release.license, "declared", release.license_link),
        "modelCard": _model_card(plan, read_json),
        "pedigree": {
            "ancestors": [_ancestor(source) for source in sources],
            "notes": "; ".join(_formula(node) for node in ancestry(plan) if node.parents),
        },
        "components": [
            {"type": "file", "name": name, "hashes": _hashes(digests[name])} for name in sorted(digests)
        ],
        "externalReferences": [
            {"type": "attestation", "url": CLAIMS},
            *(
                {"type": kind, "url": name, "hashes": _hashes(digests[name])}
                for kind, name in (("evidence", LINEAGE), ("formulation", RECIPE), ("model-card", CARD))
                if name != LINEAGE or name in computed_files(plan)
            ),
        ],
        "properties": _properties(plan),
    }


def _properties(plan: Plan) -> list[dict[str, str]]:
    released = plan.released
    properties = {"herdbook:key": released.key, "herdbook:parameters": str(released.parameters)}
    if isinstance(released.recipe, Moe):
        moe = released.recipe.moe
        properties |= {
            "herdbook:base": moe.base,
            "herdbook:experts": ", ".join(expert.model for expert in moe.experts),
            "herdbook:experts-per-token": str(moe.experts_per_token),
            "herdbook:gate": moe.gate,
        }
    asserted = [("herdbook:asserted", f"{claim.text} ({claim.by})") for claim in plan.recipe.claims]
    return [{"name": name, "value": value} for name, value in [*properties.items(), *asserted]]


def _formula(node: Node) -> str:
    """Return how a model was made as ``name = operation(parents)``; the recipe has the details."""
    return f"{node.name} = {node.operation}({', '.join(node.parents)})"


def _model_card(plan: Plan, read_json: Callable[[str], Any]) -> JsonObject:
    config = plan.released.config
    data = [{"ref": component["bom-ref"]} for component in (*_data(plan), *_data_sets(plan))]
    measured = [item for item in plan.evaluations if item.node.name == plan.released.name]
    limits = list(_limitations(plan))
    images = reads_images(config)
    return {
        "modelParameters": {
            "task": "image-text-to-text" if images else "text-generation",
            "architectureFamily": str(config["model_type"]),
            "modelArchitecture": str(config["architectures"][0]),
            **({"datasets": data} if data else {}),
            "inputs": [{"format": kind} for kind in (["image", "text"] if images else ["text"])],
            "outputs": [{"format": "text"}],
        },
        **(
            {"quantitativeAnalysis": {"performanceMetrics": list(_metrics(plan, measured, read_json))}}
            if measured
            else {}
        ),
        **({"considerations": {"technicalLimitations": limits}} if limits else {}),
    }


def _metrics(
    plan: Plan, measured: list[Evaluation], read_json: Callable[[str], Any]
) -> Iterator[dict[str, str]]:
    for item in measured:
        what = item.quantized.file if item.quantized else plan.recipe.release.name
        what += f" run by {item.runtime}" if item.runtime else ""
        for task, result in sorted(results_of(read_json(f"{EVALUATIONS}/{item.id}.json")).items()):
            for metric, score in sorted(result["metrics"].items()):
                error = (
                    "" if score["stderr"] is None else f", standard error {canonical_json(score['stderr'])}"
                )
                yield {
                    "type": metric,
                    "value": canonical_json(score["value"]),
                    "slice": f"{what}: {task}, {result['documents']} documents{error}",
                }


def _limitations(plan: Plan) -> Iterator[str]:
    """Yield the limitations that matter to a user of the model; the card states them, too."""
    if isinstance(plan.released.recipe, Moe):
        yield "Its routers were never trained with its experts."
    limits = {task.name: asked.limit for task, asked in asked_tasks(plan.recipe, plan.lock)}
    given = {limit for limit in limits.values() if limit}
    if len(given) == 1 and all(limits.values()):
        yield f"It was measured on the first {min(given)} documents of each task only."
        return
    for name, limit in limits.items():
        if limit:
            yield f"It was measured on the first {limit} documents of {name} only."


def _ref(material: Material) -> str:
    return f"source:{material.name}"


def _identity(material: Material) -> JsonObject:
    """Return the identity of a source, with its license."""
    owner, _, name = (material.repo or "").rpartition("/")
    kind = "concluded" if material.license_by_recipe else "declared"
    return {
        "type": "machine-learning-model",
        **({"group": owner} if owner else {}),
        "name": name or material.uri.partition(":")[2].partition("@")[0].rpartition("/")[2],
        **({"version": _version(material)} if material.revision else {}),
        **({"purl": material.uri} if material.uri.startswith("pkg:") else {}),
        **({"licenses": _licenses(material.license, kind)} if material.license else {}),
    }


def _version(material: Material) -> str:
    return material.uri.rpartition("@")[2] if material.uri.startswith("pkg:") else str(material.revision)


def _ancestor(material: Material) -> JsonObject:
    """Return a source as an ancestor, with its files."""
    properties = [{"name": "herdbook:model", "value": material.name}]
    if material.in_part:
        properties.append(
            {"name": "herdbook:read", "value": "ranges of its weights: their digests were not compared"}
        )
    return {
        **_identity(material),
        "components": [_file(file) for file in material.files],
        "properties": properties,
    }


def _file(file: LockedFile) -> JsonObject:
    """Return a file of a source; the Hub states only git's id of small files, which is not a digest of the bytes alone."""
    pinned: JsonObject = (
        {"hashes": _hashes(file.sha256)}
        if file.sha256
        else {"properties": [{"name": "herdbook:git-blob", "value": str(file.git_blob)}]}
    )
    return {"type": "file", "name": file.name, **pinned}


def _data(plan: Plan) -> Iterator[JsonObject]:
    """Yield the data that the evaluation read, each file once."""
    tasks_by_digest: dict[str, tuple[LockedFile, list[str]]] = {}
    for entry in inputs(plan):
        if entry.role == "task data":
            tasks_by_digest.setdefault(str(entry.file.sha256), (entry.file, []))[1].append(entry.name)
    for sha256, (file, tasks) in tasks_by_digest.items():
        name = file.name.rpartition("/")[2]
        yield {
            "type": "data",
            "bom-ref": f"data:{sha256}",
            "name": name,
            "hashes": _hashes(sha256),
            "data": [
                {"type": "dataset", "name": name, "description": f"evaluation data of {', '.join(tasks)}"}
            ],
        }


def _data_sets(plan: Plan) -> Iterator[JsonObject]:
    """Yield the data sets on the Hub that the evaluation read."""
    for data_set in plan.lock.data_sets.values():
        url = f"{HUB_PAGES}/datasets/{data_set.repo}/tree/{data_set.revision}"
        yield {
            "type": "data",
            "bom-ref": f"data-set:{data_set.repo}@{data_set.revision}",
            "name": data_set.repo,
            "version": data_set.revision,
            "data": [{"type": "dataset", "name": data_set.repo, "contents": {"url": url}}],
        }


def _licenses(license_: str, acknowledgement: str, url: str | None = None) -> list[JsonObject]:
    known = spdx(license_)
    named = {"id": known} if known else {"name": license_, **({"url": url} if url and "://" in url else {})}
    return [{"license": {**named, "acknowledgement": acknowledgement}}]


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]
