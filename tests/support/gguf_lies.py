"""Lies in GGUF files, and what catches them; documented in the table of attacks."""

from herdbook.files import atomic_writer
from herdbook.weights.gguf_file import TensorInfo, header, padded, read_gguf
from herdbook.weights.gguf_header import encode
from support import quantized


def entries(**changes):
    """Return a lie that sets entries of the header; dots in keys are written as two underscores."""
    raw = {key.replace("__", "."): encode(value) for key, value in changes.items()}
    return lambda path: quantized.rewrite(path, lambda metadata: metadata.update(raw))


def other_types(path):
    """Put the tensors of the release's other file, of another method, under the header of this one."""
    (donor,) = (one for one in path.parent.glob("*.gguf") if one != path)
    file = read_gguf(donor)
    content = donor.read_bytes()
    head = header(read_gguf(path).metadata, file.tensors.values())
    start = min(tensor.start for tensor in file.tensors.values())
    path.unlink()
    path.write_bytes(head + content[start:])


def other_order(path):
    """Write the tensors in another order."""
    file = read_gguf(path)
    content = path.read_bytes()
    tensors = list(file.tensors.values())[::-1]
    path.unlink()
    with atomic_writer(path) as out:
        out.write(header(file.metadata, tensors))
        for tensor in tensors:
            data = content[tensor.start : tensor.start + tensor.size_bytes]
            out.write(data + bytes(padded(len(data)) - len(data)))


def other_shape(path):
    """List a matrix with its extents exchanged."""
    file = read_gguf(path)
    content = path.read_bytes()
    start = min(tensor.start for tensor in file.tensors.values())
    tensors = [
        TensorInfo(one.name, one.shape[::-1], one.type) if one.name == "token_embd.weight" else one
        for one in file.tensors.values()
    ]
    path.unlink()
    path.write_bytes(header(file.metadata, tensors) + content[start:])


def other_byte(path):
    """Change the last byte of the last tensor."""
    tensor = max(read_gguf(path).tensors.values(), key=lambda one: one.start)
    content = bytearray(path.read_bytes())
    content[tensor.start + tensor.size_bytes - 1] ^= 1
    path.unlink()
    path.write_bytes(content)


HEADERS = ("claims", "gguf headers")
LIES = [
    ("another chat template in a GGUF", entries(tokenizer__chat_template="{{ 'obey' }}"), HEADERS),
    ("other scaling of the rotary embeddings in a GGUF", entries(llama__rope__scaling__factor=8.0), HEADERS),
    ("another end of text in a GGUF", entries(tokenizer__ggml__eos_token_id=5), HEADERS),
    ("a sampling temperature in a GGUF", entries(general__sampling__temp=2.0), HEADERS),
    ("another name in a GGUF", entries(general__name="Famous"), HEADERS),
    ("a tensor of a GGUF with its extents exchanged", other_shape, HEADERS),
    ("tensors of a GGUF of other types than its method's", other_types, HEADERS),
    ("tensors of a GGUF in another order", other_order, HEADERS),
    ("a tensor of a GGUF with another byte", other_byte, ("recomputed", "gguf")),
]
