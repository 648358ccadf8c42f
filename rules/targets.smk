# Parts of a build, by name: all models, all measurements, all quantized files.


rule models:
    """
    Make the folders of all models that the recipe needs.
    """
    input:
        made_by("assemble"),
    localrule: True


rule evaluate:
    """
    Measure all models and files that the recipe measures.
    """
    input:
        part_of_recipe("evaluate"),
    localrule: True


rule quantize:
    """
    Make all quantized files.
    """
    input:
        part_of_recipe("quantize"),
    localrule: True
