"""A local Hugging Face Hub for tests: real HTTP on 127.0.0.1, used by the real client.

``store`` has the repositories, and ``hub`` serves them: ``server`` listens, ``handler`` reads a request and sends the response,
``routing`` selects the function in ``reading`` or ``writing`` that answers, ``faults`` damages responses on demand, ``log``
records requests. ``client`` points `huggingface_hub` at the Hub, and ``plugin`` provides fixtures.
"""

from pytest_local_hub.hub import LocalHub
from pytest_local_hub.log import Request
from pytest_local_hub.store import Blob, OnDisk

__all__ = ["Blob", "LocalHub", "OnDisk", "Request"]
