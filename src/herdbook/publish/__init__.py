"""Publishing: a release becomes one commit on the Hub, or the content of a folder, and is read back."""
