"""The table of docs/audit.md: what is proven of each method. Its groups follow from how tensors are recomputed."""

from pathlib import Path

from herdbook.audit.recomputation import DRAWING, ELEMENTWISE, SPARSE
from herdbook.importing.methods import ALL

DOCS = Path(__file__).parents[2] / "docs/audit.md"
BITS = "equal in bits, equal but for roundings, or not"
DRAWN = "each number is one of those that dropping or keeping elements gives, and as many are kept as the densities state"
TIES = "the same; elements of equal size at the threshold may be others"


def table():
    """Return the table: a row for the methods that are compared in the same way."""
    rows = {
        ("blocks of all tensors", BITS): [method for method in ALL if method in ELEMENTWISE],
        ("whole tensors (blocks if all densities are 1)", TIES): [
            one for one in SPARSE if one not in DRAWING
        ],
        ("whole tensors", BITS): [one for one in ALL if one not in {*ELEMENTWISE, *SPARSE}],
        ("whole tensors", DRAWN): list(DRAWING),
    }
    lines = ["| method | read | proven |", "| --- | --- | --- |"]
    for (read, proven), methods in rows.items():
        names = ", ".join(f"`{method}`" for method in sorted(methods))
        lines.append(f"| {names.replace('`passthrough`', 'scaled `passthrough`')} | {read} | {proven} |")
    lines.append("| `passthrough` | blocks of all tensors | equal, byte by byte (`equal`, as of mixtures) |")
    return "\n".join(lines)


def test_the_documentation_states_what_is_proven_of_each_method():
    print(table())
    assert table() in DOCS.read_text(encoding="utf-8")
