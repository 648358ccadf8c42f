"""Reading a release: a folder or a repository on the Hub."""
