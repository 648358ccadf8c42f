"""Describe a release as a Provenance Run Crate 0.5, for workflow registries and archives.

It repeats the release's own records: which steps ran, on which files, with which parameters. It has no times of steps, no
names of people and no engine, which the profiles only recommend, since no record contains them. RO-Crate 1.1 requires the
day of publication, so the user passes it. It is plain JSON: the format's Python library would set the day by the clock.

Formats: https://w3id.org/ro/crate/1.1, https://w3id.org/ro/wfrun/provenance/0.5. Names by digest: RFC 6920.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from herdbook.export.items import input_items, material_items
from herdbook.export.jsonld import Graph, media_type, ref, refs
from herdbook.export.runs import runs
from herdbook.key import canonical_json
from herdbook.layout import CARD, LOCK, RECIPE
from herdbook.plan.material import inputs, materials
from herdbook.plan.release import PROVENANCE_CODE
from herdbook.provenance.license import spdx
from herdbook.provenance.slsa import HUB_PAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from herdbook.export.items import Item
    from herdbook.export.runs import StepRun
    from herdbook.plan import Plan
    from herdbook.plan.material import Material

METADATA = "ro-crate-metadata.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    WORKFLOW_CRATE: "Workflow RO-Crate",
}
CONTEXT = [f"{SPECIFICATION}/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
COMPLETED = "http://schema.org/CompletedActionStatus"  # a text, as the profile requires
PACKAGES = "https://pypi.org/project"


@dataclass(frozen=True)
class File:
    """A file of the release.

    Args:
        size_bytes: Its size.
        sha256: SHA-256 of its content.
        place: Its URL, or its URI by digest, if the crate does not include it.
    """

    size_bytes: int
    sha256: str
    place: str | None = None


def named_by_digest(sha256: str) -> str:
    """Return the URI that identifies a file only by its content (RFC 6920)."""
    return "ni:///sha-256;" + base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode("ascii").rstrip("=")


def crate(
    plan: Plan, files: Mapping[str, File], read_json: Callable[[str], Any], published: str
) -> dict[str, Any]:
    """Return the crate's metadata, as JSON-LD.

    Args:
        plan: The plan of the release's own recipe and lock, with the keys of its build.
        files: All files of the release, by name.
        read_json: Returns a JSON file of the release by its name.
        published: The day of publication, YYYY-MM-DD.
    """
    return _Crate(plan, files).describe(list(runs(plan, read_json)), published)


class _Crate:
    """A crate under construction."""

    def __init__(self, plan: Plan, files: Mapping[str, File]) -> None:
        self._plan = plan
        self._files = files
        self._graph = Graph()
        self._data: list[str] = []  # the parts of the root
        self._herdbook = PROVENANCE_CODE.describe().packages["herdbook"]

    def describe(self, ran: list[StepRun], published: str) -> dict[str, Any]:
        """Return the complete metadata."""
        self._graph.add(
            METADATA,
            "CreativeWork",
            about=ref("./"),
            conformsTo=refs([SPECIFICATION, WORKFLOW_CRATE]),
        )
        self._graph.add("./", "Dataset")  # completed when all parts are known
        for name in sorted(self._files):
            self._released(name)
        build_inputs = self._inputs()
        for run in ran:
            self._action(run)
        self._workflow(ran)
        self._whole_run(build_inputs)
        self._root(published)
        for run in ran:
            self._graph.entities[self._address(run.record)].setdefault("about", ref(f"#action/{run.id}"))
        return {"@context": CONTEXT, "@graph": self._graph.compact()}

    # -- data ------------------------------------------------------------------------------------------------------

    def _address(self, name: str) -> str:
        return self._files[name].place or quote(name)

    def _released(self, name: str) -> None:
        file = self._files[name]
        self._data.append(
            self._graph.add(
                self._address(name),
                "File",
                name=name,
                sha256=file.sha256,
                contentSize=str(file.size_bytes),
                encodingFormat=media_type(name),
                about=ref("./") if name == CARD else None,
            )
        )

    def _item(self, item: Item) -> str:
        """Return the ``@id`` of a file that a step read or made; one that is not in the release is described first."""
        if item.released:
            return self._address(item.released)
        identifier = item.uri or named_by_digest(str(item.sha256))
        if identifier not in self._graph.entities:
            self._graph.add(
                identifier,
                "File",
                name=item.name,
                sha256=item.sha256,
                # Software Heritage identifies a content by git's id
                identifier=f"swh:1:cnt:{item.git_blob}" if item.git_blob else None,
                contentSize=str(item.size_bytes),
                encodingFormat=media_type(item.name),
                description="Only ranges of it were read; its digest is stated by the source, not compared"
                if item.in_part
                else None,
            )
            if not item.uri:
                self._data.append(identifier)
        return identifier

    def _inputs(self) -> list[str]:
        """Add the inputs of the build: models, adapters, files beside the recipe. Return their ``@id``s."""
        taken = [
            self._material(material) for material in materials(self._plan, tuple(self._plan.nodes.values()))
        ]
        roles = {entry.file.name: entry.role for entry in inputs(self._plan)}
        for name, item in input_items(self._plan).items():
            identifier = self._item(item)
            self._formal("input", f"{roles[name]} {name}", "File", [identifier])
            taken.append(identifier)
        return taken

    def _material(self, material: Material) -> str:
        if material.repo:
            identifier = f"{HUB_PAGES}/{material.repo}/tree/{material.revision}/"
        else:
            identifier = f"{material.uri}/"
        parts = [self._item(item) for item in material_items(material).values()]
        parts = [part["@id"] for part in self._graph.entities.get(identifier, {}).get("hasPart", [])] + parts
        self._graph.add(
            identifier,
            "Dataset",
            name=material.name,
            identifier=material.uri,
            version=material.revision,
            license=self._license(material.license),
            hasPart=refs(parts),
        )
        self._data.append(identifier)
        self._formal("input", material.name, "Dataset", [identifier])
        return identifier

    def _license(self, license_: str | None, link: str | None = None) -> Any:
        known = spdx(license_ or "")
        address = f"https://spdx.org/licenses/{known}" if known else link if link and "://" in link else None
        return ref(self._graph.add(address, "CreativeWork", name=known or license_)) if address else license_

    def _formal(self, way: str, name: str, kind: str, examples: list[str]) -> str:
        """Add a parameter of the workflow, and its value in this run."""
        identifier = f"#{way}/{quote(name, safe='')}"
        self._graph.add(
            identifier, "FormalParameter", name=name, additionalType=kind, workExample=refs(examples)
        )
        for example in examples:
            entity = self._graph.entities[example]
            entity["exampleOfWork"] = [*entity.get("exampleOfWork", []), ref(identifier)]
        return identifier

    # -- what ran --------------------------------------------------------------------------------------------------

    def _action(self, run: StepRun) -> None:
        tool = self._tool(run)
        parameters = [
            self._graph.add(
                f"#parameter/{run.id}/{name}",
                "PropertyValue",
                name=name,
                value=value if isinstance(value, str | int | float) else canonical_json(value),
            )
            for name, value in sorted(run.parameters.items())
        ]
        action = self._graph.add(
            f"#action/{run.id}",
            "CreateAction",
            name=f"herdbook {run.tool}: {run.id}",
            description=f"{run.text}. {run.record} has the details.",
            instrument=ref(tool),
            object=refs([*map(self._item, run.used), *parameters]),
            result=refs(map(self._item, run.made)),
            actionStatus=COMPLETED,
        )
        self._graph.add(
            f"#control/{run.id}",
            "ControlAction",
            name=f"{run.step} by {run.id}",
            instrument=ref(f"#step/{quote(run.step)}"),
            object=ref(action),
        )

    def _tool(self, run: StepRun) -> str:
        """Add the command that ran, with the packages that its result depends on."""
        packages = [
            self._graph.add(
                address := f"{PACKAGES}/{name}/{version}/",
                "SoftwareApplication",
                name=name,
                softwareVersion=version,
                url=address,
            )
            for name, version in sorted(run.code.items())
            if "." not in name  # names with dots are modules, whose digests are in the records
        ]
        identifier = self._graph.add(
            f"#tool/{run.tool}",
            "SoftwareApplication",
            name=f"herdbook {run.tool}",
            softwareVersion=self._herdbook,
        )
        known = [entry["@id"] for entry in self._graph.entities[identifier].get("softwareRequirements", [])]
        needed = dict.fromkeys([*known, *packages])
        if needed:
            self._graph.add(identifier, "SoftwareApplication", softwareRequirements=refs(needed))
        return identifier

    def _workflow(self, ran: list[StepRun]) -> None:
        """Describe the recipe as the workflow that was run: the graph of models, and the steps after the released one."""
        tools = {
            run.step: f"#tool/{run.tool}" for run in ran
        }  # for a lasered model the tool of its parts, which follow the search
        for position, (step, tool) in enumerate(tools.items(), start=1):
            node = self._plan.nodes.get(step)
            formula = f"{step} = {node.operation}({', '.join(node.parents)})" if node else step
            self._graph.add(
                f"#step/{quote(step)}",
                "HowToStep",
                name=formula,
                position=str(position),
                workExample=ref(tool),
            )
        shards = [self._address(name) for name in self._plan.released.shard_names]
        outputs = [self._formal("output", self._plan.recipe.release.name, "File", shards)]
        outputs += [
            self._formal("output", item.file, "File", [self._address(name) for name in item.parts])
            for item in self._plan.quantized
        ]
        language = self._graph.add(
            "#language", "ComputerLanguage", name="Herdbook recipe", version=self._herdbook
        )
        self._graph.entities[self._address(RECIPE)] |= {
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "programmingLanguage": ref(language),
            "version": self._plan.released.key,
            "hasPart": refs(dict.fromkeys(f"#tool/{run.tool}" for run in ran)),
            "step": refs(f"#step/{quote(step)}" for step in tools),
            "input": refs(name for name in self._graph.entities if name.startswith("#input/")),
            "output": refs(outputs),
        }

    def _whole_run(self, taken: list[str]) -> None:
        self._graph.add(
            "#run",
            "CreateAction",
            name=f"Build of {self._plan.recipe.release.name}",
            description="Built as the recipe defines, from the inputs that the lock pins.",
            instrument=ref(self._address(RECIPE)),
            object=refs([self._address(LOCK), *dict.fromkeys(taken)]),
            result=refs(self._address(name) for name in sorted(self._files) if name not in {RECIPE, LOCK}),
            actionStatus=COMPLETED,
        )

    def _root(self, published: str) -> None:
        for address, name in PROFILES.items():
            self._graph.add(address, "CreativeWork", name=name, version=address.rpartition("/")[2])
        release = self._plan.recipe.release
        actions = [name for name, entity in self._graph.entities.items() if entity["@type"] == "CreateAction"]
        self._graph.add(
            "./",
            "Dataset",
            name=release.name,
            description=release.summary
            or f"The release {release.name} of a language model, and how it was made",
            version=self._plan.released.key,
            datePublished=published,
            license=self._license(release.license_name or release.license, release.license_link),
            conformsTo=refs(PROFILES),
            mainEntity=ref(self._address(RECIPE)),
            hasPart=refs(dict.fromkeys(self._data)),
            mentions=refs(actions),
        )
