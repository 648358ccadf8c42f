"""Which tests a worker runs one after the other: those of a file, which share its fixtures, or of a part of it."""

import re

from xdist.scheduler import LoadFileScheduling


class ByPart(LoadFileScheduling):
    """Gives files to workers, and of long files each part: the tests that have its name as their parameter, ``part 1``."""

    def _split_scope(self, nodeid):
        part = re.search(r"\[(part \d+)\]$", nodeid)
        file = super()._split_scope(nodeid)
        return f"{file} {part[1]}" if part else file
