"""The cache: results under their keys, shared by checkouts, machines and people, so that nothing is built twice."""

from herdbook.cache.cache import Cache, CacheEntry, configured
from herdbook.cache.product import Product, products

__all__ = ["Cache", "CacheEntry", "Product", "configured", "products"]
