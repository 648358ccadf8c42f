"""Dense merges: models of one architecture are merged into one, or layers of several models are stacked."""


use rule fetch as merge with:
    """
    Merge one shard of several models of one architecture, or stack layers, and write its record.
    """
    log:
        "logs/merge/{id}.log",
    wildcard_constraints:
        id=ids("merge"),
