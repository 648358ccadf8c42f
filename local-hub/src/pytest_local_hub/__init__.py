"""A Hugging Face Hub on this machine, for tests: real HTTP on 127.0.0.1, spoken to by the real client.

``store`` holds repositories, ``server`` speaks HTTP about them and misbehaves on demand, ``reading`` and ``writing`` are its
routes, ``client`` points `huggingface_hub` at it, ``plugin`` makes fixtures of all that.
"""

from pytest_local_hub.server import LocalHub, Request
from pytest_local_hub.store import Blob, OnDisk

__all__ = ["Blob", "LocalHub", "OnDisk", "Request"]
