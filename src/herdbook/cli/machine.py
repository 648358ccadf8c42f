"""What commands are told of the machine: threads, the device, and how large a GPU is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.settings import DEVICE, GPU_MEMORY
from herdbook.steps.machine import Machine

if TYPE_CHECKING:
    import argparse


def register(command: argparse.ArgumentParser) -> None:
    """Add the options of a step that can run on a GPU."""
    command.add_argument("--threads", type=int, default=1, help="default: %(default)s; changes no bit")
    command.add_argument(
        "--device",
        default=DEVICE.value,
        help=f"such as cuda; the CPU's result is the reference (default: ${DEVICE.variable}, or {DEVICE.default})",
    )
    register_gpu_memory(command)


def register_gpu_memory(command: argparse.ArgumentParser) -> None:
    """Add the option that says how large a GPU is."""
    command.add_argument(
        "--gpu-memory",
        type=float,
        default=GPU_MEMORY.value or None,
        metavar="GB",
        help=f"of one GPU, so that no more is put there at once (default: ${GPU_MEMORY.variable}, or unknown)",
    )


def gpu_bytes(options: argparse.Namespace) -> int | None:
    """Return the memory of one GPU in bytes; None if nobody says."""
    return None if options.gpu_memory is None else int(options.gpu_memory * 10**9)


def settings(options: argparse.Namespace) -> Machine:
    """Return what a step is told of the machine."""
    if not hasattr(options, "device"):
        return Machine(getattr(options, "threads", 1))
    return Machine(options.threads, options.device, gpu_bytes(options))
