"""The release: one folder with exactly what is uploaded, its lineage, bills of materials and checksums."""


rule release:
    """
    Put the release together. Weights are hard links to the results; only what is written for the release is declared.
    """
    input:
        release_inputs(),
    output:
        [PLAN.layout.release_folder / name for name in written_files(PLAN)],
    log:
        "logs/release/release.log",
    group:
        "release"
    conda:
        environment("build")
    resources:
        mem_mb=records_memory,
        disk_mb=disk_megabytes(disk.release_bytes(PLAN)),
        runtime=release_minutes,
    params:
        key=release_key(PLAN),
    shell:
        r"""
        herdbook release >{log:q} 2>&1
        """
