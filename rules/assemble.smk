"""Model folders, as transformers loads them: links to shards, an index, configuration and tokenizer.

Links are made where Snakemake runs, as they take less than a cluster's queue; and there a source's tokenizer can be had.
Which files a folder has follows from the lock, so each model has rules of its own that name them all. A source's
configuration and tokenizer have one apart from its weights: models that descend from it need the former alone.
"""

for node in PLAN.nodes.values():

    rule:
        name:
            f"assemble_{node.name}"
        input:
            lambda wildcards, node=node: assemble_inputs(node),
        output:
            assemble_outputs(node),
        log:
            f"logs/assemble/{node.id}.log",
        localrule: True
        conda:
            environment("build")
        params:
            key=node.key,
        shell:
            r"""
            herdbook assemble {params.key} >{log:q} 2>&1
            """

    if node.files_from == node.name and node.files and made(*files_outputs(node)):

        rule:
            name:
                f"files_{node.name}"
            output:
                files_outputs(node),
            log:
                f"logs/files/{node.id}.log",
            localrule: True
            conda:
                environment("build")
            params:
                key=node.key,
            shell:
                r"""
                herdbook files {params.key} >{log:q} 2>&1
                """
