"""Tiny real models, adapters and recipes for tests: the forms of real ones, weights from a seed."""

import base64
import io
import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.lock.pin import pin

SPECIAL = ("<unk>", "<s>", "</s>")
# How a Qwen2's tokenizer splits text.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The classes whose names do not follow from the model type alone.
CLASSES = {
    "gemma3_text": "Gemma3ForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
CHARACTERS = "w0123456789Ġ"  # with the space, as tokenizers of bytes spell it


def write_model(
    folder,
    seed=0,
    *,
    model_type="llama",
    layers=2,
    hidden=32,
    intermediate=64,
    vocab=64,
    shards=1,
    dtype=torch.bfloat16,
    **changes,
):
    """Write a model folder as the Hub has them, with a tokenizer of words ``w0``, ``w1``, ...; return its path.

    With several shards, tensors are dealt to them in turn, so that no shard holds a run of layers. ``changes`` go into
    its ``config.json``; tied embeddings, attention biases and head_dim decide which tensors there are, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    heads, kv_heads = 4, 2
    config = {
        "architectures": [CLASSES.get(model_type, f"{model_type.capitalize()}ForCausalLM")],
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": str(dtype).removeprefix("torch."),
        "torch_dtype": str(dtype).removeprefix("torch."),
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = {name: _draw(seed, name, shape).to(dtype) for name, shape in shapes(config).items()}
    _write_shards(folder, tensors, shards)
    write_tokenizer(folder, vocab, model_type)
    return folder


def write_other_model(folder, kind, seed=0, dtype=torch.float32, **config):
    """Write a model folder of any type that transformers has, with weights from a seed; return its path."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.for_model(
        kind, **{"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, **config}
    )
    model = AutoModelForCausalLM.from_config(settings, dtype=dtype)
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=drawn) * 0.1)
    model.save_pretrained(folder)
    write_tokenizer(folder, 64, kind)
    return folder


def write_vision_model(folder, seed=0, dtype=torch.float32, **text):
    """Write a folder of a model that reads images and text, a Mistral 3 with a Pixtral before it; return its path."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    shared = {"intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 8}
    settings = AutoConfig.for_model(
        "mistral3",
        text_config={
            "model_type": "mistral",
            "hidden_size": 32,
            "num_key_value_heads": 2,
            "vocab_size": 64,
            "max_position_embeddings": 128,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **shared,
            **text,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "image_size": 28,
            "patch_size": 14,
            **shared,
        },
        image_token_index=63,
    )
    model = AutoModelForImageTextToText.from_config(settings, dtype=dtype)
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=drawn) * 0.1)
    model.save_pretrained(folder)
    write_tokenizer(folder, 64)
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "PixtralImageProcessor"}')
    return folder


def shapes(config):
    """Return the shape of each tensor of a Llama, Mistral or Qwen, by name."""
    hidden, intermediate, kind = config["hidden_size"], config["intermediate_size"], config["model_type"]
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    q, kv = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    found = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings"):
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in {
            "self_attn.q_proj": (q, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (intermediate, hidden),
            "mlp.up_proj": (intermediate, hidden),
            "mlp.down_proj": (hidden, intermediate),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }.items():
            found[f"model.layers.{layer}.{name}.weight"] = shape
            projections = "qkvo" if config.get("attention_bias") else "qkv" if kind == "qwen2" else ""
            if name[: len("self_attn.q")] in {f"self_attn.{one}" for one in projections}:
                found[f"model.layers.{layer}.{name}.bias"] = shape[:1]
        if kind == "qwen3":
            found |= {f"model.layers.{layer}.self_attn.{one}_norm.weight": (head,) for one in "qk"}
    return found


def write_adapter(folder, model_folder, seed=0, rank=4, targets=("gate_proj", "up_proj", "down_proj")):
    """Write a LoRA adapter in PEFT's format for the MLPs of a model; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(targets),
    }
    (folder / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
    tensors = {}
    for name, shape in shapes(config).items():
        if name.removesuffix(".weight").rpartition(".")[2] in targets:
            prefix = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{prefix}.lora_A.weight"] = _draw(seed, name + "A", (rank, shape[1])).to(torch.bfloat16)
            tensors[f"{prefix}.lora_B.weight"] = _draw(seed, name + "B", (shape[0], rank)).to(torch.bfloat16)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def write_recipe(path, models, **sections):
    """Write a recipe; the last model is released as ``Tiny`` unless ``sections`` say otherwise. Return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    release = {
        "model": list(models)[-1],
        "name": "Tiny",
        "license": "apache-2.0",
        **sections.pop("release", {}),
    }
    content = {"models": models, "release": release, **sections}
    text = yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return path


def write_task(path, documents=("w1 w2 w3",), *, name="held_out", data="text.jsonl", metric=None):
    """Write an evaluation task that measures how well documents are predicted, and its data beside it; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": document}) for document in documents]
    (path.parent / data).write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data}},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [
            metric or {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}
        ],
        "metadata": {"version": 1.0, "title": "Held-out text"},
    }
    path.write_text(yaml.safe_dump(task), encoding="utf-8")
    return path


def lock(recipe_path: Path):
    """Lock a recipe, write the lock beside it, and return it."""
    made = pin(recipes.load(recipe_path), recipe_path, lambda _: None)
    locks.write(made, locks.path_for(recipe_path))
    return made


def _draw(seed, name, shape):
    if len(shape) == 1 and not name.endswith("bias"):
        return torch.ones(shape)
    generator = torch.Generator().manual_seed(
        seed * 1_000_003 + sum(ord(c) * (i + 1) for i, c in enumerate(name))
    )
    return torch.randn(shape, generator=generator) * 0.1


def _write_shards(folder, tensors, shards):
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    index = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        held = names[number::shards]
        save_file({name: tensors[name] for name in held}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(held, file)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    content = {"metadata": {"total_size": size}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")


def write_tokenizer(folder, vocab, kind="llama"):
    """Write a tokenizer of words that are built of characters; that of a Qwen2 in the only form in which transformers reads it."""
    words = [f"w{number}" for number in range(vocab - len(SPECIAL) - len(CHARACTERS))]
    tokens = {token: number for number, token in enumerate((*SPECIAL, *CHARACTERS, *words))}
    merges = [(word[:-1], word[-1]) for word in words]
    if kind == "qwen2":
        tokenizer = Tokenizer(models.BPE(tokens, merges))
        tokenizer.normalizer, tokenizer.decoder = normalizers.NFC(), decoders.ByteLevel()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer = Tokenizer(models.BPE(tokens, merges, unk_token=SPECIAL[0], fuse_unk=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    if kind == "qwen2":  # whose class in transformers would add tokens
        about |= {"pad_token": about["eos_token"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")


def write_bytes_tokenizer(folder):
    """Write a tokenizer of bytes, as transformers 5 takes it of each type (of a Qwen2 no other); return how many tokens it has."""
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(tokens)


def train_sentencepiece(path, lines, size):
    """Train a SentencePiece model on lines of text, with bytes for what it does not know; return its pieces."""
    import sentencepiece

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=trained,
        vocab_size=size,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(trained.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    return [pieces.id_to_piece(number) for number in range(len(pieces))]


def write_tiktoken(folder):
    """Write a ``tokenizer.model`` in tiktoken's format: all bytes, then a few tokens; return these tokens."""
    more = [b"th", b"the", b" q", b" qu"]
    ranks = [*(bytes([byte]) for byte in range(256)), *more]
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(ranks)]
    (folder / "tokenizer.model").write_text("".join(lines), encoding="ascii")
    return more


def build(recipe_path, results):
    """Lock a recipe and make all its models, and the report on its routers, without Snakemake; return the plan."""
    lock(recipe_path)
    return build_locked(recipe_path, results)


def build_locked(recipe_path, results):
    """Do what ``build`` does, with the lock that lies beside the recipe."""
    from herdbook import plan as plans
    from herdbook.plan.jobs import result_jobs
    from herdbook.steps.registry import run

    made = plans.load(recipe_path, results)
    for job in result_jobs(made):
        skipped = {"convert", "quantize", "data", "evaluate"}
        if job.rule == "loss" and not job.subject.encoded:  # of files that are not made here
            continue
        if job.rule not in skipped and not all(map(Path.exists, job.outputs)):
            run(made, job)
    return made


def release(plan, key=None):
    """Make a plan's release and the claims about it, signed if there is a key; return its folder."""
    from herdbook.plan.edition import Edition
    from herdbook.steps.attest.step import attest
    from herdbook.steps.release.step import release as put_together
    from support.loaded import checked

    # which transformers does not load without packages that no test installs
    has_other_format = plan.edition is Edition.GGUF or plan.edition.scheme
    (put_together if has_other_format else checked(put_together))(plan)
    attest(plan, key)
    return plan.layout.release_folder
