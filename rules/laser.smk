"""LASER: chosen matrices replaced by approximations of lower rank; all else copied."""


rule search:
    """
    Choose a lasered model's matrices and ranks, where the recipe leaves that open.
    """
    input:
        search_inputs,
    output:
        "results/searches/{search}.json",
    log:
        "logs/search/{search}.log",
    wildcard_constraints:
        search=either(name for name, search in SEARCHES.items() if made(PLAN.layout.search(search))),
    conda:
        environment("build")
    threads: lambda wildcards: estimates.threads(PLAN, SEARCHES[wildcards.search])
    resources:
        gpu=gpus(),
        gpu_mem_mb=lambda wildcards: gpu_megabytes(
            estimates.gpu_bytes(PLAN, SEARCHES[wildcards.search], 1, GPU_BYTES)
        ),
        mem_mb=search_memory,
        disk_mb=lambda wildcards: disk_megabytes(estimates.disk_bytes(PLAN, SEARCHES[wildcards.search])),
        runtime=lambda wildcards, threads, attempt: minutes(
            estimates.seconds(PLAN, SEARCHES[wildcards.search], threads), attempt
        ),
    params:
        key=lambda wildcards: SEARCHES[wildcards.search].key,
    shell:
        r"""
        herdbook search {params.key} --threads {threads} >{log:q} 2>&1
        """


rule laser:
    """
    Make one shard of a lasered model.
    """
    input:
        part_inputs,
    output:
        shard="results/shards/{part}.safetensors",
        record="results/shards/{part}.json",
    log:
        "logs/laser/{part}.log",
    wildcard_constraints:
        part=ids("laser"),
    group:
        copies_group
    conda:
        environment("build")
    threads: laser_threads
    resources:
        gpu=laser_gpus,
        gpu_mem_mb=laser_gpu_memory,
        mem_mb=laser_memory,
        disk_mb=part_disk,
        runtime=part_minutes,
    params:
        key=part_key,
    shell:
        r"""
        herdbook laser {params.key} --threads {threads} >{log:q} 2>&1
        """
