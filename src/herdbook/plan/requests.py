"""What models were asked, as finished measurements state it, so that the lock can pin it: any later change is then seen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from herdbook.errors import LockError
from herdbook.lock import EVERY_MODEL

if TYPE_CHECKING:
    from herdbook.lock import Lock
    from herdbook.plan.plan import Plan


def with_requests(plan: Plan) -> Lock:
    """Return a plan's lock with the digests of what models were asked, from the measurements that there are.

    Raises:
        LockError: If there is none, one is damaged, or models were asked other things in a task without a chat template.
    """
    found: dict[str, dict[str, str]] = {}
    for item in plan.evaluations:
        path = plan.layout.evaluation(item)
        if not path.exists():
            continue
        templated = {
            name: bool(asked.chat_template) for locked, asked in item.group.tasks for name in locked.titles
        }
        try:
            tasks: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["tasks"]
            stated = {name: str(tasks[name]["requests"]) for name in templated}
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise LockError(f"{path}: is damaged ({error!r}). Delete it and rerun `evaluate`.") from error
        for task, digest in stated.items():
            model = item.node.name if templated[task] else EVERY_MODEL
            if found.setdefault(task, {}).setdefault(model, digest) != digest:
                raise LockError(
                    f"{path}: {item.label} was asked other things in {task} than a model before it was. Delete the "
                    "measurements of that task and rerun `evaluate`."
                )
    if not found:
        raise LockError("no measurement is finished, so it is not known what models are asked. Build first.")
    return plan.lock.model_copy(update={"requests": found})
