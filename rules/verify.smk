"""Verification of the release from its own content."""


rule verify:
    """
    Verify the release, and write the findings and a page for people.
    """
    input:
        OF_THE_RELEASE["verify"].inputs,
    output:
        OF_THE_RELEASE["verify"].outputs,
    log:
        "logs/verify/verify.log",
    conda:
        environment("build")
    resources:
        mem_mb=memory,
        disk_mb=disk,
        runtime=minutes,
    params:
        folder=subpath(input[0], parent=True),
        key=OF_THE_RELEASE["verify"].key,
    shell:
        r"""
        herdbook verify {params.folder:q} --json {output[0]:q} --page {output[1]:q} >{log:q} 2>&1
        """
