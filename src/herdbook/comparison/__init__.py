"""Comparing measurements with care: what was measured document by document, paired tests on it, and marks."""
