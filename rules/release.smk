"""The release: one folder with exactly the files that are uploaded, including lineage, bills of materials and checksums."""

from herdbook.layout import is_large


rule release:
    """
    Assemble the release. Weights are hard links to the results; only files that are written for the release are declared.
    The modification times of weights are ignored, since other links share them.
    """
    input:
        [
            ancient(placed(path)) if is_large(path.name) else placed(path)
            for path in OF_THE_RELEASE["release"].inputs
        ],
    output:
        [placed(path) for path in OF_THE_RELEASE["release"].outputs],
    log:
        log_of("release"),
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
        HERDBOOK + r""" release >{log:q} 2>&1
        """
