"""``python -m herdbook``: the command line, if the program itself is not on the PATH."""

import sys

from herdbook.cli.start import main

sys.exit(main())
