"""Dense merges: several models of one form become one, or layers of several are stacked."""


use rule fetch as merge with:
    log:
        "logs/merge/{id}.log",
    wildcard_constraints:
        id=ids("merge"),
