"""Mixtures of Experts: renamed copies of tensors of their parents, and computed routers."""


use rule fetch as moe with:
    """
    Make one shard of a Mixture of Experts: copies of its parents' tensors, or routers; and its record.
    """
    log:
        "logs/moe/{id}.log",
    wildcard_constraints:
        id=ids("moe"),
    group:
        copies
