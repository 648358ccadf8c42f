# Parts of a build, by name: all models, all measurements, all quantized files.


rule models:
    input:
        made_by("assemble"),
    localrule: True


rule evaluations:
    input:
        part_of_recipe("evaluate", "evaluate"),
    localrule: True


rule quantized:
    input:
        part_of_recipe("quantize", "quantize"),
    localrule: True
