"""What jobs need of a machine: memory, disk, time, threads, GPUs and software, as functions of the plan and a job's subject.

No result and no key depends on any of it.
"""

from herdbook.needs.disk import check_disk, disk_bytes, fetch_bytes, missing_bytes, write_bytes
from herdbook.needs.gpu import check_gpu, gpu_bytes, gpus, matrices_at_once
from herdbook.needs.measuring import pass_bytes
from herdbook.needs.memory import memory_bytes
from herdbook.needs.software import missing_software
from herdbook.needs.threads import threads
from herdbook.needs.time import SLOW, Rates, decomposition_operations, seconds

__all__ = [
    "SLOW",
    "Rates",
    "check_disk",
    "check_gpu",
    "decomposition_operations",
    "disk_bytes",
    "fetch_bytes",
    "gpu_bytes",
    "gpus",
    "matrices_at_once",
    "memory_bytes",
    "missing_bytes",
    "missing_software",
    "pass_bytes",
    "seconds",
    "threads",
    "write_bytes",
]
