"""Snakemake's logger ``herdbook``. Snakemake finds such plugins by the name of a package at the top, hence this one."""

from herdbook.view.handler import LogHandler

__all__ = ["LogHandler"]
