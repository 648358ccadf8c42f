"""The loss by quantization: one pass of the released model for all files, then one measurement for each file."""


rule reference:
    """
    Keep what the released model predicts for the texts.
    """
    input:
        inputs,
    output:
        states=placed(PLAN.layout.reference(ANY)),
        record=placed(PLAN.layout.reference_record(ANY)),
    log:
        "logs/reference/{id}.log",
    wildcard_constraints:
        id=ids("reference"),
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
        HERDBOOK + r""" reference --threads {threads} >{log:q} 2>&1
        """


rule loss:
    """
    Measure how much a quantized file loses against the released model.
    """
    input:
        inputs,
    output:
        placed(PLAN.layout.loss(ANY)),
    log:
        "logs/loss/{id}.log",
    wildcard_constraints:
        id=ids("loss"),
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
        HERDBOOK + r""" {params.step} --threads {threads} >{log:q} 2>&1
        """
