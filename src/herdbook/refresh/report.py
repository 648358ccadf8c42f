"""The report of a refresh: for a terminal, for the body of a pull request, and as JSON.

Names, licenses and configurations come from upstream: for a terminal, invisible characters are replaced; in Markdown, the
text is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from herdbook.escape import Markdown, code, md, one_line
from herdbook.humanize import size
from herdbook.refresh.difference import PinDifference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from herdbook.lock import LockedFile, LockedTensor
    from herdbook.refresh.difference import Change, Thing
    from herdbook.refresh.impact import RebuildCount
    from herdbook.refresh.upstream import UpstreamChange

SHOWN = (
    20  # files, tensors or facts of a source: the body of a pull request is limited. The JSON contains all.
)
SHOWN_DIGITS = 12
SAME = "files, tensors and facts are unchanged"
NOTHING = "nothing moved upstream; the lock is unchanged, byte for byte"

Item = TypeVar("Item")


@dataclass(frozen=True)
class RefreshReport:
    """The result of refreshing one recipe's lock.

    Args:
        recipe: The recipe's path as the user typed it.
        sources: The state of each source upstream.
        rebuild: What a build would rebuild; empty if nothing moved.
        problems: Why the recipe cannot be built with the new pins; the lock is not changed then.
    """

    recipe: str
    sources: Sequence[UpstreamChange]
    rebuild: Sequence[RebuildCount] = ()
    problems: Sequence[str] = ()

    @property
    def moved(self) -> int:
        """How many sources moved."""
        return self._count("moved")

    @property
    def unavailable(self) -> int:
        """How many sources are unavailable."""
        return self._count("unavailable")

    def _count(self, state: str) -> int:
        return sum(change.state == state for change in self.sources)

    @property
    def headline(self) -> str:
        """What happened, in a line that contains no text from upstream."""
        if not self.sources:
            return "the recipe has no sources upstream, so nothing can move"
        unavailable = f"; {self.unavailable} unavailable" if self.unavailable else ""
        if not self.moved:
            return f"nothing else moved upstream{unavailable}" if unavailable else NOTHING
        return f"{self.moved} of {len(self.sources)} sources moved upstream{unavailable}"


def as_text(report: RefreshReport) -> str:
    """Return a report for a terminal."""
    lines = [f"{report.recipe}: {report.headline}"]
    for change in report.sources:
        if change.state == "moved":
            lines.append(one_line(f"{change.name} ({change.place}): {_step(change)}"))
        else:
            lines.append(one_line(f"{change.name} ({change.place}): {change.state}"))
        details = [*([change.trouble] if change.trouble else []), *change.notes]
        if change.difference:
            details += list(_details(change.difference))
        lines += [f"  {one_line(line)}" for line in details]
    if report.problems:
        lines.append("the lock is not changed, because the recipe cannot be built with the new pins:")
        lines += [f"  {one_line(problem)}" for problem in report.problems]
    if report.rebuild:
        lines.append(f"a build would rebuild: {', '.join(map(_label, _affected(report.rebuild)))}")
    return "\n".join(lines)


def as_markdown(report: RefreshReport) -> str:
    """Return a report as Markdown, for the body of a pull request or the summary of a workflow's run."""
    blocks = [f"## {code(report.recipe)}", f"{report.headline[0].upper()}{report.headline[1:]}."]
    for change in report.sources:
        if change.state != "unchanged" or change.notes:
            blocks += _section(change)
    if unchanged := [change.name for change in report.sources if change.state == "unchanged"]:
        blocks.append(f"Unchanged: {', '.join(map(code, unchanged))}.")
    if report.problems:
        blocks.append("**The lock is not changed, because the recipe cannot be built with the new pins.**")
        blocks.append("\n".join(f"- {md(problem)}" for problem in report.problems))
    if report.rebuild:
        rows = [
            (
                code(count.rule),
                str(count.rebuilt),
                str(count.jobs),
                size(count.size_bytes) if count.size_bytes else "",
            )
            for count in report.rebuild
        ]
        blocks += ["### What a build rebuilds", _table(("rule", "rebuilt", "of", "weights"), rows)]
    return "\n\n".join(blocks) + "\n"


def as_json(report: RefreshReport) -> dict[str, Any]:
    """Return a report as JSON: complete, with full digests."""
    return {
        "recipe": report.recipe,
        "moved": report.moved,
        "unavailable": report.unavailable,
        "sources": [
            {
                "name": change.name,
                "place": change.place,
                "state": change.state,
                "before": change.before,
                "after": change.after,
                "files": [change.as_json() for change in change.difference.files]
                if change.difference
                else [],
                "tensors": [change.as_json() for change in change.difference.tensors]
                if change.difference
                else [],
                "facts": list(change.difference.facts) if change.difference else [],
                "notes": list(change.notes),
                "trouble": change.trouble or None,
            }
            for change in report.sources
        ],
        "rebuild": [
            {
                "rule": count.rule,
                "rebuilt": count.rebuilt,
                "jobs": count.jobs,
                "size_bytes": count.size_bytes,
            }
            for count in report.rebuild
        ],
        "problems": list(report.problems),
    }


def _step(change: UpstreamChange) -> str:
    if change.before == change.after:
        return f"still at {change.after[:SHOWN_DIGITS]}, but with other content"
    return f"{change.before[:SHOWN_DIGITS]} -> {change.after[:SHOWN_DIGITS]}"


def _details(difference: PinDifference) -> Iterator[str]:
    if difference == PinDifference():
        yield SAME
    yield from _listed([*difference.facts], str)
    yield from _listed([*difference.files], lambda change: _line(change, _file))
    yield from _listed([*difference.tensors], lambda change: f"tensor {_line(change, _tensor)}")


def _line(change: Change[Thing], label: Callable[[Thing], str]) -> str:
    states = " -> ".join(label(state) for state in (change.before, change.after) if state)
    return f"{change.name}: {change.word}, {states}"


def _listed(items: list[Item], label: Callable[[Item], str]) -> Iterator[str]:
    yield from (label(item) for item in items[:SHOWN])
    if len(items) > SHOWN:
        yield f"and {len(items) - SHOWN} more"


def _file(file: LockedFile) -> str:
    return f"{size(file.size_bytes) if file.size_bytes else ''} {(file.sha256 or file.git_blob or '')[:SHOWN_DIGITS]}".strip()


def _tensor(tensor: LockedTensor) -> str:
    return f"{tensor.dtype} {'x'.join(map(str, tensor.shape)) or 'scalar'}"


def _section(change: UpstreamChange) -> Iterator[str]:
    yield f"### {code(change.name)}, {md(change.place)}"
    if change.trouble:
        yield f"**Unavailable.** {md(change.trouble)}"
    yield from (f"**Note:** {md(note)}." for note in change.notes)
    difference = change.difference
    if difference is None:
        return
    if change.before == change.after:
        yield f"Still at {code(change.after)}, but with other content."
    else:
        yield f"{code(change.before)} → {code(change.after)}"
    if difference == PinDifference():
        yield f"{SAME[0].upper()}{SAME[1:]}."
    if difference.facts:
        yield "\n".join(f"- {md(fact)}" for fact in _listed([*difference.facts], str))
    if difference.files:
        yield _changes("file", difference.files, _file)
    if difference.tensors:
        yield _changes("tensor", difference.tensors, _tensor)


def _changes(kind: str, changes: Sequence[Change[Thing]], label: Callable[[Thing], str]) -> str:
    rows = [_row(change, label) for change in changes[:SHOWN]]
    more = f"\n\nand {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return _table((kind, "", "was", "is"), rows) + more


def _row(change: Change[Thing], label: Callable[[Thing], str]) -> list[str]:
    states: list[str] = [code(label(state)) if state else "" for state in (change.before, change.after)]
    return [code(change.name), change.word, *states]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markdown:
    lines = [head, ["---"] * len(head), *rows]
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def _affected(counts: Sequence[RebuildCount]) -> list[RebuildCount]:
    return [count for count in counts if count.rebuilt]


def _label(count: RebuildCount) -> str:
    weights = f" ({size(count.size_bytes)})" if count.size_bytes else ""
    return f"{count.rule} {count.rebuilt} of {count.jobs}{weights}"
