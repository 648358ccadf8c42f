"""Routing: what a mixture's routers are, and which experts they really choose."""
