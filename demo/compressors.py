"""Write the snapshot of the miniature's leaderboard: bits per byte of general-purpose compressors.

A language model that predicts text also compresses it, so both can be on one leaderboard. Each document that the recipe's
evaluation reads is compressed by itself; a compressor's score is the sum of all bits divided by the sum of all bytes.

    python demo/compressors.py > config/leaderboards/compressors.csv
"""

from __future__ import annotations

import argparse
import bz2
import csv
import lzma
import sys
import zlib

from data import held_out_texts

COMPRESSORS = {
    "stored": bytes,
    "zlib -9": lambda data: zlib.compress(data, 9),
    "bzip2 -9": lambda data: bz2.compress(data, 9),
    "xz -9e": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME),
}


def main() -> None:
    """Read the command line, compress, and print the table as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kind", default="general", help="default: %(default)s")
    parser.add_argument(
        "--limit", type=int, default=4, help="number of documents, as in the recipe (default: %(default)s)"
    )
    arguments = parser.parse_args()
    documents = [text.encode() for text in held_out_texts(arguments.kind, "test")[: arguments.limit]]
    total = sum(map(len, documents))
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["compressor", "bits_per_byte"])
    for name, compress in COMPRESSORS.items():
        bits = 8 * sum(len(compress(data)) for data in documents)
        table.writerow([name, f"{bits / total:.6f}"])


if __name__ == "__main__":
    main()
