"""The sources of config/buttercup.yaml for a local Hub: the same names, files and shard layout; holes or small weights.

Weights files are as transformers saves them: tensors in the order of the model, a new file where the next tensor would
pass the limit. The limits (5 GB, and 10 GB for the one that was uploaded with larger files) are assumptions.
"""

import json
import math
import re
import shutil
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from herdbook import recipe as recipes
from support import tiny
from support.project import REPOSITORY

GB = 10**9
INDEX = "model.safetensors.index.json"
SIDE_FILES = ("config.json", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json")
SOURCES = {
    "macadeliccc/WestLake-7B-v2-laser-truthy-dpo": 5 * GB,
    "cognitivecomputations/samantha-1.1-westlake-7b": 5 * GB,
    "Kukedlc/Triunvirato-7b": 10 * GB,
}
SHORTER = {
    r"\bwindows: 40\b": "windows: 30",
    r"\btokens: 96\b": "tokens: 12",
    r"&layers 20-31\b": "&layers 28-31",
}
SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


@dataclass(frozen=True)
class Widths:
    """A Mistral's widths and depth; Mistral-7B's unless said otherwise."""

    hidden: int = 4096
    intermediate: int = 14336
    heads: int = 32
    kv_heads: int = 8
    vocabulary: int = 32000
    layers: int = 32

    def shapes(self):
        """Return the shape of each tensor by name, in the model's order."""
        kv = self.hidden // self.heads * self.kv_heads
        found = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            for name, shape in {
                "self_attn.q_proj": (self.hidden, self.hidden),
                "self_attn.k_proj": (kv, self.hidden),
                "self_attn.v_proj": (kv, self.hidden),
                "self_attn.o_proj": (self.hidden, self.hidden),
                "mlp.gate_proj": (self.intermediate, self.hidden),
                "mlp.up_proj": (self.intermediate, self.hidden),
                "mlp.down_proj": (self.hidden, self.intermediate),
                "input_layernorm": (self.hidden,),
                "post_attention_layernorm": (self.hidden,),
            }.items():
                found[f"model.layers.{layer}.{name}.weight"] = shape
        found["model.norm.weight"] = (self.hidden,)
        found["lm_head.weight"] = (self.vocabulary, self.hidden)
        return found

    def config(self):
        return {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "bfloat16",
        }


FULL = Widths()
# Rows of 256 elements, so that every method of quantization can be what it is called.
SMALL = Widths(hidden=256, intermediate=256, heads=4, kv_heads=2, vocabulary=512)


def shard_layout(limit, widths=FULL):
    """Return, for each weights file of a model (the full-size one), the names of its tensors."""
    runs, filled = [[]], 0
    for name, shape in widths.shapes().items():
        size = 2 * math.prod(shape)
        if runs[-1] and filled + size > limit:
            runs.append([])
            filled = 0
        runs[-1].append(name)
        filled += size
    return {
        f"model-{number:05}-of-{len(runs):05}.safetensors": run for number, run in enumerate(runs, start=1)
    }


def write_holes(path, names, shapes):
    """Write a weights file of full size with a true header and nothing but holes for weights."""
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(names):
        size = 2 * math.prod(shapes[name])
        header[name] = {
            "dtype": "BF16",
            "shape": shapes[name],
            "data_offsets": [position, position + size],
        }
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)


def write_full(folder, repo):
    """Write one of the sources at full size, without weights."""
    write_hollow(folder, FULL, SOURCES[repo])


def write_hollow(folder, widths, limit):
    """Write a model without weights, in files of no more than a limit in bytes."""
    folder.mkdir(parents=True)
    layout = shard_layout(limit, widths)
    for file, names in layout.items():
        write_holes(folder / file, names, widths.shapes())
    _write_about(folder, widths, layout)
    write_tokenizer(folder, [f"{number} sires and dams are names in a herd book" for number in range(999)])


def write_small(folder, repo, tokenizer):
    """Write one of the sources with small weights: the first is drawn, the others are near it, as its fine-tunes."""
    folder.mkdir(parents=True)
    layout = shard_layout(SOURCES[repo])
    shapes = SMALL.shapes()
    tensors = _draw(shapes, 0)
    place = list(SOURCES).index(repo)
    if place:
        change = _draw(shapes, place)
        tensors = {
            name: tensor + (0.2 * change[name] if tensor.ndim > 1 else 0) for name, tensor in tensors.items()
        }
    for file, names in layout.items():
        held = {name: tensors[name].to(torch.bfloat16) for name in names}
        save_file(held, folder / file, metadata={"format": "pt"})
    _write_about(folder, SMALL, layout)
    for file in tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())


def _draw(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.ones(shape)
        if len(shape) == 1
        else torch.randn(shape, generator=generator) / shape[1] ** 0.5
        for name, shape in shapes.items()
    }


def _write_about(folder, widths, layout):
    shapes = widths.shapes()
    size = 2 * sum(math.prod(shape) for shape in shapes.values())
    weight_map = {name: file for file, names in layout.items() for name in names}
    contents = {
        INDEX: {"metadata": {"total_size": size}, "weight_map": weight_map},
        "config.json": widths.config(),
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2},
        "special_tokens_map.json": SPECIAL,
        "tokenizer_config.json": {**SPECIAL, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A source\n", encoding="utf-8")


def write_tokenizer(folder, lines):
    """Train a small tokenizer of Mistral's kind: SentencePiece with bytes for what it does not know, in both formats."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = tiny.train_sentencepiece(folder / "tokenizer.model", lines, 512)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    # SentencePiece joins what makes the piece of the smallest number; the same as a list of merges.
    merges = [
        (piece[:at], piece[at:])
        for piece in pieces[3 + 256 :]
        for at in range(1, len(piece))
        if piece[:at] in vocabulary and piece[at:] in vocabulary
    ]
    unknown = SPECIAL["unk_token"]
    bpe = models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL.values()])
    tokenizer.save(str(folder / "tokenizer.json"))


def copy_recipe(root, documents=None):
    """Copy the recipe with what it names beside itself; return its path. Measured is only so much of each text.

    Then there are less text and fewer matrices to search, too: passes over it are most of what a build computes.

    What needs the data of suites, which are not here, is left out, and with it the predecessor: test_benchmarks.py has
    stand-ins of the suites, and test_suite_scores.py reads the recipe as it is.
    """
    (root / "config").mkdir(parents=True, exist_ok=True)
    shutil.copytree(REPOSITORY / "config/tasks", root / "config/tasks", dirs_exist_ok=True)
    beside = root / "config/miniature"
    if not beside.exists():
        beside.symlink_to(REPOSITORY / "config/miniature")
    if documents:
        beside.unlink()
        shutil.copytree(REPOSITORY / "config/miniature/text", beside / "text")
        for path in beside.glob("text/*/test.jsonl"):
            lines = path.read_text(encoding="utf-8").splitlines()[:documents]
            short = [{**document, "text": document["text"][:400]} for document in map(json.loads, lines)]
            path.write_text("".join(f"{json.dumps(one)}\n" for one in short), encoding="utf-8")
    text = (REPOSITORY / "config/buttercup.yaml").read_text(encoding="utf-8")
    recipe = root / "config/buttercup.yaml"
    for pattern in (
        r"^    - \{suite: .*\n",
        r"^  predecessor: .*\n",
        r", predecessor(?=\])",
        r"^marks:\n(  - .*\n)+",
        r",\n +better: .*(?=\}\n)",
    ):
        text, count = re.subn(pattern, "", text, flags=re.MULTILINE)
        assert count, pattern
    if documents:
        for pattern, less in SHORTER.items():
            text, count = re.subn(pattern, less, text)
            assert count, pattern
    recipe.write_text(text, encoding="utf-8")
    assert not recipes.load(recipe).evaluate.suites
    return recipe
