"""Adapters: LoRA matrices merged into the model that they were trained on."""


use rule fetch as adapter with:
    """
    Fold an adapter into one shard of the model that it was trained on, and write the shard's record.
    """
    log:
        "logs/adapter/{id}.log",
    wildcard_constraints:
        id=ids("adapter"),
