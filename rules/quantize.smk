"""Quantization: the released model as GGUF, each file made from the safetensors in one pass."""


rule convert:
    """
    Make the header of the quantized files, hyperparameters and vocabulary, with llama.cpp's own converter.
    """
    input:
        inputs,
    output:
        placed(PLAN.layout.header(ANY)),
    log:
        "logs/convert/{id}.log",
    wildcard_constraints:
        id=ids("convert"),
    priority: AWAITED
    conda:
        environment("quantize")
    resources:
        mem_mb=memory,
        disk_mb=disk,
        runtime=minutes,
    params:
        step=step,
    shell:
        HERDBOOK + r""" convert >{log:q} 2>&1
        """


rule quantize_one:
    """
    Make one quantized file from the released weights, and record the digest and the origin of every tensor of it.
    """
    input:
        inputs,
    output:
        file=placed(PLAN.layout.quantized(ANY)),
        record=placed(PLAN.layout.quantized_record(ANY)),
    log:
        "logs/quantize/{id}.log",
    wildcard_constraints:
        id=ids("quantize"),
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
        HERDBOOK + r""" {params.step} --threads {threads} >{log:q} 2>&1
        """
