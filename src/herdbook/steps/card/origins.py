"""Where a release comes from, as its card lists it: sources that this build did not make, and models that it made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.humanize import plural
from herdbook.plan.material import materials
from herdbook.quantization.schemes import SCHEMES
from herdbook.recipe import Adapter, Compress, Laser, Merge, Moe
from herdbook.sources import purl
from herdbook.steps.card.files import FileFacts
from herdbook.steps.card.lasered import rule_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan import Node, Plan


@dataclass(frozen=True)
class Source:
    """A model or an adapter that this build did not make.

    ``hub_id`` is the model of the Hub that the author states, ``hub_commit`` the commit that has the same weights, if one was found.
    ``datasets`` are the data that its own card declares as training data.
    ``files`` are those that contain weights; with ``in_part``, only the MLPs were read from them.
    """

    name: str
    node: str
    uri: str
    revision: str | None
    license: str | None
    files: tuple[FileFacts, ...]
    in_part: bool = False
    hub_id: str | None = None
    hub_commit: str = ""
    datasets: tuple[str, ...] = ()

    @property
    def pin(self) -> str:
        """What pins it: the commit, or the digest of its first file."""
        return self.revision or self.files[0].sha256

    @property
    def page(self) -> str | None:
        """The web address of its pinned commit, if it is on the Hub."""
        commit = purl.parse(self.uri)
        return f"{commit.endpoint}/{commit.repo}/tree/{commit.commit}" if commit else None

    @property
    def place(self) -> str:
        """Where it is from, for people: the repository on the Hub, or its URI."""
        commit = purl.parse(self.uri)
        return commit.repo if commit else self.uri


@dataclass(frozen=True)
class MadeModel:
    """A model that this build made: its name, its operation, its parents in order, and its key."""

    name: str
    operation: str
    note: str
    parents: tuple[str, ...]
    key: str


def made_models(nodes: tuple[Node, ...]) -> tuple[MadeModel, ...]:
    """Return the models that a build made."""
    return tuple(
        MadeModel(node.name, node.operation, note(node), tuple(dict.fromkeys(node.parents)), node.key)
        for node in nodes
        if node.parents
    )


def note(node: Node) -> str:
    """Return how a model was made, in a few words."""
    match node.recipe:
        case Laser() as model:
            return f"LASER, {rule_words(model)}"
        case Adapter():
            return "LoRA adapter folded in"
        case Compress() as model:
            return f"{model.scheme}, {SCHEMES[model.scheme].library}"
        case Merge() as model:
            return f"{model.merge.method}, {plural(len(dict.fromkeys(model.merge.inputs)), 'model')}"
        case Moe() as model:
            return f"MoE, {len(model.moe.experts)} experts, {model.moe.experts_per_token} a token"
        case _:
            # the source's repository, folder or package
            return str(next(iter(node.recipe.model_dump().values())))


def sources(plan: Plan, nodes: tuple[Node, ...]) -> Iterable[Source]:
    """Yield the sources of models, in the order of the plan."""
    for material in materials(plan, nodes):
        files = tuple(
            FileFacts(file.name, file.size_bytes, file.sha256 or "")
            for file in material.files
            if file.name in material.weights
        )
        yield Source(
            material.name,
            material.node,
            material.uri,
            material.revision,
            material.license,
            files,
            material.in_part,
            getattr(plan.nodes[material.node].recipe, "hub_id", None),
            *((pin.hub_commit, pin.datasets) if (pin := plan.lock.sources.get(material.name)) else ()),
        )
