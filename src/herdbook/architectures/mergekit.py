"""What mixtures by past versions of mergekit have in common."""

# It read every prompt as the beginning-of-sequence token alone, from commit 5040ac7 to 9c69152.
EQUAL_ROWS = ("2024-02-24", "2024-03-18")
