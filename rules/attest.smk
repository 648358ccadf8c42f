"""Claims about the release, and signatures of the claims and of the model, if a signer is configured."""


rule attest:
    """
    Write the claims about the release, and sign them and the model. Runs on Snakemake's host, which has the key or the
    identity that signs without one. Keyless signatures differ each time and are published in a transparency log, so they are
    made only if the signed content or the way of signing changes.
    """
    input:
        [placed(path) for path in OF_THE_RELEASE["attest"].inputs],
    output:
        [placed(path) for path in OF_THE_RELEASE["attest"].outputs],
    log:
        log_of("attest"),
    localrule: True
    conda:
        environment("build")
    params:
        key=OF_THE_RELEASE["attest"].key,
    shell:
        HERDBOOK + r""" attest >{log:q} 2>&1
        """
