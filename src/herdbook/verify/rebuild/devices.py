"""What a GPU can explain: which files of a release may differ from those that a CPU makes.

That a GPU was used is the builder's word. What it can have changed follows from the plan: the results of operations that run
on a GPU where they name one, and what is made from them. Never a configuration, a tokenizer, or a copy of something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.layout import BOMS, EVALUATIONS, IMATRIX, LINEAGE, LOSSES, RECORDS, ROUTING, SEARCHES
from herdbook.plan.card import card_files
from herdbook.plan.operation import MakeRouters, Reduce, ReduceAsSearched
from herdbook.release.reader import damaged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan import Node, Part, Plan
    from herdbook.release.reader import Release


class Devices:
    """The kinds of device that a release names where its plan allows one.

    Args:
        plan: The plan.
        release: The release.
    """

    def __init__(self, plan: Plan, release: Release) -> None:
        self._plan, self._release = plan, release
        self._searches: dict[str, set[str]] = {}
        self._parts: dict[str, set[str]] = {}
        for key, part in plan.parts.items():  # parents first
            self._parts[key] = self._of_part(part)

    def by_file(self) -> dict[str, set[str]]:
        """Return the kinds of device that can explain a difference, by the name of the file; other files are not in it."""
        plan = self._plan
        files = {
            name: self._parts[part.key]
            for name, part in zip(plan.released.shard_names, plan.released.parts, strict=True)
        }
        whole = self._of_node(plan.released)
        for item in plan.quantized:
            files |= dict.fromkeys((*item.parts, f"{RECORDS}/{item.id}.gguf.json"), whole)
        if matrix := plan.imatrix:
            files |= {matrix.file: whole, f"{RECORDS}/{matrix.id}{IMATRIX}.json": whole}
        files |= {f"{RECORDS}/{part.id}.json": self._parts[key] for key, part in plan.parts.items()}
        files |= {
            f"{SEARCHES}/{search.id}.json": self._of_search(search.key) for search in plan.searches.values()
        }
        made = _union(files.values())
        measured = {}
        for evaluation in plan.evaluations:
            name = f"{EVALUATIONS}/{evaluation.id}.json"
            measured[name] = self._of_node(evaluation.node) | self._named(name)
        if plan.report:
            name = f"{ROUTING}/{plan.report.id}.json"
            measured[name] = whole | self._named(name)
        if plan.reference:
            ids = [plan.reference.id, *(item.id for item in plan.losses)]
            measured |= {f"{LOSSES}/{name}.json": whole for name in ids}
        stated = made | _union(measured.values())
        files |= {**measured, LINEAGE: made, **dict.fromkeys((*card_files(plan), *BOMS.values()), stated)}
        return {name: kinds for name, kinds in files.items() if kinds}

    def _of_part(self, part: Part) -> set[str]:
        kinds = _union(self._parts[key] for key in part.parents)
        match part.operation:
            case Reduce() | ReduceAsSearched() as reduce:
                kinds |= self._named(f"{RECORDS}/{part.id}.json")
                if isinstance(reduce, ReduceAsSearched):
                    kinds |= self._of_search(reduce.search)
                if reduce.whitening:
                    kinds |= self._of_node(self._plan.by_key[reduce.whitening.model])
            case MakeRouters() as routers:
                kinds |= self._of_node(self._plan.by_key[routers.base])
            case _:
                pass
        return kinds

    def _of_search(self, key: str) -> set[str]:
        if key not in self._searches:
            search = self._plan.searches[key]
            named = self._named(f"{SEARCHES}/{search.id}.json")
            self._searches[key] = named | self._of_node(self._plan.nodes[search.parent])
        return self._searches[key]

    def _of_node(self, node: Node) -> set[str]:
        return _union(self._parts[part.key] for part in node.parts)

    def _named(self, name: str) -> set[str]:
        """Return the kinds of device that a record or a result names."""
        content: Any = self._release.subject.json(name)
        with damaged(name):
            entries = [content, *content.get("tensors", {}).values()]
            return {str(entry["device"]) for entry in entries if "device" in entry}


def _union(sets: Iterable[set[str]]) -> set[str]:
    return set().union(*sets)
