# Parts of a build, by name: all models, all measurements, all quantized files.


rule models:
    input:
        made_by("assemble"),
    localrule: True


rule evaluations:
    input:
        made_by("evaluate"),
    localrule: True


rule quantized:
    input:
        made_by("quantize"),
    localrule: True
