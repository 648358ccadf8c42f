"""The plan, for people to read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from herdbook.humanize import size

if TYPE_CHECKING:
    from herdbook.plan import Plan


def show(plan: Plan) -> None:
    """Print the graph, the shards, bytes to fetch and to write, and the memory each step needs."""
    for node in plan.nodes.values():
        made_from = f" <- {', '.join(node.parents)}" if node.parents else ""
        print(
            f"{node.name}{made_from}  [{node.operation}, {node.parameters / 1e6:.1f} M parameters, {size(node.size_bytes)}]"
        )
        if node.search:
            print(
                f"  search {node.search.id:37} {len(node.search.parameters['matrices']):5} matrices           memory {size(node.search.memory_bytes)}"
            )
        for part in node.parts:
            print(
                f"  {part.id:44} {len(part.tensors):5} tensors {size(part.size_bytes):>9}  memory {size(part.memory_bytes)}"
            )
    for item in plan.evaluations:
        print(f"evaluate {item.id:44} memory {size(item.memory_bytes)}")
    for quantized in plan.quantized:
        print(f"quantize {quantized.id:44} memory {size(quantized.memory_bytes)}")
    print(
        f"to fetch: {size(plan.fetch_bytes)}; to write: {size(plan.write_bytes)}, of which {size(plan.missing_bytes())} are missing"
    )
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
