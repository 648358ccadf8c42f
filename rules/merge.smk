"""Dense merges: models of one architecture are merged into one, or layers of several models are stacked."""


use rule fetch as merge with:
    log:
        "logs/merge/{id}.log",
    wildcard_constraints:
        id=ids("merge"),
