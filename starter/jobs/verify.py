# /// script
# requires-python = ">=3.11"
# dependencies = ["herdbook==@version@"]
# ///
"""Verify published releases where the Hub runs jobs: on a schedule, or when a source changes. README.md shows the commands.

Ends with the highest exit status of `herdbook verify`: 8 if a release does not match its claims, 9 if something could not be
verified, such as a source that is gone. Then the job is listed as failed, and its log has the report.
"""

import subprocess
import sys


def main(releases: list[str]) -> int:
    """Verify releases, ``owner/name@revision``, and return the exit status."""
    if not releases:
        sys.stderr.write("no release is named: verify.py OWNER/NAME@REVISION ...\n")
        return 2
    command = [sys.executable, "-m", "herdbook", "verify", "--level", "upstream", "--"]
    return max(subprocess.run([*command, release], check=False).returncode for release in releases)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
