"""What tests share: small models and releases, a folder in which the workflow runs, servers and a cluster on this machine."""
