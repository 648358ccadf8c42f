"""Questions about models and tokenizers, answered in this process: starting one that imports transformers takes longer than all else."""

import importlib
import json
import logging
from unittest import mock


def answering(own):
    """Return a function that does what `herdbook.apart.ask` does, here; ``own`` is asked what needs limits of its own."""

    def ask(program, question, *limits):
        if limits:
            return own(program, question, *limits)
        with mock.patch.object(
            logging, "raiseExceptions", False
        ):  # transformers logs to an earlier test's standard error
            return importlib.import_module(program).reply(**json.loads(question))

    return ask
