"""Quantization: the released model as GGUF, each file proven tensor by tensor from the safetensors."""


rule convert:
    """
    Make the full-width GGUF that the quantized files are made from, by llama.cpp's own converter.
    """
    input:
        lambda wildcards: needs([PLAN.layout.full_width(PLAN.conversion)], folder_paths(PLAN.released)),
    output:
        PLAN.layout.full_width(PLAN.conversion),
    log:
        "logs/convert/full.log",
    conda:
        environment("quantize")
    resources:
        mem_mb=lambda wildcards, attempt: megabytes(estimates.memory_bytes(PLAN, PLAN.conversion), attempt),
        disk_mb=lambda wildcards: disk_megabytes(estimates.disk_bytes(PLAN, PLAN.conversion)),
        runtime=lambda wildcards, attempt: minutes(estimates.seconds(PLAN, PLAN.conversion), attempt),
    params:
        key=PLAN.conversion.key,
    shell:
        r"""
        herdbook convert >{log:q} 2>&1
        """


rule quantize:
    """
    Make one quantized file and derive every tensor of it again from the released weights.
    """
    input:
        quantize_inputs,
    output:
        file="results/quantized/{quantized}.gguf",
        record="results/quantized/{quantized}.json",
    log:
        "logs/quantize/{quantized}.log",
    wildcard_constraints:
        quantized=either(
            name
            for name, item in QUANTIZED.items()
            if made(PLAN.layout.quantized(item), PLAN.layout.quantized_record(item))
        ),
    conda:
        environment("quantize")
    threads: lambda wildcards: estimates.threads(PLAN, QUANTIZED[wildcards.quantized])
    resources:
        mem_mb=lambda wildcards, attempt: megabytes(
            estimates.memory_bytes(PLAN, QUANTIZED[wildcards.quantized]), attempt
        ),
        disk_mb=lambda wildcards: disk_megabytes(estimates.disk_bytes(PLAN, QUANTIZED[wildcards.quantized])),
        runtime=lambda wildcards, threads, attempt: minutes(
            estimates.seconds(PLAN, QUANTIZED[wildcards.quantized], threads), attempt
        ),
    params:
        key=lambda wildcards: QUANTIZED[wildcards.quantized].key,
    shell:
        r"""
        herdbook quantize --threads {threads} {params.key} >{log:q} 2>&1
        """
