"""The view of a build: the progress of Snakemake's jobs, for people who wait for them."""
