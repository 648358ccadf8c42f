"""What a cache keeps: results that are costly, each known by a key before it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from herdbook.key import digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from herdbook.plan import Node, Plan


@dataclass(frozen=True)
class Product:
    """A result of a plan.

    Args:
        kind: Which: the operation that makes it, or ``files`` (configuration and tokenizer of a source).
        id: What people call it.
        key: Its key in the plan.
        names: What its files mention beyond what the key holds: names that the recipe gives to models. The key knows
            parents by their keys alone, but a record cites them by name.
        files: Its files: by what each is, where it lies.
        gated: Whether something that it is made of is gated.
    """

    kind: str
    id: str
    key: str
    names: tuple[str, ...]
    files: dict[str, Path] = field(hash=False)
    gated: bool = False

    @property
    def entry(self) -> str:
        """Name of its entry in a cache. What is gated lies apart, so that rights can be given by place."""
        name = digest({"kind": self.kind, "key": self.key, "names": self.names})
        return f"{'gated' if self.gated else 'open'}/{name}"

    @property
    def there(self) -> bool:
        """Whether all its files lie in the results."""
        return all(path.exists() for path in self.files.values())


def products(plan: Plan) -> dict[str, Product]:
    """Return what a cache keeps of a plan, by key.

    The full-width GGUF and models' folders are not among it: they are copies of what is, or links to it.
    """
    return {product.key: product for product in _products(plan)}


def _products(plan: Plan) -> Iterator[Product]:
    layout, gated = plan.layout, _gated(plan)
    for node in plan.nodes.values():
        if node.search:
            made_of = gated[node.search.parent]
            result = {"result": layout.search(node.search)}
            yield Product("search", node.search.id, node.search.key, (), result, made_of)
        for part in node.parts:
            cited = tuple(plan.parts[parent].model for parent in part.parents)
            pair = {"shard": layout.shard(part), "record": layout.record(part)}
            yield Product(part.operation, part.id, part.key, cited, pair, gated[node.name])
        if node.files_from == node.name:
            beside = {name: layout.folder(node) / name for name in node.files}
            yield Product("files", node.id, node.key, (), beside, gated[node.name])
    released = gated[plan.released.name]
    for item in plan.quantized:
        both = {"file": plan.quantized_file(item), "record": plan.quantized_record(item)}
        yield Product("quantize", item.id, item.key, (item.file,), both, released)
    for measured in plan.evaluations:
        file = (measured.quantized.file,) if measured.quantized else ()
        result = {"result": plan.evaluation_file(measured)}
        about = gated[measured.node.name]
        yield Product("evaluate", measured.id, measured.key, (measured.name, *file), result, about)
    if plan.report:
        experts = tuple(plan.released.parents)
        result = {"result": plan.report_file(plan.report)}
        yield Product("routing", plan.report.id, plan.report.key, experts, result, released)


def _gated(plan: Plan) -> dict[str, bool]:
    """Return of which models a gated source is an ancestor, or which are one."""
    found: dict[str, bool] = {}

    def ask(node: Node) -> bool:
        source = plan.lock.sources.get(node.name)
        return bool(source and source.gated) or any(found[parent] for parent in node.parents)

    for node in plan.nodes.values():  # parents first
        found[node.name] = ask(node)
    return found
