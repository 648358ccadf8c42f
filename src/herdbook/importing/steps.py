"""Several configurations that build on each other: which uses which, in what order, and which one is released."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from herdbook.graph import reachable
from herdbook.importing.reading import read

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from herdbook.importing.configuration import Configuration
    from herdbook.importing.finding import Found
    from herdbook.importing.references import Place
    from herdbook.importing.value import Notes


@dataclass(frozen=True)
class Step:
    """A configuration among several.

    Args:
        number: Its position in the text.
        configuration: The configuration.
        name: Its ``name``, or empty.
        labels: What the text calls it otherwise.
    """

    number: int
    configuration: Configuration
    name: str
    labels: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where it is."""
        return (
            f"{self.name!r} ({self.configuration.value.place})"
            if self.name
            else self.configuration.value.place
        )


def steps_of(found: Sequence[Found]) -> list[Step]:
    """Read configurations as far as they can be read; none if one cannot. All problems are noted."""
    steps: list[Step] = []
    for one in found:
        configuration = read(one.value)
        name = one.value.get("name")
        text = "" if name is None else name.text() or ""
        if configuration is not None:
            steps.append(Step(len(steps), configuration, text, one.labels))
    return steps if len(steps) == len(found) else []


class Steps:
    """The steps of a text.

    Args:
        steps: All of them, in the order of the text.
        notes: Notes on them.
        known: Names that are not those of steps, since the user defines what they are.
    """

    def __init__(self, steps: Sequence[Step], notes: Notes, known: Container[str] = ()) -> None:
        self.steps, self.notes, self._known = steps, notes, known
        seen: set[str] = set()
        for step in steps:
            if step.name in seen:
                step.configuration.value.child("name").refuse(f"another step is called {step.name!r}, too")
            if step.name:
                seen.add(step.name)

    def match(self, place: Place, user: Step) -> Step | None:
        """Return the step that a model of another step is; None if it is not one."""
        if place.path in self._known:
            return None
        exact = [step for step in self.steps if step.name and step.name == place.path]
        if exact:
            return exact[0]
        if place.is_on_hub:
            return None
        last = place.last.casefold()
        by_name = [step for step in self.steps if step.name.casefold() == last and step is not user]
        by_label = [
            step
            for step in self.steps
            if step is not user and last in {label.casefold() for label in step.labels}
        ]
        # a text that calls several steps the same means the one before
        found = by_name or [step for step in by_label if step.number < user.number][-1:] or by_label
        return found[0] if found else None

    def parents(self, step: Step) -> list[Step]:
        """Return the steps that a step uses, each once."""
        matches = (self.match(reference.model, step) for reference in step.configuration.references)
        return list({match.number: match for match in matches if match}.values())

    def ends(self) -> list[Step]:
        """Return the steps that no other step uses; none if they use each other in a circle."""
        used = {parent.number for step in self.steps for parent in self.parents(step)}
        return [step for step in self.steps if step.number not in used]

    def in_order(self) -> list[Step]:
        """Return the steps that are needed, each after those that it uses; the last one is released.

        The released one is a step that no other uses: one without a name, as in mergekit-multi, that
        most steps lead to, or else the last. Steps that
        use each other in a circle are refused, and then there are none. Steps that are not used are named.
        """
        graph = {step.number: [parent.number for parent in self.parents(step)] for step in self.steps}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            cycle = [self.steps[number].place for number in reversed(error.args[1])]
            self.notes.refuse(f"steps use each other in a circle: {' -> '.join(cycle)}")
            return []
        ends = self.ends()
        unnamed = [step for step in ends if not step.name] if any(step.name for step in self.steps) else []
        # of several, what most steps lead to
        released = max(
            unnamed or ends, key=lambda step: (len(reachable([step.number], lambda n: graph[n])), step.number)
        )
        needed = set(reachable([released.number], lambda number: graph[number]))
        for step in self.steps:
            if step.number not in needed:
                self.notes.assume(
                    f"the step {step.place}: left out; {released.place} is released, and does not use it",
                    "release",
                    "model",
                )
        return [self.steps[number] for number in order if number in needed and number != released.number] + [
            released
        ]
