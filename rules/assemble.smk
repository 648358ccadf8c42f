"""Model folders, as transformers loads them: links to shards, an index, configuration and tokenizer.

Links are made where Snakemake runs, as they take less than a cluster's queue; and there a source's tokenizer can be had.
Which files a folder has follows from the lock, so each model has a rule of its own that names them all.
"""

for node in PLAN.nodes.values():

    rule:
        name:
            f"assemble_{node.name}"
        input:
            assemble_inputs(node),
        output:
            folder_paths(node),
        log:
            f"logs/assemble/{node.id}.log",
        localrule: True
        conda:
            "../envs/build.yaml"
        params:
            key=node.key,
        shell:
            r"""
            herdbook assemble {params.key} >{log:q} 2>&1
            """
