"""The model card: the recipe, the measurements, the lineage and the digests, for people."""


rule card:
    """
    Render the card and its figures.
    """
    input:
        card_inputs(PLAN),
    output:
        [PLAN.layout.card_folder / name for name in card_files(PLAN)],
    log:
        "logs/card/card.log",
    group:
        "release"
    conda:
        environment("build")
    resources:
        mem_mb=records_memory,
        disk_mb=disk_megabytes(disk.release_bytes(PLAN)),
        runtime=release_minutes,
    params:
        key=card_key(PLAN),
    shell:
        r"""
        herdbook card >{log:q} 2>&1
        """
