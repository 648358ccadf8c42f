#!/usr/bin/env bash
# Runs once, after Snakemake has made the environment: the herdbook in it is the one that Snakemake runs with.
set -euo pipefail
pip install --quiet --no-deps "$HERDBOOK_REQUIREMENT"
