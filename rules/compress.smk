"""Formats for GPU servers: matrices of linear layers are encoded, everything else is copied."""


use rule fetch as compress with:
    """
    Encode one shard of the released model for GPU servers or Macs, and write its record.
    """
    log:
        "logs/compress/{id}.log",
    wildcard_constraints:
        id=ids("compress"),
