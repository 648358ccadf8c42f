"""Questions about models and tokenizers, answered in this process: starting one that imports transformers takes longer than all else.

What needs limits of its own is answered in a process that is forked.
"""

import importlib
import json
import logging
import sys
from unittest import mock

from support import forkserver


def answering(own):
    """Return a function that does what `herdbook.apart.ask` does, here; ``own`` is asked what needs limits."""

    def ask(program, question, *limits):
        if limits:
            with mock.patch.object(sys, "executable", forkserver.PYTHON):
                return own(program, question, *limits)
        with mock.patch.object(
            logging, "raiseExceptions", False
        ):  # transformers logs to an earlier test's standard error
            return importlib.import_module(program).reply(**json.loads(question))

    return ask
