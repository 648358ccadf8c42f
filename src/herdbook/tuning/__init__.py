"""Searches over models: an optimizer proposes trials, ordinary jobs measure them, and a paired test judges the winner."""
