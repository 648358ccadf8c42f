"""Reading from the Hub: resolving names, listing a file's tensors, and downloading files that match their pins.

Upstream and the network are untrusted: names, headers and contents are checked, since `huggingface_hub` compares the size of
a download but not its digest. Files go into the ordinary Hugging Face cache, so a file that is in it is not downloaded a
second time.
"""

from herdbook.hub.content import (
    RANGE_BYTES,
    TensorHeader,
    cached,
    download,
    is_in_cache,
    read_file,
    read_tensor,
    stream_tensor,
    tensor_headers,
)
from herdbook.hub.failure import (
    FAILURES,
    MAX_WAIT_S,
    WAITS_S,
    explain,
    is_transient,
    persist,
    redact,
    requested_wait_s,
    server_message,
    without_token,
    without_tokens,
)
from herdbook.hub.history import PROPOSAL, Refs, history, leads_to, read_refs
from herdbook.hub.repository import (
    PICKLE_SUFFIXES,
    RemoteFile,
    RemoteRepo,
    is_wanted,
    remote_file,
    resolve,
    weights_of,
)
from herdbook.hub.snapshot import file_of_data_set, matches, read_of_data_set, read_url
from herdbook.hub.transport import client, read_range
from herdbook.hub.trusted import RESOURCE, resource

__all__ = [
    "FAILURES",
    "MAX_WAIT_S",
    "PICKLE_SUFFIXES",
    "PROPOSAL",
    "RANGE_BYTES",
    "RESOURCE",
    "WAITS_S",
    "Refs",
    "RemoteFile",
    "RemoteRepo",
    "TensorHeader",
    "cached",
    "client",
    "download",
    "explain",
    "file_of_data_set",
    "history",
    "is_in_cache",
    "is_transient",
    "is_wanted",
    "leads_to",
    "matches",
    "persist",
    "read_file",
    "read_of_data_set",
    "read_range",
    "read_refs",
    "read_tensor",
    "read_url",
    "redact",
    "remote_file",
    "requested_wait_s",
    "resolve",
    "resource",
    "server_message",
    "stream_tensor",
    "tensor_headers",
    "weights_of",
    "without_token",
    "without_tokens",
]
