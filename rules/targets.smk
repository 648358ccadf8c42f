# Parts of a build, by name: all models, all measurements, all quantized files.


def asked_for(rule, what):
    """Return the files that all jobs of a rule make, as the input of a target, which is refused if there are none."""

    def files(wildcards):
        found = made_by(rule)
        if not found:
            raise WorkflowError(f"{PLAN.recipe_path} has no {what}, so this target has nothing to make")
        return found

    return files


rule models:
    input:
        asked_for("assemble", "models"),
    localrule: True


rule evaluations:
    input:
        asked_for("evaluate", "`evaluate`"),
    localrule: True


rule quantized:
    input:
        asked_for("quantize", "`quantize`"),
    localrule: True
