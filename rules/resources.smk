"""What a job asks of a machine: threads, memory, disk, time and GPUs, from the plan (`herdbook.needs`).

Snakemake calls these functions for a rule's directives. A job that makes or reads the release has no id; it needs what
reading the whole release takes.
"""

ON_GPU = settings.DEVICE.value != "cpu"
GPU_BYTES = settings.gpu_bytes() if ON_GPU else None

try:
    needs.check_gpu(PLAN, GPU_BYTES)
except HerdbookError as error:
    raise WorkflowError(str(error)) from None

# On another node a job runs inside two processes of Snakemake, each with the plan.
RUNNER_BYTES = 2 * 220 * 10**6


def subject(wildcards):
    """Return what of the plan the job makes; None if that is the release."""
    return BY_ID[wildcards.id].subject if "id" in wildcards.keys() else None


def cores(wildcards):
    """Return how many threads the job is given."""
    return needs.threads(PLAN, subject(wildcards), on_gpu=ON_GPU)


def memory(wildcards, threads, attempt):
    """Return the job's memory in MB; twice as much for each attempt that was lost."""
    size_bytes = needs.memory_bytes(PLAN, subject(wildcards), threads)
    if workflow.non_local_exec:
        size_bytes += RUNNER_BYTES
    return rounded(size_bytes, 10**6) * 2 ** (attempt - 1)


def minutes(wildcards, threads, attempt):
    """Return the job's time limit in minutes, likewise."""
    return rounded(needs.seconds(PLAN, subject(wildcards), threads), 60) * 2 ** (attempt - 1)


def disk(wildcards):
    """Return what the job writes in MB."""
    return rounded(needs.disk_bytes(PLAN, subject(wildcards)), 10**6)


def gpus(wildcards):
    """Return how many GPUs the job asks for. None is no request; some engines take zero for one."""
    return needs.gpus(PLAN, subject(wildcards), GPU_BYTES) or None if ON_GPU else None


def gpu_memory(wildcards, threads):
    """Return what the job takes of each GPU's memory in MB, for those who want to see it or to share a GPU."""
    size_bytes = needs.gpu_bytes(PLAN, subject(wildcards), threads, GPU_BYTES) if ON_GPU else 0
    return rounded(size_bytes, 10**6) or None


def rounded(amount, unit):
    """Return an amount in a unit, rounded up."""
    return -(-int(amount) // unit)
