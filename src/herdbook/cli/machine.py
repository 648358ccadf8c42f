"""What commands are told of the machine: threads, the device, and how large a GPU is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from herdbook import needs
from herdbook.errors import StepError

if TYPE_CHECKING:
    import argparse

    from herdbook.plan import Evaluation, Part, Plan

DEVICE_VARIABLE = "HERDBOOK_DEVICE"
GPU_MEMORY_VARIABLE = "HERDBOOK_GPU_MEMORY"


def register(command: argparse.ArgumentParser) -> None:
    """Add the options of a step that can run on a GPU."""
    command.add_argument("--threads", type=int, default=1, help="default: %(default)s; changes no bit")
    command.add_argument(
        "--device",
        default=os.environ.get(DEVICE_VARIABLE, "cpu"),
        help=f"such as cuda; the CPU's result is the reference (default: ${DEVICE_VARIABLE}, or cpu)",
    )
    register_gpu_memory(command)


def register_gpu_memory(command: argparse.ArgumentParser) -> None:
    """Add the option that says how large a GPU is."""
    command.add_argument(
        "--gpu-memory",
        type=float,
        default=os.environ.get(GPU_MEMORY_VARIABLE) or None,
        metavar="GB",
        help=f"of one GPU, so that no more is put there at once (default: ${GPU_MEMORY_VARIABLE}, or unknown)",
    )


def gpu_bytes(options: argparse.Namespace) -> int | None:
    """Return the memory of one GPU in bytes; None if nobody says."""
    return None if options.gpu_memory is None else int(options.gpu_memory * 10**9)


def matrices_at_once(plan: Plan, part: Part, options: argparse.Namespace) -> int:
    """Return how many matrices a LASER job reduces at once: its threads, or fewer if the GPU holds no more."""
    threads: int = options.threads
    return (
        threads
        if options.device == "cpu"
        else needs.matrices_at_once(plan, part, threads, gpu_bytes(options))
    )


def device(name: str, key: str = "0") -> str:
    """Return a device's name; of several GPUs one by a key, so that jobs side by side are spread over them.

    Raises:
        StepError: If there is no such device here.
    """
    return _devices(name, key, 1)[0]


def devices(plan: Plan, item: Evaluation, options: argparse.Namespace) -> list[str]:
    """Return the devices of a measurement: of several GPUs as many as its model needs, the first by its key.

    Raises:
        StepError: If there is no such device here.
    """
    return _devices(options.device, item.key, needs.gpus(plan, item, gpu_bytes(options)))


def _devices(name: str, key: str, wanted: int) -> list[str]:
    if name == "cpu":
        return [name]
    import torch

    count = torch.cuda.device_count()
    names = [name]
    if name == "cuda" and count > 1:
        names = [f"cuda:{(int(key, 16) + place) % count}" for place in range(min(wanted, count))]
    for one in names:
        try:
            torch.empty(1, device=one)
        except (RuntimeError, AssertionError) as error:
            raise StepError(f"there is no device {one!r} here: {str(error).splitlines()[0]}") from error
    return names
