"""Sources that are incomplete: their configuration, index and headers do not describe one whole model."""

CASES = []
