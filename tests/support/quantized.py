"""Quantized files in tests: a header as the converter would write it, by the gguf library, for tiny models."""

import json
import struct
from pathlib import Path

import gguf

from herdbook.architectures.gguf_tensors import gguf_shapes
from herdbook.files import dump_json, sha256_file
from herdbook.layout import RECORDS
from herdbook.plan.quantize import traits_of
from herdbook.quantization.methods import METHODS
from herdbook.quantization.mixture import Choices, choose_types
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.steps.quantize.model_folder import read_folder
from herdbook.steps.quantize.quantize import quantize_file
from herdbook.steps.quantize.step import quantize
from herdbook.weights.gguf_file import header, padded, read_gguf
from support import lies

SPECIAL = {"<unk>": "unk", "<s>": "bos", "</s>": "eos"}


def size_label(experts, hidden=32, intermediate=64):
    """Return what the converter calls the size of a mixture of ``tiny`` models with heads of a quarter of their width.

    It is the size of all that one expert computes with.
    """
    one = 2 * 3 * intermediate * hidden  # the MLP in two layers
    layer = 2 * hidden**2 + hidden**2 + 2 * hidden + experts * hidden  # attention, norms, router
    shared = 2 * 64 * hidden + hidden + 2 * layer  # with embeddings, head and last norm
    return f"{experts}x{round((shared + one) / 1000)}K"


def add_to(plan, size_label):
    """Make the quantized files of a plan whose other results are made, and measure their losses if the recipe asks for them."""
    write_header(plan, size_label)
    for item in plan.quantized:
        quantize(plan, item, 1)
    if plan.losses:
        from herdbook.steps.loss.step import loss

        for item in plan.losses:
            loss(plan, item)


def types_of(folder, method, choices=None):
    """Return the types of a model's tensors, as a plan chooses them."""
    model = read_folder(folder)
    shapes = {name: span.shape for name, (_, span) in model.tensors.items()}
    shapes = gguf_shapes(model.config, shapes, "model")
    chosen = choose_types(shapes, traits_of(model.config), METHODS[method], choices)
    return {tensor.name: tensor.type for tensor in chosen}


def quantize_folder(folder, head, output, method, *, choices=None, matrix=None, entries=None, threads=1):
    """Quantize a model's folder, without a plan; of ``head``, a GGUF, only the metadata are read."""
    types = types_of(folder, method, choices or Choices(matrix=matrix is not None))
    number = METHODS[method].file_type
    return quantize_file(head, folder, output, types, number, matrix=matrix, entries=entries, threads=threads)


def write_header(plan, size_label):
    """Write the header of the GGUF files of a released mixture whose tokenizer ``tiny`` wrote."""
    folder = plan.layout.folder(plan.released)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    path = plan.layout.header(plan.conversion)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type("model")
    writer.add_name(plan.recipe.release.name)
    writer.add_size_label(size_label)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    if scaling := config.get("rope_scaling"):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_vocab_size(config["vocab_size"])
    for add in (writer.add_rope_dimension_count, writer.add_key_length, writer.add_value_length):
        add(config["head_dim"])
    writer.add_quantization_version(2)
    writer.add_file_type(32)
    vocabulary = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    tokens = [vocabulary.get(number, f"[PAD{number}]") for number in range(config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 5 if "PAD" in token else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    for token, kind in SPECIAL.items():
        getattr(writer, f"add_{kind}_token_id")(tokens.index(token))
    if (folder / "chat_template.jinja").exists():
        writer.add_chat_template((folder / "chat_template.jinja").read_text())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def rewrite(path: Path, change, keep=None):
    """Rewrite a GGUF's header: ``change`` alters its metadata in place, raw values by key; the tensors stay."""
    file = read_gguf(path)
    content = path.read_bytes()
    metadata = dict(file.metadata)
    change(metadata)
    parts = [header(metadata, file.tensors.values())]
    for tensor in file.tensors.values():
        data = content[tensor.start : tensor.start + tensor.size_bytes]
        parts.append(data + bytes(padded(len(data)) - len(data)))
    path.unlink()  # it may be a link to the build's own file
    path.write_bytes(b"".join(parts))


def told(folder, change, key=lies.KEY):
    """Let a builder change the first quantized file of a release, and derive everything else from that."""
    plan = Release(FolderSubject(folder)).make_plan()
    item = plan.quantized[0]
    with lies.told(folder, key):
        change(folder / item.file)
        record = folder / RECORDS / f"{item.id}.gguf.json"
        content = json.loads(record.read_text())
        content["file"] = {
            "size_bytes": (folder / item.file).stat().st_size,
            "sha256": sha256_file(folder / item.file),
        }
        record.write_text(dump_json(content))


def other(raw: bytes) -> bytes:
    """Return another value of the same type: a number, a text or an element of a list is changed."""
    kind = int.from_bytes(raw[:4], "little")
    if kind == gguf.GGUFValueType.FLOAT32:
        return raw[:4] + struct.pack("<f", struct.unpack("<f", raw[4:])[0] * 2 + 1)
    place = len(raw) - 1 if kind in {gguf.GGUFValueType.STRING, gguf.GGUFValueType.ARRAY} else 4
    if kind == gguf.GGUFValueType.ARRAY and int.from_bytes(raw[4:8], "little") == gguf.GGUFValueType.INT32:
        place = 16
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
