"""The tensors of a model in a format for GPU servers, and those of the model that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.form import described
from herdbook.architectures.linear import is_encoded
from herdbook.quantization.schemes import PACKED, PACKED_BITS, SCALE, SHAPE, WEIGHT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.quantization.schemes import Scheme

    Form = dict[str, tuple[int, ...]]


def full_width(form: Mapping[str, tuple[int, ...]], scheme: Scheme) -> tuple[Form, list[str]]:
    """Return the shapes of the tensors of the model that was encoded, and what is wrong with those that its matrices are stored as.

    Args:
        form: The shape of each tensor of the encoded model by name.
        scheme: The scheme.
    """
    restored: Form = {}
    for name, shape in form.items():
        module, _, last = name.rpartition(".")
        if last == PACKED and scheme.is_packed and len(shape) == 2:
            restored[f"{module}.{WEIGHT}"] = (shape[0], shape[1] * PACKED_BITS // scheme.bits)
        elif last not in {PACKED, SCALE, SHAPE}:
            restored[name] = tuple(shape)
    expected: Form = {}
    for name, shape in restored.items():
        if not is_encoded(name, shape):
            expected[name] = shape
            continue
        module = name.rpartition(".")[0]
        expected |= {f"{module}.{part}": own for part, (_, own) in scheme.stored("BF16", shape).items()}
    missing = [name for name in expected if name not in form]
    unknown = [name for name in form if name not in expected]
    wrong = [
        (name, tuple(form[name]), shape)
        for name, shape in expected.items()
        if name in form and tuple(form[name]) != shape
    ]
    return restored, described(missing, unknown, wrong)
