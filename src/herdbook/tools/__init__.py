"""What is outside this package: external programs, and the checkout or wheel that the package is installed from."""
