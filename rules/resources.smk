"""The resources of a job: threads, memory, disk, time and GPUs, from the plan (`herdbook.needs`).

Snakemake calls these functions for a rule's directives. A job that makes or reads the release has no id; it needs what
reading the whole release takes.
"""

ON_GPU = settings.DEVICE.value != "cpu"

try:
    GPU_BYTES = settings.GPU_MEMORY.parsed if ON_GPU else None
    needs.check_gpu(PLAN, GPU_BYTES)
except HerdbookError as error:
    raise WorkflowError(str(error)) from None

# On another node, a job runs inside two processes of Snakemake, each of which loads the plan.
RUNNER_BYTES = 2 * 220 * 10**6


def subject(wildcards):
    """Return the plan's object that the job makes; None if it is the release."""
    return BY_ID[wildcards.id].subject if "id" in wildcards.keys() else None


def alone(wildcards):
    """Return whether the job may find none of the files that it could copy from."""
    job = BY_ID.get(wildcards.id) if "id" in wildcards.keys() else None
    if APART or job is None:
        return False
    awaited = awaited_copies(job)
    return not all(path in awaited or path.exists() for path in job.copied)


def cores(wildcards):
    """Return the job's number of threads."""
    return needs.threads(PLAN, subject(wildcards), on_gpu=ON_GPU, alone=alone(wildcards))


def memory(wildcards, threads, attempt):
    """Return the job's memory in MB, doubled for each failed attempt."""
    size_bytes = needs.memory_bytes(PLAN, subject(wildcards), threads)
    if workflow.non_local_exec:
        size_bytes += RUNNER_BYTES
    return rounded(size_bytes, 10**6) * 2 ** (attempt - 1)


def minutes(wildcards, threads, attempt):
    """Return the job's time limit in minutes, doubled for each failed attempt."""
    seconds = needs.seconds(PLAN, subject(wildcards), threads, alone=alone(wildcards))
    return rounded(seconds, 60) * 2 ** (attempt - 1)


def disk(wildcards):
    """Return the size of the job's outputs in MB."""
    return rounded(needs.disk_bytes(PLAN, subject(wildcards)), 10**6)


def disk_with_inputs(wildcards):
    """Return the size of the job's outputs and inputs in MB, for a machine that takes these from the cache."""
    job = BY_ID[wildcards.id]
    makers = NODES.taken((*job.inputs, *job.copied))
    return disk(wildcards) + sum(rounded(needs.disk_bytes(PLAN, job.subject), 10**6) for job in makers)


def gpus(wildcards):
    """Return how many GPUs the job requests; None for no request, since some executors treat zero as a request."""
    return needs.gpus(PLAN, subject(wildcards), GPU_BYTES) or None if ON_GPU else None


def gpu_memory(wildcards, threads):
    """Return the job's memory on each GPU in MB, for information and for sharing a GPU."""
    size_bytes = needs.gpu_bytes(PLAN, subject(wildcards), threads, GPU_BYTES) if ON_GPU else 0
    return rounded(size_bytes, 10**6) or None


def on_gpus(asked, otherwise):
    """Return a function of a resource: what a job that requests a GPU asks for, and what any other does."""
    return lambda wildcards: asked if gpus(wildcards) else otherwise


def of_cluster(key):
    """Return a line of the cluster's file (profiles/README.md); empty if it has none."""
    return str(config.get(key) or "")


# Where a cluster runs jobs on GPUs: resources of the rules, since a profile's settings by rule name do not reach the rules of a
# module, which have other names.
OF_GPUS = {}
if ON_GPU and of_cluster("gpu"):
    OF_GPUS["gpu_model"] = on_gpus(of_cluster("gpu"), None)
if ON_GPU and of_cluster("gpu_partition"):
    OF_GPUS["slurm_partition"] = on_gpus(of_cluster("gpu_partition"), of_cluster("partition") or None)


def rounded(amount, unit):
    """Return an amount in a unit, rounded up."""
    return -(-int(amount) // unit)
