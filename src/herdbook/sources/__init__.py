"""Reading sources: which of their files are used, and how a wheel or a GGUF file is read."""
