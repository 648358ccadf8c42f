"""Evaluation with lm-eval: pinned local tasks, fixed settings, results that do not depend on the time or the host."""
