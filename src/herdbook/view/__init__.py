"""The view of a build: what Snakemake says of its jobs, for people who wait for them."""
