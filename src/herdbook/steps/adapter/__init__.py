"""Adapters: folding a LoRA into the model that it was trained on (Hu et al. 2021, arXiv:2106.09685)."""
