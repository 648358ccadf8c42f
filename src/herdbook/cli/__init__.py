"""The command line: parsing, help texts, and errors turned into messages. No logic."""
