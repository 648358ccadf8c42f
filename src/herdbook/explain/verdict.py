"""Which jobs a build would run, and why: the plan's keys are compared with the results folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook import lock as locks
from herdbook.changes import changed_parameters
from herdbook.explain import difference
from herdbook.explain.past import noted_key, older
from herdbook.files import sha256_file
from herdbook.graph import reachable
from herdbook.layout import LOCK, RECIPE
from herdbook.plan import Evaluation, FileLoss, Part, Reference, RoutingReport, Search
from herdbook.plan.evaluate import EVALUATE_CODE
from herdbook.plan.jobs import ASSEMBLE, jobs
from herdbook.plan.release import contents

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from herdbook.plan import Plan
    from herdbook.plan.job import Job
    from herdbook.signing.signer import Signer

MISSING = "no result exists for this or any earlier key"


class Verdict:
    """Which jobs a build of a plan would run.

    A job runs if its outputs are missing and needed. A job whose file names do not contain its key also runs if its output
    was made with another key, or if another job makes one of its inputs. Snakemake also compares modification times, which
    is not done here: new contents get new file names.

    Args:
        plan: The plan.
        signer: Who signs the claims; None if nobody does.
        offered: Missing files that the cache contains. They are restored, and nothing is built for them.
    """

    def __init__(
        self, plan: Plan, signer: Signer | None = None, offered: Collection[Path] = frozenset()
    ) -> None:
        self._plan = plan
        self.jobs = jobs(plan, signer)
        makers = {path: job for job in self.jobs for path in job.outputs}
        self.parents = {
            job: list(dict.fromkeys(makers[path] for path in job.inputs if path in makers))
            for job in self.jobs
        }
        self._missing = {job for job in self.jobs if not all(path.exists() for path in job.outputs)}
        self._offered = {
            job for job in self._missing if all(path in offered for path in job.outputs if not path.exists())
        }
        self._other_key = {
            job
            for job in self.jobs
            if job not in self._missing and noted_key(job.outputs[0]) not in {None, job.key}
        }
        self.run = self._jobs_to_run()

    def _jobs_to_run(self) -> set[Job]:
        """Return the jobs that run: those with another key, what they need and lack, and what is made from their outputs."""
        children: dict[Job, list[Job]] = {job: [] for job in self.jobs}
        for job, parents in self.parents.items():
            for parent in parents:
                children[parent].append(job)
        # Every file of a release is a goal of the build; its jobs have no id.
        goals = [job for job in self.jobs if not job.id and job in self._missing]

        def runs_too(job: Job) -> list[Job]:
            dependent = [child for child in children[job] if not child.id]
            if job in self._offered:
                return dependent
            return dependent + [parent for parent in self.parents[job] if parent in self._missing]

        return set(reachable([*self._other_key, *goals], runs_too))

    def sentence(self, job: Job) -> str:
        """Return in a few words whether a job runs."""
        if job in self.run and job in self._offered:
            return "would be restored from the cache"
        if job in self.run:
            before = older(job) if job.id else any(path.exists() for path in job.outputs)
            return "would be rebuilt" if before or job not in self._missing else "would be built"
        if job in self._missing:
            return "missing, but not needed"
        return "up to date"

    def reasons(self, job: Job, told: Collection[Job] = frozenset()) -> list[str]:
        """Return why a job runs: its own reasons, then the first causes among its ancestors.

        Args:
            job: The job.
            told: Jobs whose own reasons the reader has seen. As causes of others, they are only named.
        """
        own = list(self._own(job))
        if own == [MISSING]:
            return own
        causes: dict[str, list[tuple[Job, Job]]] = {}
        seen = {job}
        pending = [(parent, parent) for parent in self.parents[job] if parent in self.run]
        while pending:
            ancestor, first = pending.pop(0)
            if ancestor in seen:
                continue
            seen.add(ancestor)
            inherited = list(self._own(ancestor))
            for cause in inherited:
                causes.setdefault(cause, []).append((ancestor, first))
            if inherited != [MISSING]:
                pending += [(parent, first) for parent in self.parents[ancestor] if parent in self.run]
        before = older(job) if own and job.id else None
        compared = f" (compared with {before[0]})" if before else ""
        reasons = [f"{cause}{compared}" for cause in own]
        by_roots: dict[tuple[tuple[Job, Job], ...], list[str]] = {}
        for cause, roots in causes.items():
            by_roots.setdefault(tuple(roots), []).append(cause)
        reasons += dict.fromkeys(self._because(found, roots, told) for roots, found in by_roots.items())
        return reasons or [_fallback(job)]

    def _own(self, job: Job) -> Iterator[str]:
        """Yield the reasons of a job that are not those of a job before it."""
        if job.id:
            if job not in self._missing:
                return
            before = older(job)
            if before is None:
                yield MISSING
                return
            sentences = list(self._against(job, before[1]))
            yield from sentences or ([] if self._follows(job) else [_fallback(job)])
        elif not any(path.exists() for path in job.outputs):
            yield "no result exists"
        elif job in self._missing and noted_key(job.outputs[0]) in {None, job.key}:
            missing = [path for path in job.outputs if not path.exists()]
            yield (
                f"{missing[0]} is missing"
                if len(missing) == 1
                else f"{missing[0]} and {len(missing) - 1} more are missing"
            )
        elif job in self._other_key or job in self._missing:
            yield from self._release_changed(job)

    def _follows(self, job: Job) -> bool:
        """Return whether another job that runs makes one of a job's inputs, which is reason enough."""
        return any(parent in self.run for parent in self.parents[job])

    def _against(self, job: Job, record: dict[str, Any]) -> Iterator[str]:
        """Yield the differences between a job and the record of an older result of the same name."""
        match job.subject:
            case Part() as part:
                if record.get("operation") != part.rule:
                    yield f"it was made by {record.get('operation')}, now by {part.rule}"
                yield from difference.parameters(
                    self._without_keys(job, record.get("parameters", {})),
                    self._without_keys(job, part.operation.parameters),
                )
                yield from difference.code(record.get("code", {}), part.code.json)
                recorded = record.get("tensors", {})
                yield from difference.tensors(recorded, part.tensors)
                if not self._follows(job):
                    yield from difference.parents(self._plan, recorded, part)
                yield from difference.order(recorded, part)
            case Search() as search:
                yield from changed_parameters(record.get("parameters", {}), search.parameters)
                yield from difference.code(record.get("code", {}), search.code.json)
            case RoutingReport() | Reference() | FileLoss() as reading:
                yield from difference.code(record.get("code", {}), reading.code.json)
            case Evaluation() as measured:
                now = {
                    name: measured.settings.get(name) for name in ("limit", "batch_size", "dtype", "tasks")
                }
                before = {name: record.get("settings", {}).get(name) for name in now}
                yield from changed_parameters(before, now)
                yield from difference.code(record.get("code", {}), EVALUATE_CODE.describe().json)

    def _without_keys(self, job: Job, parameters: dict[str, Any]) -> dict[str, Any]:
        """Leave out parameters that are keys of another job's output if that job runs: then its reasons are given."""
        if not self._follows(job):
            return parameters
        return {name: value for name, value in parameters.items() if name not in {"search", "model"}}

    def _because(self, causes: list[str], roots: tuple[tuple[Job, Job], ...], told: Collection[Job]) -> str:
        """Return a sentence on jobs that run because of the same causes, of which another is made."""
        root, first = roots[0]
        more = f" and {len(roots) - 1} similar" if len(roots) > 1 else ""
        through = "" if root is first else f", by way of {first.name}"
        action = "restored from the cache" if root in self._offered else "rebuilt"
        why = "" if all(job in told for job, _ in roots) else f", because {'; '.join(causes)}"
        return f"{root.name}{more} will be {action}{through}{why}"

    def _release_changed(self, job: Job) -> Iterator[str]:
        """Yield why a job of the release as a whole has another key, by comparison with the last release."""
        plan, folder = self._plan, self._plan.layout.release_folder
        if job.rule == "card":
            if _differs(folder / RECIPE, plan.recipe_path):
                yield "the recipe's text changed"
            folders = [one.layout.release_folder for one in plan.editions]
            old = {path.relative_to(one).as_posix() for one in folders for path in one.rglob("*.json")}
            results = {name for name in contents(plan) if name.endswith(".json") and "-" in name}
            new = sorted(name for name in results - old)
            if new and not self._follows(job):
                yield f"it describes other results: {new[0]}{', …' if len(new) > 1 else ''}"
        elif job.rule == "release" and _differs(folder / LOCK, locks.path_for(plan.recipe_path)):
            yield "the lock changed"
        if not self._follows(job) and job.rule != "card":
            yield _fallback(job)


def _differs(old: Path, new: Path) -> bool:
    return old.exists() and new.exists() and sha256_file(old) != sha256_file(new)


def _fallback(job: Job) -> str:
    match job.rule:
        case "card":
            return "the code, the templates or the snapshots that it is rendered from changed"
        case "release" | "attest" | "verify":
            return "the code that makes it, or the signer, changed"
        case rule if rule == ASSEMBLE:
            return "its shards, its configuration or its tokenizer changed"
    return "its key changed, because of something that its record does not contain"
