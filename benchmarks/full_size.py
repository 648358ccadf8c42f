"""Buttercup-4x7B at full size on simulated nodes: each job's time from the plan and measured rates, and their schedule."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from gantt import draw
from listed import parents, read, snakemake
from rates import program_seconds
from schedule import NODE, Machine, Task, critical_path, simulate

from herdbook import plan as plans
from herdbook.needs import Rates, seconds
from herdbook.plan.jobs import jobs as planned_jobs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from listed import Listed
    from schedule import Schedule

    from herdbook.plan import Plan
    from herdbook.plan.job import Job

HOST = "host"
DRY = ("--dry-run", "--profile", "profiles/slurm", "--config", "device=cuda")
NODES = (1, 2, 4, 8, 16, 32, 64)


def rates_of(known: dict[str, float], options: argparse.Namespace) -> tuple[Rates, Rates]:
    """Return the rates of a core and of a GPU: measured ones, and assumed ones where measuring is not possible."""
    cpu = Rates(
        start=known["start"],
        disk=known["disk"],
        network=options.network,
        float64=known["float64"],
        float32=known["float32"],
        quantized=known["quantized"],
        token_bytes=known["token_bytes"],
    )
    gpu = replace(
        cpu,
        float64=known.get("gpu_float64", options.gpu_float64),
        float32=known.get("gpu_float32", options.gpu_float32),
    )
    return cpu, gpu


def planned(plan: Plan) -> Callable[[Listed], Job | None]:
    """Return a function from listed jobs to jobs of the plan; None for a source's configuration and tokenizer."""
    by_output = {str(path): job for job in planned_jobs(plan) for path in job.outputs}
    root = str(plan.layout.root)

    def find(job: Listed) -> Job | None:
        return by_output.get(root + job.outputs[0].removeprefix("results")) if job.rule != "files" else None

    return find


def seconds_of(plan: Plan, job: Job | None, rates: Rates, threads: int) -> float:
    """Return the time of a job in seconds at these rates."""
    if job is None or (job.subject is None and job.rule != "verify"):
        return rates.start  # links and small files
    return seconds(plan, job.subject, threads, rates)


def full_size_tasks(
    plan: Plan, jobs: Sequence[Listed], cpu: Rates, gpu: Rates, runner: float, options: argparse.Namespace
) -> list[Task]:
    """Return the jobs as tasks for nodes; jobs that are submitted together are one task, in which they run in sequence."""
    find, waits = planned(plan), parents(jobs)
    unit = {job.number: f"g{job.group}" if job.group is not None else str(job.number) for job in jobs}
    members = defaultdict(list)
    for job in jobs:
        members[unit[job.number]].append(job)
    tasks, names = [], {}
    for key, inside in members.items():
        seconds, needs = 0.0, {"cores": 1.0, "mem": 0.0, "gpu": 0.0}
        for job in inside:
            on_gpu = job.resources.get("gpu", 0) > 0 or job.rule in options.on_gpu
            rates = gpu if on_gpu else cpu
            seconds += seconds_of(plan, find(job), rates, 1 if on_gpu else job.threads)
            request = {"cores": job.threads, "mem": job.resources.get("mem_mb", 0) / 1000, "gpu": int(on_gpu)}
            needs = {name: max(amount, request[name]) for name, amount in needs.items()}
        local = all(job.local for job in inside)
        first = find(inside[0])
        label = f"{inside[0].rule} {first.label if first else ''}".rstrip()
        if len(inside) > 1:
            rules = sorted({job.rule for job in inside})
            label = f"{' and '.join(rules)}, {len(inside)} jobs" if len(rules) == 1 else " and ".join(rules)
        names[key] = label if label not in names.values() else f"{label} ({key})"
        after = frozenset(unit[number] for job in inside for number in waits[job.number]) - {key}
        kind, lag = (HOST, 0.0) if local else (NODE, options.delay)
        seconds += 0 if local else runner
        tasks.append((key, seconds, after, {"cores": 1.0} if local else needs, kind, lag))
    return [
        Task(names[key], seconds, frozenset(names[parent] for parent in after), needs, kind, lag)
        for key, seconds, after, needs, kind, lag in tasks
    ]


def runner(folder: Path) -> float:
    """Return the seconds that Snakemake takes to read workflow and plan on a node: in two processes, in sequence."""
    return 2 * program_seconds(lambda: snakemake(folder, *DRY))


def full_size(folder: Path, known: dict[str, float], options: argparse.Namespace) -> None:
    """Simulate and print."""
    cpu, gpu = rates_of(known, options)
    plan = plans.load(folder / "config/buttercup.yaml", folder / "results")
    jobs = read(snakemake(folder, *DRY))
    tasks = full_size_tasks(plan, jobs, cpu, gpu, known["runner"], options)
    print("Rates:")
    for name, value in asdict(cpu).items():
        print(f"  {name:12}{value:12.4g}   {'measured' if name in known else 'assumed'}")
    print(f"  {'runner':12}{known['runner']:12.4g}   measured")
    how = "measured" if "gpu_float64" in known else "assumed"
    print(f"  {'GPU float64':12}{gpu.float64:12.4g}   {how}\n  {'GPU float32':12}{gpu.float32:12.4g}   {how}")
    print(f"\n{plan.recipe.release.name} at full size: {len(jobs)} jobs in {len(tasks)} tasks")
    print("\n| nodes | wall time | speed-up | cores busy | GPUs busy | longest first |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    path = critical_path(tasks)
    total = sum(task.seconds + task.lag for task in path) - path[-1].lag
    schedules = {count: nodes(tasks, count, options, "ready") for count in NODES}
    for count, schedule in schedules.items():
        longest = nodes(tasks, count, options, "longest")
        first = schedules[NODES[0]].seconds
        cells = (
            str(count),
            clock(schedule.seconds),
            f"{first / schedule.seconds:.2f}",
            f"{schedule.utilisation('cores'):.0%}",
            f"{schedule.utilisation('gpu'):.0%}",
            clock(longest.seconds),
        )
        print(f"| {' | '.join(cells)} |")
    enough = next(
        (count for count, schedule in schedules.items() if schedule.seconds < 1.01 * total), NODES[-1]
    )
    print(f"\nWith {enough} nodes the wall time is that of the critical path; more nodes do not shorten it.")
    if options.figure:
        title = f"{plan.recipe.release.name} on {enough} GPU nodes, simulated"
        options.figure.write_text(draw(schedules[enough], path, title), encoding="utf-8")
    print(f"\nCritical path, {clock(total)}:\n\n| job | time | share |\n| --- | ---: | ---: |")
    for task in path:
        print(f"| {task.name} | {clock(task.seconds)} | {task.seconds / total:.0%} |")
    lag = sum(task.lag for task in path[:-1])
    print(f"| until ends are noticed | {clock(lag)} | {lag / total:.0%} |")


def nodes(tasks: Sequence[Task], count: int, options: argparse.Namespace, order: Any) -> Schedule:
    """Simulate on a number of nodes and the submitting host."""
    node = Machine({"cores": options.cores, "mem": options.memory, "gpu": 1})
    return simulate(tasks, [Machine({"cores": 2}, HOST), *[node] * count], order)


def clock(seconds: float) -> str:
    """Return a time in seconds, minutes or hours, for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
