"""Verification of the release from its own content."""


rule verify:
    """
    Verify the release, and write the findings and a page for people; that of the quantized files, too, if they have one.
    """
    input:
        [placed(path) for path in OF_THE_RELEASE["verify"].inputs],
    output:
        findings=reported(OF_THE_RELEASE["verify"].outputs[0]),
        page=reported(OF_THE_RELEASE["verify"].outputs[1]),
    log:
        log_of("verify"),
    conda:
        environment("build")
    resources:
        mem_mb=memory,
        disk_mb=disk,
        runtime=minutes,
    params:
        folder=subpath(input[0], parent=True),
        results=PLAN.layout.root,
        unsigned=unsigned,
        further=further_verifications,
        key=OF_THE_RELEASE["verify"].key,
    shell:
        HERDBOOK
        + r""" verify {params.folder:q} --json {output.findings:q} --page {output.page:q} --build {params.results:q} {params.unsigned} >{log:q} 2>&1
        {params.further}
        """
