"""Formats for GPU servers: matrices of linear layers are encoded, everything else is copied."""


use rule fetch as compress with:
    log:
        "logs/compress/{id}.log",
    wildcard_constraints:
        id=ids("compress"),
