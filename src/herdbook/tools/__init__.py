"""What lies outside this package: programs of others, and the checkout or wheel that this one is installed from."""
