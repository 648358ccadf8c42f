"""Routing: the rows of a mixture's routers, and the experts that they choose."""
