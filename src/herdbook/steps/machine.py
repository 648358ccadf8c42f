"""The machine that steps run on: threads, devices, and the memory of a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook import needs
from herdbook.errors import StepError

if TYPE_CHECKING:
    from herdbook.plan import Evaluation, Part, Plan
    from herdbook.signing.signer import Signer

CPU = "cpu"


@dataclass(frozen=True)
class Machine:
    """The settings of a machine. They do not affect results of the CPU.

    Args:
        threads: How many threads a step may use.
        device: Where matrices are decomposed and models run, such as ``cpu`` or ``cuda``.
        gpu_bytes: Memory of one GPU in bytes; None if unknown.
        signer: The signer of the claims; None if they are not signed.
    """

    threads: int = 1
    device: str = CPU
    gpu_bytes: int | None = None
    signer: Signer | None = None

    def matrices_at_once(self, plan: Plan, part: Part) -> int:
        """Return how many matrices a LASER job reduces at the same time: one per thread, limited by the GPU's memory."""
        if self.device == CPU:
            return self.threads
        return needs.matrices_at_once(plan, part, self.threads, self.gpu_bytes)

    def device_of(self, key: str) -> str:
        """Return the device of a job; its key selects one of several GPUs, so that parallel jobs are spread over them.

        Raises:
            StepError: If this machine has no such device.
        """
        return devices(self.device, key)[0]

    def devices_of(self, plan: Plan, item: Evaluation) -> list[str]:
        """Return the devices of a measurement: as many GPUs as its model needs; its key selects the first.

        Raises:
            StepError: If this machine has no such device.
        """
        if item.runtime:  # llama.cpp's results on the CPU are the reference
            return ["cpu"]
        return devices(self.device, item.key, needs.gpus(plan, item, self.gpu_bytes))


def devices(name: str, key: str = "0", most: int = 1) -> list[str]:
    """Return the names of devices, after checking that they work.

    Args:
        name: The device to use: ``cpu``, ``cuda`` (any GPU), ``cuda:1``, ...
        key: Hexadecimal digits that select the first of several GPUs.
        most: The most GPUs to return.

    Raises:
        StepError: If this machine has no such device.
    """
    if name == CPU:
        return [name]
    import torch

    count = torch.cuda.device_count()
    names = [name]
    if name == "cuda" and count > 1:
        names = [f"cuda:{(int(key, 16) + index) % count}" for index in range(min(most, count))]
    for device in names:
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise StepError(
                f"device: this machine has no usable {device!r}: {str(error).splitlines()[0]}"
            ) from error
    return names
