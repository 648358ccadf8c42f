"""Quantization: the released model as GGUF, each file proven tensor by tensor from the safetensors."""

if PLAN.converted:

    rule convert:
        """
        Make the full-width GGUF that the quantized files are made from, by llama.cpp's own converter.
        """
        input:
            lambda wildcards: needs([PLAN.converted_file(PLAN.converted)], folder_paths(PLAN.released)),
        output:
            PLAN.converted_file(PLAN.converted),
        log:
            "logs/convert/full.log",
        conda:
            environment("quantize")
        resources:
            mem_mb=lambda wildcards, attempt: megabytes(estimates.memory_bytes(PLAN, PLAN.converted), attempt),
            disk_mb=lambda wildcards: disk_megabytes(estimates.disk_bytes(PLAN, PLAN.converted)),
            runtime=lambda wildcards, attempt: minutes(estimates.seconds(PLAN, PLAN.converted), attempt),
        params:
            key=PLAN.converted.key,
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
            if made(PLAN.quantized_file(item), PLAN.quantized_record(item))
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
