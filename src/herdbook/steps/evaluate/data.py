"""The data step: all data sets that evaluations read, fetched and compared with their pins; and whether tasks find documents in them.

It reads no model, so that what is wrong with a task is known before models are built and measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import hub
from herdbook.files import link, write_json
from herdbook.progress import track
from herdbook.steps.evaluate.unpacked import check_unpacked

if TYPE_CHECKING:
    from herdbook.plan import EvaluationData, Plan


def data(plan: Plan, item: EvaluationData) -> None:
    """Fetch the data sets, make all tasks of them, and write how many documents each has.

    Raises:
        SourceError: If a file cannot be downloaded.
        DigestMismatchError: If a file is not the one that was locked.
        LockError: If a task changed since it was locked.
        StepError: If a file is much larger once it is unpacked, or if a task finds no documents, or fewer solved examples than it is to show.
    """
    from herdbook.steps.evaluate.tasks import rounds

    files = [(data_set, file) for _, data_set in item.data_sets for file in data_set.files]
    with track(f"data {item.id}", len(files)) as advance:
        for data_set, pinned in files:
            remote = hub.RemoteFile(pinned.name, pinned.size_bytes, pinned.sha256, pinned.git_blob)
            path = hub.download(data_set.repo, data_set.revision, remote, kind="dataset")
            link(path.absolute(), plan.layout.data(item, data_set.folder, pinned.name))
            advance()
    check_unpacked([plan.layout.data(item, data_set.folder, pinned.name) for data_set, pinned in files])
    with rounds(plan) as tasks:
        documents = {name: len(task.eval_docs) for one in tasks for name, task in one.leaves.items()}
    write_json(
        plan.layout.data_record(item),
        {"operation": "data", "key": item.key, "documents": dict(sorted(documents.items()))},
    )
