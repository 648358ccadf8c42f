#!/usr/bin/env bash
# Runs once, after Snakemake has made the environment: the herdbook in it is the one that Snakemake runs with.
set -euo pipefail
pip install --quiet --no-deps "$HERDBOOK_REQUIREMENT"
# mergekit has pins that clash with the others, so it lies in a folder of its own.
pip install --quiet --no-deps --target "$CONDA_PREFIX/tools/mergekit" mergekit==0.1.5
