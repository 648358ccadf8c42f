"""Quantization: the released model as GGUF, each file proven tensor by tensor from the safetensors."""


rule convert:
    """
    Make the full-width GGUF that the quantized files are made from, by llama.cpp's own converter.
    """
    input:
        lambda wildcards: needs([PLAN.converted], folder_paths(PLAN.released)),
    output:
        PLAN.converted,
    log:
        "logs/convert/full.log",
    conda:
        environment("quantize")
    resources:
        mem_mb=lambda wildcards, attempt: megabytes(memory.conversion_bytes(PLAN), attempt),
        disk_mb=lambda wildcards: disk_megabytes(disk.conversion_bytes(PLAN)),
        runtime=lambda wildcards, attempt: minutes(duration.conversion_seconds(PLAN), attempt),
    params:
        key=PLAN.converted_key,
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
    threads: max(2, cores_beside(PLAN.released.size_bytes))
    resources:
        mem_mb=lambda wildcards, attempt: megabytes(QUANTIZED[wildcards.quantized].memory_bytes, attempt),
        disk_mb=lambda wildcards: disk_megabytes(
            disk.quantization_bytes(PLAN, QUANTIZED[wildcards.quantized])
        ),
        runtime=lambda wildcards, threads, attempt: minutes(
            duration.quantization_seconds(PLAN, QUANTIZED[wildcards.quantized], threads), attempt
        ),
    params:
        key=lambda wildcards: QUANTIZED[wildcards.quantized].key,
    shell:
        r"""
        herdbook quantize --threads {threads} {params.key} >{log:q} 2>&1
        """
