"""Mixtures of Experts: renamed copies of their parents, and routers, which alone are computed."""


use rule fetch as moe with:
    log:
        "logs/moe/{id}.log",
    wildcard_constraints:
        id=ids("moe"),
    group:
        copies
