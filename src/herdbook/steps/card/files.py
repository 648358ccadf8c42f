"""The files that a card lists: the released weights, and the quantized files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.errors import StepError
from herdbook.steps.card.results import read_json
from herdbook.weights.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from herdbook.plan import Plan
    from herdbook.steps.card.results import Measurement


@dataclass(frozen=True)
class FileFacts:
    """A weights file: its name, size in bytes, and digest."""

    name: str
    size_bytes: int
    sha256: str


def weights_of(plan: Plan) -> tuple[FileFacts, ...]:
    """Return the released weights files."""
    files = []
    for name, part in zip(plan.released.shard_names, plan.released.parts, strict=True):
        file = read_record(plan.layout.record(part))["file"]
        files.append(FileFacts(name, int(file["size_bytes"]), str(file["sha256"])))
    return tuple(files)


def quantized_of(plan: Plan, method: str) -> tuple[FileFacts, float]:
    """Return a quantized file and its bits per weight. Raises StepError if its record is damaged or of another plan."""
    item = next(item for item in plan.quantized if item.method == method)
    path = plan.layout.quantized_record(item)
    record = read_json(path, f"record of {item.file}")
    try:
        if record.get("method", method) != method or record.get("key", item.key) != item.key:
            raise StepError(f"card: {path}: belongs to another plan. Delete it and rerun `quantize`.")
        file = FileFacts(item.file, int(record["file"]["size_bytes"]), str(record["file"]["sha256"]))
        return file, float(record["bits_per_weight"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StepError(
            f"card: {path}: the record of {item.file} is damaged ({error!r}). Delete it and rerun `quantize`."
        ) from error


def check_weights(plan: Plan, measurements: Iterable[Measurement], digests: dict[str, str]) -> None:
    """Check that the weights measured under the release's name are the released ones. Raises StepError."""
    for measurement in measurements:
        if measurement.node != plan.released.name:
            continue
        wrong = sorted(name for name, sha256 in measurement.weights.items() if digests.get(name) != sha256)
        if wrong:
            raise StepError(
                f"card: {measurement.name}: the measured weights differ from the released ones ({wrong[0]}). "
                "Delete the measurement and rerun `evaluate`."
            )
