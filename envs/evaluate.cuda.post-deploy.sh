#!/usr/bin/env bash
# Runs once, in the workflow's folder, after Snakemake has made the environment.
set -euo pipefail
pip install --quiet --no-deps --editable .
