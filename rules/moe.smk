"""Mixtures of Experts: renamed copies of tensors of their parents, and computed routers."""


use rule fetch as moe with:
    log:
        "logs/moe/{id}.log",
    wildcard_constraints:
        id=ids("moe"),
    group:
        copies
