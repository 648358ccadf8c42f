"""Extraction: a LoRA adapter from a fine-tune and its base, as a folder that PEFT loads, with a record; and its check."""
