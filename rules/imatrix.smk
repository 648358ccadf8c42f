"""Importance matrix: how strongly the recipe's texts excite each column of the released model's matrices."""


rule imatrix:
    """
    Make the importance matrix with which files are quantized, and count the tokens that reached each expert.
    """
    input:
        inputs,
    output:
        file=placed(PLAN.layout.matrix(ANY)),
        record=placed(PLAN.layout.matrix_record(ANY)),
    log:
        "logs/imatrix/{id}.log",
    wildcard_constraints:
        id=ids("imatrix"),
    priority: AWAITED
    conda:
        environment("quantize")
    threads: cores
    resources:
        mem_mb=memory,
        disk_mb=disk,
        runtime=minutes,
    params:
        step=step,
    shell:
        HERDBOOK + r""" imatrix --threads {threads} >{log:q} 2>&1
        """
