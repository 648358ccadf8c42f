"""Assembling a model's folder, as transformers loads it: links to its shards, index, configuration, tokenizer."""
