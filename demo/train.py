"""Train the two specialists of the miniature herd, and measure them.

    python demo/train.py python [--steps N] [--out DIR]
    python demo/train.py prose [--steps N] [--out DIR]
    python demo/train.py evaluate

The first two train a LoRA adapter of SmolLM2-135M-Instruct on Python source code or on novels, on the CPU, in about a
quarter of an hour each, and write it in PEFT's format to config/miniature/adapters/. The last merges each committed
adapter into the base, as a release does, and prints the mean loss per token on every held-out text as a Markdown table.

The texts and the base come from demo/data.py. Weights are the base's own bfloat16 values throughout; the arithmetic
is float32, since bfloat16 is very slow on most CPUs.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from tqdm import tqdm

from data import (
    HELD_OUT,
    KINDS,
    PinError,
    default_cache,
    fetch_base,
    held_out_texts,
    load_tokenizer,
    training_texts,
)

ADAPTERS = Path(__file__).resolve().parents[1] / "config" / "miniature" / "adapters"
SPECIALISTS = ("python", "prose")
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Hyperparameters:
    """Everything that determines an adapter, except for its texts.

    Args:
        seed: the seed of the adapter's initial weights and of the order of the windows.
        steps: optimizer steps.
        batch: windows per step.
        window: tokens per window.
        learning_rate: the peak of the learning rate.
        warmup: steps over which the learning rate rises to the peak; after that it falls as a cosine.
        final: the final learning rate, as a share of the peak.
        clip: the gradient's largest norm.
        rank: the adapter's rank.
        alpha: the adapter is scaled by alpha / rank.
        targets: the adapted projections: only those of the MLP, since a mixture uses only the MLP of an expert.
    """

    seed: int = 20240
    steps: int = 90
    batch: int = 2
    window: int = 256
    learning_rate: float = 1e-3
    warmup: int = 10
    final: float = 0.05
    clip: float = 1.0
    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] = ("down_proj", "gate_proj", "up_proj")


def load_base(path: Path) -> Any:
    """Return the base model: bfloat16 values in float32.

    Args:
        path: the base model's GGUF file.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    warnings.simplefilter("ignore", FutureWarning)  # of transformers about itself
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    return model.float()


def windows(texts: list[str], tokenizer: Any, hyper: Hyperparameters) -> torch.Tensor:
    """Return the training windows, one per row, in a random order that the seed determines.

    Args:
        texts: the documents, which are joined with end-of-text tokens.
        tokenizer: the base's tokenizer.
        hyper: the hyperparameters.
    """
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    stream: list[int] = []
    for text in tqdm(texts, desc="tokens", unit="document"):
        stream += [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
    count = len(stream) // hyper.window
    order = random.Random(hyper.seed).sample(range(count), count)  # noqa: S311
    return torch.tensor(stream[: count * hyper.window]).view(count, hyper.window)[order]


def learning_rate(step: int, hyper: Hyperparameters) -> float:
    """Return a step's learning rate.

    Args:
        step: the step, counted from 0.
        hyper: the hyperparameters.
    """
    if step < hyper.warmup:
        return hyper.learning_rate * (step + 1) / hyper.warmup
    done = (step - hyper.warmup) / max(1, hyper.steps - hyper.warmup)
    return hyper.learning_rate * (hyper.final + (1 - hyper.final) * (1 + math.cos(math.pi * done)) / 2)


def mean_loss(model: Any, tokenizer: Any, texts: list[str], progress: tqdm[Any] | None = None) -> float:
    """Return a model's mean loss per token over texts, in nats; each text's first token is given, not predicted.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        texts: the documents, each read by itself.
        progress: a progress bar, advanced by one for each document.
    """
    model.eval()
    total, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        predicted = ids.shape[1] - 1
        with torch.no_grad():
            total += model(input_ids=ids, labels=ids).loss.item() * predicted
        tokens += predicted
        if progress is not None:
            progress.update()
    return total / tokens


def train(kind: str, hyper: Hyperparameters, out: Path, cache: Path) -> None:
    """Train one adapter and write it.

    Args:
        kind: "python" or "prose".
        hyper: the hyperparameters.
        out: the adapter's folder; an existing one is replaced when the new one is complete.
        cache: where demo/data.py keeps packages and training texts.
    """
    began = time.monotonic()
    random.seed(hyper.seed)
    torch.manual_seed(hyper.seed)
    texts = training_texts(kind, cache)
    base = fetch_base(cache)
    tokenizer = load_tokenizer(base)
    rows = windows(texts, tokenizer, hyper)
    if hyper.steps * hyper.batch > len(rows):
        sys.exit(
            f"error: {hyper.steps} steps need {hyper.steps * hyper.batch} windows; the texts have {len(rows)}"
        )
    model = load_base(base)
    before = mean_loss(model, tokenizer, held_out_texts(kind, "validation"))
    print(f"{kind} validation loss of the base: {before:.4f}", flush=True)
    config = LoraConfig(
        r=hyper.rank,
        lora_alpha=hyper.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(hyper.targets),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=hyper.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    model.train()
    recent: list[float] = []
    with tqdm(total=hyper.steps, desc=f"training {kind}", unit="step") as progress:
        for step in range(hyper.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, hyper)
            batch = rows[step * hyper.batch : (step + 1) * hyper.batch]
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, hyper.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            recent = [*recent[-9:], loss.item()]
            progress.set_postfix(loss=f"{recent[-1]:.3f}")
            progress.update()
            if (step + 1) % 10 == 0:
                progress.write(
                    f"step {step + 1:4}  loss {sum(recent) / len(recent):.4f} (mean of the last ten)"
                )
    after = mean_loss(model, tokenizer, held_out_texts(kind, "validation"))
    print(f"{kind} validation loss: {before:.4f} before, {after:.4f} after")
    save_adapter(model, hyper, out)
    print(f"{out}: {time.monotonic() - began:.0f} s, {asdict(hyper)}")


def save_adapter(model: Any, hyper: Hyperparameters, out: Path) -> None:
    """Write an adapter in PEFT's format, in bfloat16, atomically.

    Args:
        model: the PEFT model.
        hyper: the hyperparameters.
        out: the adapter's folder.
    """
    config = {
        "base_model_name_or_path": BASE_NAME,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": hyper.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": hyper.rank,
        "target_modules": sorted(hyper.targets),
        "task_type": "CAUSAL_LM",
    }
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in state.items()}
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        save_file(tensors, new / "adapter_model.safetensors", metadata={"format": "pt"})
        (new / "adapter_model.safetensors").chmod(0o644)
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (new / "adapter_config.json").write_text(text, encoding="utf-8")
        if out.exists():
            shutil.move(out, old)
        new.rename(out)


def merged(base: Path, adapter: Path | None) -> Any:
    """Return the base with an adapter merged into its weights, rounded to bfloat16 as a release's weights are.

    Args:
        base: the base model's GGUF file.
        adapter: the adapter's folder, or None for the base itself.
    """
    model = load_base(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model.to(torch.bfloat16).float()


def evaluate(cache: Path) -> None:
    """Print the mean loss per token of the base and of each merged adapter on every held-out text.

    Args:
        cache: where demo/data.py keeps the base.
    """
    base = fetch_base(cache)
    tokenizer = load_tokenizer(base)
    texts = {(kind, split): held_out_texts(kind, split) for kind in KINDS for split in HELD_OUT}
    models: dict[str, Path | None] = {"base": None, **{kind: ADAPTERS / kind for kind in SPECIALISTS}}
    losses: dict[str, dict[tuple[str, str], float]] = {}
    with tqdm(
        total=len(models) * sum(map(len, texts.values())), desc="evaluating", unit="document"
    ) as progress:
        for name, adapter in models.items():
            model = merged(base, adapter)
            losses[name] = {key: mean_loss(model, tokenizer, rows, progress) for key, rows in texts.items()}
    print("| text | split | base | + python | + prose |")
    print("| --- | --- | ---: | ---: | ---: |")
    for kind, split in texts:
        cells = " | ".join(f"{losses[name][kind, split]:.4f}" for name in models)
        print(f"| {kind} | {split} | {cells} |")


def main() -> None:
    """Read the command line; train or evaluate."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "what", choices=(*SPECIALISTS, "evaluate"), help="the adapter to train, or evaluate both"
    )
    parser.add_argument("--steps", type=int, default=Hyperparameters.steps, help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, help="the adapter's folder (default: config/miniature/adapters/ and its name)"
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        if arguments.what == "evaluate":
            evaluate(arguments.cache)
        else:
            out = arguments.out or ADAPTERS / arguments.what
            train(arguments.what, Hyperparameters(steps=arguments.steps), out, arguments.cache)
    except PinError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
