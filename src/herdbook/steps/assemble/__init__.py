"""Assembling a model's folder in the form that transformers loads: links to shards, index, configuration, tokenizer."""
