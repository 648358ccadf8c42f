"""Models that would not load whole, or would run code: everything is signed anew, so that loading alone shows it."""

import json

from safetensors.torch import load_file, save_file

from herdbook.files import sha256_file
from herdbook.layout import RECORDS, WEIGHTS_INDEX
from support.attacks.forging import configured, sign_again


def without_a_tensor(folder):
    """Remove a tensor from the weights and from all that mentions it, and sign everything again."""
    tensor = "model.layers.1.block_sparse_moe.experts.0.w3.weight"
    index = json.loads((folder / WEIGHTS_INDEX).read_text())
    path = folder / index["weight_map"].pop(tensor)
    (folder / WEIGHTS_INDEX).write_text(json.dumps(index))
    digest = sha256_file(path)
    held = load_file(path)
    del held[tensor]
    save_file(held, path, metadata={"format": "pt"})
    [record] = [one for one in (folder / RECORDS).glob("*.json") if digest in one.read_text()]
    content = json.loads(record.read_text().replace(digest, sha256_file(path)))
    del content["tensors"][tensor]
    record.write_text(json.dumps(content))
    sign_again(folder)


def code_of_a_tokenizer(folder):
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | {"auto_map": {"AutoTokenizer": ["evil/code--tokenizer.T", None]}}))
    sign_again(folder)


CASES = [
    (
        "a tensor removed from weights, index and record, everything re-signed",
        without_a_tensor,
        ("files", "loads whole", "config.json"),
        {},
    ),
    (
        "more layers in the configuration than in the weights, everything re-signed",
        configured(num_hidden_layers=3),
        ("files", "loads whole", "config.json"),
        {},
    ),
    (
        "a billion experts in the configuration, everything re-signed",
        configured(num_local_experts=10**9),
        ("files", "loads whole", "config.json"),
        {},
    ),
    (
        "a billion layers of a type that only transformers knows, everything re-signed",
        configured(model_type="gpt2", n_layer=10**9),
        ("files", "loads whole", "config.json"),
        {},
    ),
    (
        "a number that is none in the configuration, everything re-signed",
        configured(hidden_size=[]),
        ("files", "loads whole", "config.json"),
        {},
    ),
    (
        "code named in the configuration, everything re-signed",
        configured(auto_map={"AutoModelForCausalLM": "evil/code--model.Model"}),
        ("files", "remote code", "config.json"),
        {},
    ),
    (
        "code named in the tokenizer's configuration, everything re-signed",
        code_of_a_tokenizer,
        ("files", "remote code", "tokenizer_config.json"),
        {},
    ),
]
