"""Models on devices: as much of one as they hold; the layers that they do not hold are brought one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Sequence


def place_on_devices(model: Any, devices: Sequence[str], room_bytes: int) -> Any:
    """Put a model on devices, layer by layer, in their order.

    Args:
        model: A model of transformers, in memory.
        devices: Where to. On a CPU it stays what it is.
        room_bytes: What shall stay free on each GPU.

    Returns:
        The model, to be given inputs that lie where its first layer does.
    """
    first = torch.device(devices[0])
    if first.type != "cuda":
        return model.to(first)
    free: dict[int | str, int] = {
        _number(name): torch.cuda.mem_get_info(_number(name))[0] - room_bytes for name in devices
    }
    return dispatch(model, free)


def dispatch(model: Any, free: dict[int | str, int]) -> Any:
    """Spread a model over GPUs, and leave in memory what they do not hold.

    Args:
        model: A model of transformers, in memory.
        free: Bytes that each GPU, by number, has for it.

    Raises:
        StepError: If the first has no room for the embeddings and a layer.
    """
    from accelerate import dispatch_model

    where, first = layers_by_device(model, free), next(iter(free))
    if set(where.values()) == {first}:
        return model.to(f"cuda:{first}")
    if next(iter(where.values())) == "cpu":  # the embeddings: inputs go where they lie
        raise StepError(
            f"a GPU with {free[first] / 1e9:.1f} GB to spare cannot hold the model's embeddings and a layer beside them. "
            "Take a larger one, or `device: cpu`."
        )
    return dispatch_model(model, where, main_device=f"cuda:{first}", offload_buffers=True)


def layers_by_device(model: Any, free: dict[int | str, int]) -> dict[str, int | str]:
    """Return where each module goes, by its name: a GPU's number, or ``cpu``. No layer is cut."""
    from accelerate import infer_auto_device_map

    whole = sorted(model._no_split_modules or ())  # noqa: SLF001 - transformers' word for it, which accelerate asks for
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    found: dict[str, int | str] = infer_auto_device_map(
        model, {**free, "cpu": 2 * size}, whole, offload_buffers=True
    )
    return found


def _number(device: str) -> int:
    return torch.device(device).index or 0
