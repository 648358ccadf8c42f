"""Quantization: the released model as GGUF, each file checked tensor by tensor against the safetensors."""


rule convert:
    """
    Make the full-width GGUF from which the quantized files are made, with llama.cpp's own converter.
    """
    input:
        inputs,
    output:
        PLAN.layout.full_width(ANY),
    log:
        "logs/convert/{id}.log",
    wildcard_constraints:
        id=ids("convert"),
    conda:
        environment("quantize")
    resources:
        mem_mb=memory,
        disk_mb=disk,
        runtime=minutes,
    params:
        step=step,
    shell:
        r"""
        herdbook convert >{log:q} 2>&1
        """


rule quantize:
    """
    Make one quantized file, and check every tensor of it by a second quantization of the released weights.
    """
    input:
        inputs,
    output:
        file=PLAN.layout.quantized(ANY),
        record=PLAN.layout.quantized_record(ANY),
    log:
        "logs/quantize/{id}.log",
    wildcard_constraints:
        id=ids("quantize"),
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
        r"""
        herdbook {params.step} --threads {threads} >{log:q} 2>&1
        """
