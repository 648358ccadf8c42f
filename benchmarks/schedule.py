"""Simulated schedules: when jobs that wait for each other would run on so many machines, and what that time hangs on.

List scheduling, as Snakemake and SLURM do it: whenever something ends, the jobs that can begin are looked through in
order, and each begins on the first machine that has what it asks for (Graham 1969, "Bounds on multiprocessing timing
anomalies"). No machine idles on purpose, and no job is stopped.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NODE = "node"
Order = Literal["ready", "longest"]


@dataclass(frozen=True)
class Task:
    """A job, or several that are submitted as one.

    Args:
        name: What it is called; no two have the same name.
        seconds: How long it runs.
        after: Names of the tasks that it waits for.
        needs: How much of each resource it takes while it runs, by name.
        kind: The kind of machine that it runs on.
        lag: Seconds from its end until what waits for it can begin, as a scheduler is asked now and then only.
    """

    name: str
    seconds: float
    after: frozenset[str] = frozenset()
    needs: Mapping[str, float] = field(default_factory=lambda: {"cores": 1}, hash=False)
    kind: str = NODE
    lag: float = 0.0


@dataclass(frozen=True)
class Machine:
    """A machine: how much of each resource it has, by name, and its kind."""

    has: Mapping[str, float]
    kind: str = NODE


@dataclass(frozen=True)
class Run:
    """When and where a task ran, and the task whose end let it begin; none if it began at once."""

    begin: float
    end: float
    machine: int
    waited_for: str | None


@dataclass(frozen=True)
class Schedule:
    """What a simulation found.

    Args:
        tasks: The tasks, by name.
        machines: The machines.
        runs: When each task ran, by name.
    """

    tasks: Mapping[str, Task]
    machines: Sequence[Machine]
    runs: Mapping[str, Run]

    @property
    def seconds(self) -> float:
        """The time from the first begin to the last end."""
        return max((run.end for run in self.runs.values()), default=0.0)

    def utilisation(self, resource: str, kind: str = NODE) -> float:
        """Return which share of a resource of all machines of a kind was in use, over the whole time."""
        there = sum(machine.has.get(resource, 0) for machine in self.machines if machine.kind == kind)
        used = sum(
            task.seconds * task.needs.get(resource, 0) for task in self.tasks.values() if task.kind == kind
        )
        return used / (there * self.seconds) if there and self.seconds else 0.0

    def last_chain(self) -> list[str]:
        """Return the tasks one after another that the end waited for: inputs, or the machine that another one held."""
        name: str | None = max(self.runs, key=lambda one: self.runs[one].end, default=None)
        chain = []
        while name is not None:
            chain.append(name)
            name = self.runs[name].waited_for
        return chain[::-1]


def remaining(tasks: Sequence[Task]) -> dict[str, float]:
    """Return, for each task, the seconds from its begin to the end of all if nothing but inputs is waited for."""
    children: dict[str, list[str]] = {task.name: [] for task in tasks}
    for task in tasks:
        for parent in task.after:
            children[parent].append(task.name)
    by_name = {task.name: task for task in tasks}
    left: dict[str, float] = {}
    for name in reversed(list(TopologicalSorter({task.name: task.after for task in tasks}).static_order())):
        task = by_name[name]
        after = [task.lag + left[child] for child in children[name]]
        left[name] = task.seconds + max(after, default=0.0)
    return left


def critical_path(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks, one after another, that no number of machines makes shorter."""
    left = remaining(tasks)
    by_name = {task.name: task for task in tasks}
    chain: list[Task] = []
    pending = [task for task in tasks if not task.after]
    while pending:
        chain.append(max(pending, key=lambda task: left[task.name]))
        pending = [by_name[task.name] for task in tasks if chain[-1].name in task.after]
    return chain


def simulate(tasks: Sequence[Task], machines: Sequence[Machine], order: Order = "ready") -> Schedule:
    """Schedule tasks on machines.

    Args:
        tasks: The tasks.
        machines: The machines.
        order: Which of the tasks that can begin comes first: the one that could first, as queues do it, or the one
            with the longest way to the end.

    Raises:
        ValueError: If a task asks for more than any machine of its kind has.
        graphlib.CycleError: If tasks wait for each other in a circle.
    """
    by_name = {task.name: task for task in tasks}
    place = {task.name: number for number, task in enumerate(tasks)}
    left = remaining(tasks)
    for task in tasks:
        if not any(_fits(task, machine.has, machine) for machine in machines):
            raise ValueError(f"{task.name} asks for more than a machine has: {dict(task.needs)}")
    free = [dict(machine.has) for machine in machines]
    waiting = {task.name: set(task.after) for task in tasks}
    children: dict[str, list[str]] = {task.name: [] for task in tasks}
    for task in tasks:
        for parent in task.after:
            children[parent].append(task.name)
    ready: dict[str, float] = {task.name: 0.0 for task in tasks if not task.after}
    keys: dict[Order, Callable[[str], tuple[float, ...]]] = {
        "ready": lambda name: (ready[name], place[name]),
        "longest": lambda name: (-left[name], place[name]),
    }
    opened: dict[str, str] = {}  # by task: the last of those that it waited for
    events: list[tuple[float, int, str, bool]] = []  # time, number, task, whether its end is known to others
    runs: dict[str, Run] = {}
    now, freed = 0.0, None
    while ready or events:
        for name in sorted(ready, key=keys[order]):
            task = by_name[name]
            where = next((n for n, one in enumerate(machines) if _fits(task, free[n], one)), None)
            if where is None:
                continue
            for resource, amount in task.needs.items():
                free[where][resource] -= amount
            cause = opened.get(name) if ready[name] == now else freed
            runs[name] = Run(now, now + task.seconds, where, cause)
            heapq.heappush(events, (now + task.seconds, place[name], name, False))
            del ready[name]
        if not events:
            break
        now = events[0][0]
        while events and events[0][0] == now:
            _, _, name, known = heapq.heappop(events)
            task = by_name[name]
            if not known:
                for resource, amount in task.needs.items():
                    free[runs[name].machine][resource] += amount
                freed = name
                if task.lag:
                    heapq.heappush(events, (now + task.lag, place[name], name, True))
                    continue
            for child in children[name]:
                waiting[child].discard(name)
                if not waiting[child]:
                    ready[child], opened[child] = now, name
    return Schedule(by_name, machines, runs)


def _fits(task: Task, free: Mapping[str, float], machine: Machine) -> bool:
    return task.kind == machine.kind and all(
        free.get(resource, 0) >= amount for resource, amount in task.needs.items()
    )
