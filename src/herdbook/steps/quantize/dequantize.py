"""A GGUF back into a transformers model, so that the loss by quantization can be measured without llama.cpp.

transformers can read GGUF files itself (``gguf_file=``), but loads a Mixtral as a Llama whose feed-forward weights are
random, without an error (5.23). Here every parameter is accounted for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.errors import CheckpointError
from herdbook.weights.gguf_restored import RestoredTensors

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.weights.gguf_file import GgufFile


def load_dequantized(gguf_path: Path, model: Path) -> Any:
    """Load the weights of a GGUF, in float32, into the transformers model that a folder describes.

    Weights only: llama.cpp at run time also rounds activations to 8 bits, which this leaves out.

    Args:
        gguf_path: The GGUF, of any type.
        model: The Hugging Face folder of the same model; only its ``config.json`` is read.

    Returns:
        The model (a ``transformers.PreTrainedModel``), in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If the file is damaged, lacks a tensor, has an extra tensor or one of another shape, or leaves a
            parameter of the model unset.
        StepError: If the architecture is not supported.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(model, local_files_only=True)
    tensors = RestoredTensors(gguf_path, config.to_dict(), str(model))
    file = tensors.file
    weights = {name: tensors[name] for name in tensors.spans}
    kind = getattr(transformers, config.architectures[0])
    config.dtype = torch.float32
    # a file of a tied model may still contain an output matrix, which llama.cpp then uses
    config.tie_word_embeddings = "output.weight" not in file.tensors
    try:
        # mismatched sizes are reported below, not raised; an error means that a layer could not be assembled
        loaded, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except RuntimeError as error:
        raise CheckpointError(f"{gguf_path}: does not fit the model: {error}") from error
    for word in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if problems := info.get(word):
            listed = ", ".join(str(item) for item in sorted(problems, key=str))
            raise CheckpointError(f"{gguf_path}: does not fit the model: {word.replace('_', ' ')}: {listed}")
    _check_count(loaded, file, tensors.derived)
    return loaded.eval()


def _check_count(loaded: Any, file: GgufFile, other: int) -> None:
    """Compare numbers of parameters: a second check that no weight was left random (shared parameters count once).

    Of the file's, ``other`` are none of the model's.
    """
    expected = sum(parameter.numel() for parameter in loaded.parameters())
    count = sum(tensor.parameters for tensor in file.tensors.values()) - other
    if expected != count:
        raise CheckpointError(f"{file.path}: contains {count} parameters, the model has {expected}")
