"""Simulated schedules: when dependent jobs would run on a number of machines, and what the total time depends on.

List scheduling, as in Snakemake and SLURM: whenever a job ends, the jobs that are ready are considered in order, and each
begins on the first machine that has the resources that it requests (Graham 1969, "Bounds on multiprocessing timing
anomalies"). No machine idles on purpose, and no job is interrupted.
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
    """A job, or several that are submitted together.

    Args:
        name: Its unique name.
        seconds: How long it runs.
        after: Names of the tasks that it waits for.
        needs: How much of each resource it uses while it runs, by name.
        kind: The kind of machine that it runs on.
        lag: Seconds from its end until the tasks that wait for it can begin, since a scheduler is polled at intervals.
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
    """When and where a task ran, and the task whose end let it begin; None if it began immediately."""

    begin: float
    end: float
    machine: int
    waited_for: str | None


@dataclass(frozen=True)
class Schedule:
    """The result of a simulation.

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
        """Return the mean share of a resource that was in use, over all machines of a kind and the whole time."""
        available = sum(machine.has.get(resource, 0) for machine in self.machines if machine.kind == kind)
        used = sum(
            task.seconds * task.needs.get(resource, 0) for task in self.tasks.values() if task.kind == kind
        )
        return used / (available * self.seconds) if available and self.seconds else 0.0

    def last_chain(self) -> list[str]:
        """Return the chain of tasks that determined the end: each waited for the one before, for its output or machine."""
        name: str | None = max(self.runs, key=lambda task: self.runs[task].end, default=None)
        chain = []
        while name is not None:
            chain.append(name)
            name = self.runs[name].waited_for
        return chain[::-1]


def remaining(tasks: Sequence[Task]) -> dict[str, float]:
    """Return, for each task, the seconds from its beginning to the end of all tasks on unlimited machines."""
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
    """Return the longest chain of dependent tasks, which bounds the time on any number of machines."""
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
        order: Which of the ready tasks begins first: the one that was ready first, as in queues, or the one with the
            longest time to the end.

    Raises:
        ValueError: If a task requests more than any machine of its kind has.
        graphlib.CycleError: If tasks wait for each other in a cycle.
    """
    by_name = {task.name: task for task in tasks}
    index = {task.name: number for number, task in enumerate(tasks)}
    left = remaining(tasks)
    for task in tasks:
        if not any(_fits(task, machine.has, machine) for machine in machines):
            raise ValueError(f"{task.name} requests more than a machine has: {dict(task.needs)}")
    free = [dict(machine.has) for machine in machines]
    waiting = {task.name: set(task.after) for task in tasks}
    children: dict[str, list[str]] = {task.name: [] for task in tasks}
    for task in tasks:
        for parent in task.after:
            children[parent].append(task.name)
    ready: dict[str, float] = {task.name: 0.0 for task in tasks if not task.after}
    keys: dict[Order, Callable[[str], tuple[float, ...]]] = {
        "ready": lambda name: (ready[name], index[name]),
        "longest": lambda name: (-left[name], index[name]),
    }
    opened: dict[str, str] = {}  # by task: the last of those that it waited for
    events: list[tuple[float, int, str, bool]] = []  # time, index, task, whether its end has been noticed
    runs: dict[str, Run] = {}
    now, freed = 0.0, None
    while ready or events:
        for name in sorted(ready, key=keys[order]):
            task = by_name[name]
            machine = next(
                (n for n, candidate in enumerate(machines) if _fits(task, free[n], candidate)), None
            )
            if machine is None:
                continue
            for resource, amount in task.needs.items():
                free[machine][resource] -= amount
            cause = opened.get(name) if ready[name] == now else freed
            runs[name] = Run(now, now + task.seconds, machine, cause)
            heapq.heappush(events, (now + task.seconds, index[name], name, False))
            del ready[name]
        if not events:
            break
        now = events[0][0]
        while events and events[0][0] == now:
            _, _, name, is_noticed = heapq.heappop(events)
            task = by_name[name]
            if not is_noticed:
                for resource, amount in task.needs.items():
                    free[runs[name].machine][resource] += amount
                freed = name
                if task.lag:
                    heapq.heappush(events, (now + task.lag, index[name], name, True))
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
