"""The command line: one module a command, each with its options and its run. No logic."""
