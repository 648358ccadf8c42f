"""A Hugging Face Hub on this machine, for tests: real HTTP on 127.0.0.1, spoken to by the real client.

``store`` is what it holds, ``hub`` serves that: ``server`` listens, ``handler`` reads a request and sends the answer, ``reading``
and ``writing`` know what to answer (``routing`` finds which function), ``faults`` damages it on demand, ``log`` remembers it.
``client`` points `huggingface_hub` at the Hub, ``plugin`` makes fixtures of all that.
"""

from pytest_local_hub.hub import LocalHub
from pytest_local_hub.log import Request
from pytest_local_hub.store import Blob, OnDisk

__all__ = ["Blob", "LocalHub", "OnDisk", "Request"]
