"""The model card: the recipe, the measurements, the lineage and the digests, for people."""


rule card:
    """
    Render the card and its figures.
    """
    input:
        [placed(path) for path in OF_THE_RELEASE["card"].inputs],
    output:
        [reported(path) for path in OF_THE_RELEASE["card"].outputs],
    log:
        log_of("card"),
    group:
        "release"
    conda:
        environment("build")
    resources:
        mem_mb=memory,
        disk_mb=disk,
        runtime=minutes,
    params:
        key=OF_THE_RELEASE["card"].key,
    shell:
        HERDBOOK + r""" card >{log:q} 2>&1
        """
