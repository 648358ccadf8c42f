"""What the rules share: the plan, what the cache has of it, and functions that read both. No logic, and no rules."""

import os
import re
import subprocess
from pathlib import Path

from herdbook import plan as plans
from herdbook.steps.assemble.step import folder_files, taken_files, weights_files
from herdbook.signing.keys import PASSWORD_VARIABLE
from herdbook.steps.attest.step import attest_key, attested_files, configured_signer
from herdbook.cache.step import on_offer
from herdbook.steps.card.step import card_files, card_inputs, card_key
from herdbook.errors import HerdbookError
from herdbook.tools.installed import LOCK, requirement, root
from herdbook.plan import disk, duration, gpu, memory
from herdbook.layout import is_large
from herdbook.steps.release.step import contents, written_files, release_key
from herdbook.verify.levels import verification_key
from snakemake.exceptions import WorkflowError

RECIPE = config["recipe"]
# Told to every step by the environment. As a param it would make a step run again for each recipe that shares it.
os.environ["HERDBOOK_RECIPE"] = RECIPE
# Likewise: where matrices are decomposed and models run, and how large a GPU is, are this machine's business.
os.environ["HERDBOOK_DEVICE"] = config.get("device", "cpu")
os.environ["HERDBOOK_GPU_MEMORY"] = str(config.get("gpu_memory") or "")
# The path alone: the key itself is in no parameter, log or command line. What runs elsewhere signs nothing.
os.environ["HERDBOOK_SIGNING_KEY"] = "" if workflow.remote_exec else config.get("signing_key") or ""
# Where results are shared. What a result is does not hang on where it comes from.
os.environ["HERDBOOK_CACHE"] = config.get("cache") or os.environ.get("HERDBOOK_CACHE", "")
# With `--sdm conda` each step has the herdbook that runs here, and packages of its own; what results are made with is then
# what the lock says, which all environments are made from, whatever is installed here.
CONDA = any(str(method) == "conda" for method in workflow.deployment_settings.deployment_method)
os.environ["HERDBOOK_REQUIREMENT"] = requirement() if CONDA else ""
os.environ["HERDBOOK_PINS"] = str(root() / LOCK) if CONDA else ""
# For the summary alone.
os.environ["HERDBOOK_PRICE_PER_HOUR"] = str(config.get("price_per_hour") or "")


envvars:
    "HERDBOOK_RECIPE",
    "HERDBOOK_DEVICE",
    "HERDBOOK_GPU_MEMORY",
    "HERDBOOK_SIGNING_KEY",
    "HERDBOOK_CACHE",
    "HERDBOOK_PINS",
    "HERDBOOK_REQUIREMENT",
    "HERDBOOK_PRICE_PER_HOUR",


onstart:
    # Schedulers keep the environment of every job, where administrators can read it.
    if workflow.non_local_exec and os.environ.get(PASSWORD_VARIABLE):
        raise WorkflowError(
            f"${PASSWORD_VARIABLE} is set, and would go to other hosts with every job. Build without it and without "
            "signing_key; then sign where the key is: snakemake --cores 1 --config signing_key=FILE"
        )


ON_GPU = os.environ["HERDBOOK_DEVICE"] != "cpu"
# Of one GPU, in GB; None if nobody says.
GPU_BYTES = int(float(config["gpu_memory"]) * 10**9) if ON_GPU and config.get("gpu_memory") else None

try:
    PLAN = plans.load(Path(RECIPE))
    gpu.check(PLAN, GPU_BYTES)
    SIGNER = configured_signer()
    # Asked once, before jobs are chosen: a job that runs elsewhere is chosen already.
    CACHED = (
        {str(path): product for path, product in on_offer(PLAN).items()} if workflow.is_main_process else {}
    )
    # What the Hub gave lies there too, so that every node has it; for its owner alone, since some of it may be gated.
    SHARED = Path(os.environ["HERDBOOK_CACHE"]).expanduser().absolute()
    if os.environ["HERDBOOK_CACHE"] and SHARED.is_dir():
        OWN = SHARED / f"hub-{os.getuid()}"
        OWN.mkdir(mode=0o700, exist_ok=True)
        os.environ.update(HF_HUB_CACHE=str(OWN))  # if somebody shares; it need not be set
except (HerdbookError, OSError) as error:
    raise WorkflowError(str(error)) from None

# On another node a job runs inside two processes of Snakemake, each with the plan.
RUNNER_BYTES = 2 * 220 * 10**6

# Memory to a core that machines have at least, where large models are at home.
CORE_BYTES = 4 * 10**9

PARTS = {part.id: part for part in PLAN.parts.values()}
EVALUATIONS = {item.id: item for item in PLAN.evaluations}
QUANTIZED = {item.id: item for item in PLAN.quantized}
SEARCHES = {search.id: search for search in PLAN.searches.values()}


def made(*outputs):
    """Return whether files are made here, by the step that makes them: the cache does not have them."""
    return not any(str(path) in CACHED for path in outputs)


def needs(outputs, inputs):
    """
    Return what a job has to wait for: nothing if its outputs are there. A key is in their path that holds all that they
    are made from, so what lies there is right, and neither what it was made from nor any time counts any more.
    """
    asked = workflow.dag_settings
    forced = asked.forceall or asked.forcerun or asked.forcetargets
    return inputs if forced or not all(path.exists() for path in outputs) else []


def ids(operation):
    """Return a pattern of the parts that an operation makes, so that no rule matches another's."""
    return either(
        name for name, part in PARTS.items() if part.operation == operation and made(*part_outputs(part))
    )


def either(names):
    """Return a pattern of names."""
    return "|".join(map(re.escape, names)) or "(?!)"


def part_outputs(part):
    """Return a part's files."""
    return [PLAN.layout.shard(part), PLAN.layout.record(part)]


def part_key(wildcards):
    """Return the key of a part: all that it is, as one string, in order."""
    return PARTS[wildcards.part].key


def part_inputs(wildcards):
    """Return the shards and records that a part is made from, and the folders that its job reads."""
    part = PARTS[wildcards.part]
    parents = [PLAN.parts[key] for key in part.parents]
    folders = [PLAN.by_key[key] for key in part.folders]
    search = PLAN.searches.get(part.parameters.get("search"))
    return needs(
        part_outputs(part),
        [
            *([PLAN.layout.search(search)] if search else []),
            *(PLAN.layout.shard(parent) for parent in parents),
            *(PLAN.layout.record(parent) for parent in parents),
            *(path for node in folders for path in folder_paths(node)),
        ],
    )


def environment(name):
    """Return the conda environment of a step; where the device is NVIDIA's, with the build of torch for it."""
    kind = ".cuda" if os.environ["HERDBOOK_DEVICE"].startswith("cuda") else ""
    return f"../envs/{name}{kind}.yaml"


def is_copy(part):
    """Say whether a part holds nothing but copies, so that its job takes seconds and a single core."""
    return all(tensor.action == "copy" for tensor in part.tensors)


def copies_group(wildcards):
    """Return the group of copies of an operation, of which a cluster does several in one submission; none for others."""
    part = PARTS[wildcards.part]
    return f"{part.operation}_copies" if is_copy(part) else None


def laser_threads(wildcards):
    """Return how many matrices of a part are reduced at once."""
    return 1 if is_copy(PARTS[wildcards.part]) else 4


def part_memory(wildcards, attempt):
    """Return the memory of a part's job in MB, from its tensors."""
    return megabytes(PARTS[wildcards.part].memory_bytes, attempt)


def part_minutes(wildcards, threads, attempt):
    """Return the time limit of a part's job in minutes, from its tensors."""
    return minutes(duration.part_seconds(PLAN, PARTS[wildcards.part], threads), attempt)


def part_disk(wildcards):
    """Return what a part's job writes in MB, from its tensors."""
    return disk_megabytes(disk.part_bytes(PLAN, PARTS[wildcards.part]))


def laser_memory(wildcards, threads, attempt):
    """Return the memory of a LASER job in MB: so many matrices at once as there are threads."""
    part = PARTS[wildcards.part]
    return megabytes(part.memory_bytes + (threads - 1) * part.thread_bytes, attempt)


def gpus(count=1):
    """Return how many GPUs a job asks for. None is no request; some engines take zero for one."""
    return count if ON_GPU else None


def gpu_megabytes(size_bytes):
    """Return what a job takes of a GPU's memory in MB, for those who want to see it or to share a GPU."""
    return -(-int(size_bytes) // 10**6) if ON_GPU else None


def laser_gpus(wildcards):
    """Return how many GPUs a LASER job uses: none for copies."""
    return None if is_copy(PARTS[wildcards.part]) else gpus()


def laser_gpu_memory(wildcards, threads):
    """Return what a LASER job takes of a GPU's memory in MB: of matrices at once, as many as fit."""
    part = PARTS[wildcards.part]
    if is_copy(part):
        return None
    return gpu_megabytes(gpu.part_bytes(PLAN, part, gpu.matrices_at_once(PLAN, part, threads, GPU_BYTES)))


def evaluation_gpus(wildcards):
    """Return how many GPUs a measurement uses: as many as hold the model, if it is said how large they are."""
    return gpus(gpu.evaluation_gpus(EVALUATIONS[wildcards.evaluation], GPU_BYTES))


def evaluation_gpu_memory(wildcards):
    """Return what a measurement takes of each GPU's memory in MB, where all of the model lies on them."""
    item = EVALUATIONS[wildcards.evaluation]
    return gpu_megabytes(gpu.evaluation_bytes(item, gpu.evaluation_gpus(item, GPU_BYTES)))


def search_memory(wildcards, threads, attempt):
    """Return the memory of a search in MB, likewise."""
    search = SEARCHES[wildcards.search]
    return megabytes(search.memory_bytes + (threads - 1) * search.thread_bytes, attempt)


def search_inputs(wildcards):
    """Return the folder of the model that is searched."""
    search = SEARCHES[wildcards.search]
    return needs([PLAN.layout.search(search)], folder_paths(PLAN.nodes[search.parent]))


def records_memory(wildcards, attempt):
    """Return the memory in MB of a job that reads all records."""
    return megabytes(memory.records_bytes(PLAN), attempt)


def release_minutes(wildcards, attempt):
    """Return the time limit in minutes of a job that reads the release once."""
    return minutes(duration.release_seconds(PLAN), attempt)


def megabytes(size_bytes, attempt):
    """Return a job's memory in MB, rounded up; twice as much for each attempt that was lost."""
    if workflow.non_local_exec:
        size_bytes += RUNNER_BYTES
    return -(-size_bytes // 10**6) * 2 ** (attempt - 1)


def disk_megabytes(size_bytes):
    """Return a job's disk space in MB, rounded up."""
    return -(-int(size_bytes) // 10**6)


def minutes(seconds, attempt):
    """Return a time in minutes, rounded up; likewise."""
    return -(-int(seconds) // 60) * 2 ** (attempt - 1)


def folder_paths(node):
    """Return the files of a model's folder."""
    return [PLAN.layout.folder(node) / name for name in folder_files(node)]


def assemble_outputs(node):
    """Return those files of a model's folder that are put there by links, or made; a source's others come from it."""
    names = weights_files(node) if node.files_from == node.name else folder_files(node)
    return [PLAN.layout.folder(node) / name for name in names]


def files_outputs(node):
    """Return a source's configuration and tokenizer in its folder."""
    return [PLAN.layout.folder(node) / name for name in node.files]


def assemble_inputs(node):
    """Return what a model's folder is made from."""
    shards = [PLAN.layout.shard(part) for part in node.parts]
    return needs(assemble_outputs(node), [*shards, *taken_files(PLAN, node)])


def evaluation_inputs(wildcards):
    """Return what is measured."""
    item = EVALUATIONS[wildcards.evaluation]
    measured = folder_paths(item.node)
    if item.quantized:
        measured += [PLAN.layout.quantized(item.quantized), PLAN.layout.quantized_record(item.quantized)]
    return needs([PLAN.layout.evaluation(item)], measured)


def cores_beside(size_bytes):
    """Return how many cores go with so much memory on most machines: what is large has many, up to eight."""
    return min(8, -(-size_bytes // CORE_BYTES))


def evaluation_threads(wildcards):
    """
    Return how many documents are read at once. Small models are loaded for longer than they read, so that several of them
    side by side are done sooner than one after another. A GPU is busy with one document.
    """
    return 1 if ON_GPU else cores_beside(EVALUATIONS[wildcards.evaluation].memory_bytes)


def evaluation_memory(wildcards, threads, attempt):
    """Return the memory of a measurement in MB."""
    item = EVALUATIONS[wildcards.evaluation]
    return megabytes(item.memory_bytes + (threads - 1) * item.pass_bytes, attempt)


def quantize_inputs(wildcards):
    """Return the full-width file, and the folder that tensors are derived from again."""
    item = QUANTIZED[wildcards.quantized]
    outputs = [PLAN.layout.quantized(item), PLAN.layout.quantized_record(item)]
    return needs(outputs, [PLAN.converted, *folder_paths(PLAN.released)])


def release_inputs():
    """Return what goes into the release. Of large files, which others link to as well, times do not count."""
    return [ancient(str(path)) if is_large(name) else path for name, path in contents(PLAN).items()]


class ExactCommit:
    """
    What the job would commit. Asked for when a dry run prints the job, and then only: nothing is written. What jobs
    before it are to make is not there yet; the command says so if the release is not the recipe's.
    """

    def __format__(self, _):
        if not workflow.dryrun:
            return "one commit, read back, tagged, claimed"
        shown = subprocess.run(["herdbook", "publish", "--dry-run"], capture_output=True, text=True)
        return f"the release as it lies there now\n{shown.stdout or shown.stderr}"


EXACT_COMMIT = ExactCommit()
