"""What a source brings: which of its files count, and how a wheel or a GGUF is read."""
