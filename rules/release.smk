"""The release: one folder with exactly what is uploaded, its lineage, bills of materials and checksums."""


rule release:
    """
    Put the release together. Weights are hard links to the results; only what is written for the release is declared.
    Of the weights, which others link to as well, times do not count.
    """
    input:
        [ancient(str(path)) if is_large(path.name) else path for path in OF_THE_RELEASE["release"].inputs],
    output:
        OF_THE_RELEASE["release"].outputs,
    log:
        "logs/release/release.log",
    group:
        "release"
    conda:
        environment("build")
    resources:
        mem_mb=memory,
        disk_mb=disk,
        runtime=minutes,
    params:
        key=OF_THE_RELEASE["release"].key,
    shell:
        r"""
        herdbook release >{log:q} 2>&1
        """
