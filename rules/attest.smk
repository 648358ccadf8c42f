"""Claims about the release, and signatures of them and of the model, if somebody signs here."""


rule attest:
    """
    Write the claims about the release, and sign them and the model. Runs where Snakemake does: there the key is, or who
    signs without one. Keyless signatures differ each time and stay in a public log: they are made when what is signed, or
    that it is signed so, changes, and no other time.
    """
    input:
        OF_THE_RELEASE["attest"].inputs,
    output:
        OF_THE_RELEASE["attest"].outputs,
    log:
        "logs/attest/attest.log",
    localrule: True
    conda:
        environment("build")
    params:
        key=OF_THE_RELEASE["attest"].key,
    shell:
        r"""
        herdbook attest >{log:q} 2>&1
        """
