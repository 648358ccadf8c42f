"""Audit: compare anyone's merge with the models that its mergekit configuration names."""
