"""Sources: pinning them, fetching them, and refusing what must not be trusted."""
