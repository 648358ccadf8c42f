"""Claims about the release, and signatures of them and of the model, if this machine has a key."""


rule attest:
    """
    Write the claims about the release, and sign them and the model. Runs where Snakemake does: there the key is.
    """
    input:
        [PLAN.release_folder / name for name in written_files(PLAN)],
    output:
        [PLAN.release_folder / name for name in attested_files(SIGNER)],
    log:
        "logs/attest/attest.log",
    localrule: True
    conda:
        "../envs/build.yaml"
    params:
        key=attest_key(PLAN, SIGNER),
    shell:
        r"""
        herdbook attest >{log:q} 2>&1
        """
