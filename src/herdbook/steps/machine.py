"""What steps are told of the machine that they run on: threads, devices, and how large a GPU is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook import needs
from herdbook.errors import StepError

if TYPE_CHECKING:
    from herdbook.plan import Evaluation, Part, Plan
    from herdbook.steps.attest.step import Signer

CPU = "cpu"


@dataclass(frozen=True)
class Machine:
    """The settings of a machine. They change no byte of a CPU's result.

    Args:
        threads: How many threads a step may use.
        device: Where matrices are decomposed and models run, such as ``cpu`` or ``cuda``.
        gpu_bytes: Memory of one GPU in bytes; None if nobody says.
        signer: Who signs the claims, if somebody does.
    """

    threads: int = 1
    device: str = CPU
    gpu_bytes: int | None = None
    signer: Signer | None = None

    def matrices_at_once(self, plan: Plan, part: Part) -> int:
        """Return how many matrices a LASER job reduces at once: its threads, or fewer if the GPU holds no more."""
        if self.device == CPU:
            return self.threads
        return needs.matrices_at_once(plan, part, self.threads, self.gpu_bytes)

    def device_of(self, key: str) -> str:
        """Return the device of a job; of several GPUs one by its key, so that jobs side by side are spread over them.

        Raises:
            StepError: If there is no such device here.
        """
        return devices(self.device, key)[0]

    def devices_of(self, plan: Plan, item: Evaluation) -> list[str]:
        """Return the devices of a measurement: of several GPUs as many as its model needs, the first by its key.

        Raises:
            StepError: If there is no such device here.
        """
        return devices(self.device, item.key, needs.gpus(plan, item, self.gpu_bytes))


def devices(name: str, key: str = "0", wanted: int = 1) -> list[str]:
    """Return the names of devices that work here.

    Args:
        name: What is asked for: ``cpu``, ``cuda`` (any GPU), ``cuda:1``, ...
        key: Hexadecimal digits by which one of several GPUs is taken.
        wanted: How many GPUs are taken, at most.

    Raises:
        StepError: If there is no such device here.
    """
    if name == CPU:
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
