"""Adapters: LoRA matrices merged into the model that they were trained on."""


use rule fetch as adapter with:
    log:
        "logs/adapter/{id}.log",
    wildcard_constraints:
        id=ids("adapter"),
