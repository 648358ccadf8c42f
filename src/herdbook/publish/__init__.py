"""Publishing: write a release to the Hub in one commit, or to a folder, and read it back."""
