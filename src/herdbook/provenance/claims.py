"""The claims of a build: statements about its release, a pure function of the release's own files.

A claim is a line of ``claims.jsonl`` in canonical JSON (RFC 8785): here the bare statement; signing wraps it in a bundle.
Test results: https://in-toto.io/attestation/test-result/v0.1
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import rfc8785

from herdbook.comparison.marks import outcomes, results_of
from herdbook.layout import BOMS, EVALUATIONS, LINEAGE, input_file
from herdbook.plan.material import data_set_inputs
from herdbook.plan.release import computed_files
from herdbook.provenance.slsa import PROVENANCE_TYPE, digest_set, provenance, statement
from herdbook.provenance.tensor_lineage import LINEAGE_TYPE, predicate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from herdbook.comparison.marks import Outcome
    from herdbook.jsonio import JsonObject
    from herdbook.plan import Evaluation, Plan
    from herdbook.plan.asked import Group
    from herdbook.provenance.lineage import LineageSlice
    from herdbook.provenance.slsa import Statement

BOM_TYPE = "https://cyclonedx.org/bom"
TEST_RESULT_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
# Claims of a build about its own files. The next build's claims replace them, as its files replace the files.
BUILD_CLAIMS = frozenset({PROVENANCE_TYPE, BOM_TYPE, LINEAGE_TYPE, TEST_RESULT_TYPE})
BOM_VERSION = "1.6"  # of the claimed bill; the other bill has the same content in another format version


def canonical(value: Any) -> bytes:
    """Return the canonical JSON of a value (RFC 8785), which is signed and compared."""
    return rfc8785.dumps(value)


def statements(
    plan: Plan, digests: Mapping[str, str], read_json: Callable[[str], Any], slices: Iterable[LineageSlice]
) -> list[Statement]:
    """Return the claims of a build, in order: its provenance, bill of materials and lineage, then each measurement.

    Args:
        plan: The plan of the release's own recipe and lock.
        digests: SHA-256 by name of the checksums and of all files that they list.
        read_json: Returns a JSON file of the release by its name.
        slices: The release's lineage, if it has one.
    """
    results = sorted(
        ((f"{EVALUATIONS}/{item.id}.json", item) for item in plan.evaluations), key=lambda pair: pair[0]
    )
    reached = outcomes(plan, read_json)
    return [
        statement(digests, PROVENANCE_TYPE, provenance(plan, digests)),
        statement(digests, BOM_TYPE, read_json(BOMS[BOM_VERSION])),
        *(
            [statement(_weights(digests, plan), LINEAGE_TYPE, predicate(slices, digests[LINEAGE]))]
            if LINEAGE in computed_files(plan)
            else []
        ),
        *(
            statement(
                _measured(item, plan, result := read_json(name)),
                TEST_RESULT_TYPE,
                _result(
                    plan,
                    name,
                    digests[name],
                    result,
                    item.group,
                    [one for one in reached if one.mark.task in item.group.names]
                    if item.name == plan.released.name and item.quantized is None
                    else (),
                ),
            )
            for name, item in results
        ),
    ]


def _weights(digests: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """Return the digests of the files that the lineage is about."""
    return {name: digests[name] for name in plan.released.shard_names}


def _measured(item: Evaluation, plan: Plan, result: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of the measured files; names of files of other models than the released one have a prefix."""
    own = item.node.name == plan.released.name
    return {name if own else f"{item.node.name}/{name}": sha256 for name, sha256 in result["weights"].items()}


def _result(
    plan: Plan, name: str, sha256: str, content: Mapping[str, Any], group: Group, reached: Sequence[Outcome]
) -> JsonObject:
    """Return a test result. It is ``FAILED`` if the recipe has a mark that was missed; otherwise everything was measured."""
    missed = {outcome.mark.task for outcome in reached if not outcome.met}
    settings = canonical(content["settings"])
    configuration: list[JsonObject] = [
        {
            "name": "settings",
            "mediaType": "application/json",
            "digest": {"sha256": hashlib.sha256(settings).hexdigest()},
            "content": base64.b64encode(settings).decode("ascii"),
        }
    ]
    for task, _ in group.tasks:
        configuration += [
            {
                "name": input_file(file.name, str(file.sha256)) if file in task.local else file.name,
                "digest": digest_set(file),
                "annotations": {"task": task.name},
            }
            for file in (*task.local, *(file for file in task.sources if file not in task.local))
        ]
        configuration += [
            {"name": file.name, "digest": digest_set(file), "annotations": {"dataOf": task.name}}
            for file in task.data
        ]
    configuration += [
        {"name": entry.file.name, "uri": entry.uri, "digest": digest_set(entry.file)}
        for repo in dict.fromkeys(repo for task, _ in group.tasks for repo in task.repos)
        for entry in data_set_inputs(plan.lock.data_sets[repo])
    ]
    return {
        "result": "FAILED" if missed else "PASSED",
        "configuration": configuration,
        "passedTests": sorted(content["tasks"].keys() - missed),
        "warnedTests": [],
        "failedTests": sorted(missed),
        # Extension fields, named as in-toto's parsing rules require.
        "herdbook_evidence": {"name": name, "digest": {"sha256": sha256}},
        **({"herdbook_marks": [outcome.json for outcome in reached]} if reached else {}),
        "herdbook_metrics": {
            task: {
                metric: {key: score[key] for key in ("value", "stderr", "higher_is_better")}
                for metric, score in result["metrics"].items()
            }
            for task, result in results_of(content).items()
        },
    }
