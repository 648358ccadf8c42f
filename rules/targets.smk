# Parts of a build, by name: all models, all measurements, all quantized files.


rule models:
    """
    Make the folders of all models that the recipe needs.
    """
    input:
        part("assemble"),
    localrule: True


rule evaluate:
    """
    Measure all models and files that the recipe measures.
    """
    input:
        part("evaluate"),
    localrule: True


rule quantize:
    """
    Make all quantized files.
    """
    input:
        part("quantize"),
    localrule: True
