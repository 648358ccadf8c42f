"""The release: one folder with exactly what is uploaded, its provenance statement and its checksums."""


rule release:
    """
    Put the release together. Large files are hard links, which keep the time of their contents, so what the release
    is made of is told by its key and not by times.
    """
    input:
        [ancient(path) for path in contents(PLAN).values()],
    output:
        [PLAN.release_folder / name for name in release_files(PLAN)],
    log:
        "logs/release/release.log",
    conda:
        "../envs/build.yaml"
    params:
        key=RELEASE_KEY,
    shell:
        r"""
        herdbook release >{log:q} 2>&1
        """
