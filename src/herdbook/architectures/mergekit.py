"""Facts about mixtures that were made by past versions of mergekit."""

# From commit 5040ac7 to 9c69152, it read every prompt as the beginning-of-sequence token alone.
EQUAL_ROWS = ("2024-02-24", "2024-03-18")
