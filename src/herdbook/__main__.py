"""``python -m herdbook``: the command line, where the program itself is not on the PATH."""

import sys

from herdbook.cli.main import main

sys.exit(main())
