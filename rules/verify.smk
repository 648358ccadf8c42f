"""Verification: the release is what it says, by what it holds alone."""


rule verify:
    """
    Verify the release and write what was found.
    """
    input:
        sums=PLAN.layout.release_folder / "SHA256SUMS",
        attested=[PLAN.layout.release_folder / name for name in attested_files(SIGNER)],
    output:
        PLAN.layout.verification,
    log:
        "logs/verify/verify.log",
    conda:
        environment("build")
    resources:
        mem_mb=records_memory,
        disk_mb=disk_megabytes(disk.release_bytes(PLAN)),
        runtime=release_minutes,
    params:
        folder=subpath(input.sums, parent=True),
        key=verification_key(PLAN, SIGNER),
    shell:
        r"""
        herdbook verify {params.folder:q} --json {output:q} >{log:q} 2>&1
        """
