"""What moved upstream, for a terminal, for the body of a pull request, and for machines.

Names, licences and configurations come from upstream: on a terminal they are stripped of what is not seen, in Markdown
they are escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from herdbook.escape import Markdown, code, md, one_line
from herdbook.refresh.difference import Difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from herdbook.lock import LockedFile, LockedTensor
    from herdbook.refresh.consequence import Again
    from herdbook.refresh.difference import Change
    from herdbook.refresh.upstream import News

SHOWN = 20  # files, tensors or facts of a source; a pull request's body has a limit. JSON has all.
SHOWN_DIGITS = 12
SAME = "every file, tensor and fact is as it was"
NOTHING = "nothing moved upstream; the lock stays as it is, byte for byte"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Report:
    """What became of one recipe's lock.

    Args:
        recipe: The recipe's path as the person typed it.
        news: What upstream says of each source.
        again: What a build would make again; empty if nothing moved.
        problems: Why the recipe cannot be built with what is upstream now; the lock stays as it is then.
    """

    recipe: str
    news: Sequence[News]
    again: Sequence[Again] = ()
    problems: Sequence[str] = ()

    @property
    def moved(self) -> int:
        """How many sources moved."""
        return self._count("moved")

    @property
    def unavailable(self) -> int:
        """How many sources cannot be had."""
        return self._count("unavailable")

    def _count(self, state: str) -> int:
        return sum(news.state == state for news in self.news)

    @property
    def headline(self) -> str:
        """What happened, in a line that quotes nobody."""
        if not self.news:
            return "no source is upstream, so nothing can move"
        lost = f"; {self.unavailable} cannot be had" if self.unavailable else ""
        if not self.moved:
            return f"nothing else moved upstream{lost}" if lost else NOTHING
        return f"{self.moved} of {len(self.news)} sources moved upstream{lost}"


def as_text(report: Report) -> str:
    """Return a report for a terminal."""
    lines = [f"{report.recipe}: {report.headline}"]
    for news in report.news:
        if news.state == "moved":
            lines.append(one_line(f"{news.name} ({news.place}): {_step(news)}"))
        else:
            lines.append(one_line(f"{news.name} ({news.place}): {news.state}"))
        details = [*([news.trouble] if news.trouble else []), *news.notes]
        if news.difference:
            details += list(_details(news.difference))
        lines += [f"  {one_line(line)}" for line in details]
    if report.problems:
        lines.append("the lock stays as it is: with what is upstream now, this recipe cannot be built:")
        lines += [f"  {one_line(problem)}" for problem in report.problems]
    if report.again:
        lines.append(f"a build would make again: {', '.join(map(_spell, _some(report.again)))}")
    return "\n".join(lines)


def as_markdown(report: Report) -> str:
    """Return a report as Markdown, for the body of a pull request or the summary of a workflow's run."""
    blocks = [f"## {code(report.recipe)}", f"{report.headline[0].upper()}{report.headline[1:]}."]
    for news in report.news:
        if news.state != "unchanged" or news.notes:
            blocks += _section(news)
    if still := [news.name for news in report.news if news.state == "unchanged"]:
        blocks.append(f"Unchanged: {', '.join(map(code, still))}.")
    if report.problems:
        blocks.append("**The lock stays as it is: with what is upstream now, this recipe cannot be built.**")
        blocks.append("\n".join(f"- {md(problem)}" for problem in report.problems))
    if report.again:
        rows = [
            (code(one.rule), str(one.again), str(one.jobs), _size(one.size_bytes)) for one in report.again
        ]
        blocks += ["### What a build makes again", _table(("rule", "again", "of", "weights"), rows)]
    return "\n\n".join(blocks) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """Return a report for machines: everything, with whole digests."""
    return {
        "recipe": report.recipe,
        "moved": report.moved,
        "unavailable": report.unavailable,
        "sources": [
            {
                "name": news.name,
                "place": news.place,
                "state": news.state,
                "before": news.before,
                "after": news.after,
                "files": [change.as_json() for change in news.difference.files] if news.difference else [],
                "tensors": [change.as_json() for change in news.difference.tensors]
                if news.difference
                else [],
                "facts": list(news.difference.facts) if news.difference else [],
                "notes": list(news.notes),
                "trouble": news.trouble or None,
            }
            for news in report.news
        ],
        "again": [
            {"rule": one.rule, "again": one.again, "jobs": one.jobs, "size_bytes": one.size_bytes}
            for one in report.again
        ],
        "problems": list(report.problems),
    }


def _step(news: News) -> str:
    if news.before == news.after:
        return f"still at {news.after[:SHOWN_DIGITS]}, but not as it was"
    return f"{news.before[:SHOWN_DIGITS]} -> {news.after[:SHOWN_DIGITS]}"


def _details(difference: Difference) -> Iterator[str]:
    if difference == Difference():
        yield SAME
    yield from _listed([*difference.facts], str)
    yield from _listed([*difference.files], lambda change: _line(change, _file))
    yield from _listed([*difference.tensors], lambda change: f"tensor {_line(change, _tensor)}")


def _line(change: Change[Any], spell: Any) -> str:
    states = " -> ".join(spell(state) for state in (change.before, change.after) if state)
    return f"{change.name}: {change.word}, {states}"


def _listed(items: list[Item], spell: Any) -> Iterator[str]:
    yield from (spell(item) for item in items[:SHOWN])
    if len(items) > SHOWN:
        yield f"and {len(items) - SHOWN} more"


def _file(file: LockedFile) -> str:
    return f"{_size(file.size_bytes)} {(file.sha256 or file.git_blob or '')[:SHOWN_DIGITS]}".strip()


def _tensor(tensor: LockedTensor) -> str:
    return f"{tensor.dtype} {'x'.join(map(str, tensor.shape)) or 'scalar'}"


def _section(news: News) -> Iterator[str]:
    yield f"### {code(news.name)}, {md(news.place)}"
    if news.trouble:
        yield f"**Cannot be had.** {md(news.trouble)}"
    yield from (f"**Note:** {md(note)}." for note in news.notes)
    difference = news.difference
    if difference is None:
        return
    if news.before == news.after:
        yield f"Still at {code(news.after)}, but not as it was."
    else:
        yield f"{code(news.before)} → {code(news.after)}"
    if difference == Difference():
        yield f"{SAME[0].upper()}{SAME[1:]}."
    if difference.facts:
        yield "\n".join(f"- {md(fact)}" for fact in _listed([*difference.facts], str))
    if difference.files:
        yield _changes("file", difference.files, _file)
    if difference.tensors:
        yield _changes("tensor", difference.tensors, _tensor)


def _changes(what: str, changes: Sequence[Change[Any]], spell: Any) -> str:
    rows = [
        (
            code(change.name),
            change.word,
            *(code(spell(state)) if state else "" for state in (change.before, change.after)),
        )
        for change in changes[:SHOWN]
    ]
    more = f"\n\nand {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return _table((what, "", "was", "is"), rows) + more


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markdown:
    lines = [head, ["---"] * len(head), *rows]
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def _some(again: Sequence[Again]) -> list[Again]:
    return [one for one in again if one.again]


def _spell(one: Again) -> str:
    size = f" ({_size(one.size_bytes)})" if one.size_bytes else ""
    return f"{one.rule} {one.again} of {one.jobs}{size}"


def _size(size_bytes: int) -> str:
    """Return a size in the largest unit that leaves a whole digit; nothing for nothing."""
    for unit, divisor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= divisor:
            return f"{size_bytes / divisor:.2f} {unit}"
    return f"{size_bytes} B" if size_bytes else ""
