"""Losses that could not be measured, or would be measured on text that a model was made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HELD = {"data": ["held.jsonl"], "split": "validation", "windows": 30, "tokens": 8}
TRAIN = {"data": ["train.jsonl"], "split": "train", "windows": 30, "tokens": 8}
GEMMA = {
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
}


def measured(
    *,
    texts: tuple[str, ...] = ("held",),
    same: bool = False,
    held: str = "",
    imatrix: dict[str, Any] | None = None,
    loss: dict[str, Any] | None = None,
    **changes: Any,
) -> Callable[[Path], Path]:
    """Return a maker of a quantized model whose loss is measured on texts, of which `same` makes the documents equal."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1, **changes)
        for name, word in (("held", "w1"), ("train", "w1" if same else "w2")):
            lines = (
                f'{{"text": "{word} {" ".join(f"w{(n * i) % 40}" for i in range(40))}"}}\n'
                for n in range(1, 9)
            )
            (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        section: dict[str, Any] = {"methods": ["Q8_0"], "loss": {"texts": list(texts), **(loss or {})}}
        if imatrix:
            section["imatrix"] = imatrix
        calibration = {"held": {**HELD, "data": [held or "held.jsonl"]}, "train": TRAIN}
        models = {"base": {"folder": "base"}}
        return tiny.write_recipe(folder / "recipe.yaml", models, quantize=section, calibration=calibration)

    return make


CASES = [
    Case(
        "`quantize.loss` on a text that is not in `calibration`",
        measured(texts=("heldout",)),
        "quantize.loss.texts.0: no calibration is named 'heldout'; did you mean 'held'?",
    ),
    Case(
        "`quantize.loss` on a text that is named twice",
        measured(texts=("held", "held")),
        "quantize.loss.texts.1: 'held' is named twice",
    ),
    Case(
        "`quantize.loss` on a text of a training split",
        measured(texts=("train",)),
        "quantize.loss.texts.0: 'train' is of a training split, which is not held out",
    ),
    Case(
        "`quantize.loss` on the file that the importance matrix is computed from",
        measured(held="train.jsonl", imatrix={"texts": ["train"]}),
        "quantize.loss.texts.0: 'held' reads train.jsonl, of which quantize.imatrix is made",
    ),
    Case(
        "`quantize.loss` on the same documents in another file",
        measured(same=True, imatrix={"texts": ["train"]}),
        "quantize.loss.texts",
    ),
    Case(
        "`quantize.loss` with a ceiling for a file that is not made",
        measured(loss={"ceiling": {"Q4_K_M": 0.1}}),
        "quantize.loss.ceiling.Q4_K_M: no quantized file is named 'Q4_K_M'",
    ),
    Case(
        "`quantize.loss` with another publisher's file under the name of one of its own",
        measured(loss={"others": {"Q8_0": {"hub": "owner/name-GGUF", "file": "name.gguf"}}}),
        "quantize.loss.others: 'Q8_0' is the name of a file of this recipe; choose another one",
    ),
    Case(
        "`quantize.loss` with another publisher's file that is no GGUF",
        measured(loss={"others": {"theirs": {"hub": "owner/name-GGUF", "file": "name.safetensors"}}}),
        "quantize.loss.others.theirs.file: ",
    ),
    Case(
        "`quantize.loss` of a model that is not read layer by layer",
        measured(**GEMMA),
        "quantize.loss: 'base' is of type 'gemma2', which is not read layer by layer",
    ),
]
