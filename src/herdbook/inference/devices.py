"""Models on devices. Layers that do not fit stay in main memory and are moved to a device one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Sequence


def place_on_devices(model: Any, devices: Sequence[str], room_bytes: int) -> Any:
    """Put a model on devices, layer by layer, in their order.

    Args:
        model: A model of transformers, in main memory.
        devices: The devices. On a CPU the model is not changed.
        room_bytes: Bytes to leave free on each GPU.

    Returns:
        The model; its inputs must be on the device of its first layer.
    """
    first = torch.device(devices[0])
    if first.type != "cuda":
        return model.to(first)
    free: dict[int | str, int] = {
        _number(name): torch.cuda.mem_get_info(_number(name))[0] - room_bytes for name in devices
    }
    return dispatch(model, free)


def dispatch(model: Any, free: dict[int | str, int]) -> Any:
    """Distribute a model over GPUs, and leave in main memory what does not fit.

    Args:
        model: A model of transformers, in main memory.
        free: Bytes that are available on each GPU, by its number.

    Raises:
        StepError: If the first GPU has no room for the embeddings and a layer.
    """
    from accelerate import dispatch_model

    device_map, first = layers_by_device(model, free), next(iter(free))
    if set(device_map.values()) == {first}:
        return model.to(f"cuda:{first}")
    if next(iter(device_map.values())) == "cpu":  # the embeddings, whose device is that of the inputs
        raise StepError(
            f"the model's embeddings and one layer do not fit into the {free[first] / 1e9:.1f} GB that are free on the GPU. "
            "Use a larger GPU, or `device: cpu`."
        )
    return dispatch_model(model, device_map, main_device=f"cuda:{first}", offload_buffers=True)


def layers_by_device(model: Any, free: dict[int | str, int]) -> dict[str, int | str]:
    """Return the device of each module by its name: a GPU's number, or ``cpu``. No layer is split."""
    from accelerate import infer_auto_device_map

    unsplit = sorted(model._no_split_modules or ())  # noqa: SLF001 - transformers' attribute, which accelerate requires
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    device_map: dict[str, int | str] = infer_auto_device_map(
        model, {**free, "cpu": 2 * size}, unsplit, offload_buffers=True
    )
    return device_map


def _number(device: str) -> int:
    return torch.device(device).index or 0
