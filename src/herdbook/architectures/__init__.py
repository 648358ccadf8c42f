"""Facts about the architectures that are read and written: dense models and mixtures."""
