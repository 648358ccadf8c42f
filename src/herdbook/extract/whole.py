"""The tensors without LoRA matrices: saved whole, left out, or equal; anything else is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.extract.record import Copy, Whole
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.progress import track

if TYPE_CHECKING:
    from herdbook.extract.pair import Pair

SHOWN = 8  # names in a message


def compare_whole(pair: Pair) -> Whole:
    """Compare these tensors of two models.

    Of a module that is saved, all tensors are, since PEFT replaces it; and its setting for biases is for all of the model.

    Raises:
        RecipeError: If something differs that has no place in an adapter.
        CheckpointError: If a tensor contains NaN or infinite values.
        SourceError: If a model was changed meanwhile.
    """
    names = pair.named("other", "bias", "saved", "left out")
    changes = {}
    with one_thread_a_matrix(), track("compare", len(names)) as advance:
        for name in names:
            change = pair.change(name)
            if change is not None:
                changes[name] = Copy(change=change if math.isfinite(change) else None)
            advance()
    pair.check_unchanged()
    if others := [name for name in pair.named("other") if name in changes]:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        raise RecipeError(
            f"{pair.tuned.place}: {', '.join(others[:SHOWN])}{more} {'differ' if len(others) > 1 else 'differs'} from the "
            "base's, and LoRA matrices are made for linear layers alone. --modules-to-save PATTERN saves such modules whole, "
            "--leave-out PATTERN leaves their changes out"
        )
    modules = {name.rpartition(".")[0] for name in pair.named("saved") if name in changes}
    saved = [name for name in pair.named("saved") if name.rpartition(".")[0] in modules]
    trains_biases = any(name in changes for name in pair.named("bias"))
    biases = [name for name in pair.names if name.endswith(".bias")] if trains_biases else []
    if clash := sorted(set(saved) & set(biases)):
        module = clash[0].rpartition(".")[0]
        raise RecipeError(
            f"--modules-to-save: biases of other modules differ, so that PEFT would store {clash[0]} twice; do not save {module}"
        )
    equal = Copy(change=0.0)
    return Whole(
        saved={name: changes.get(name, equal) for name in saved},
        biases={name: changes.get(name, equal) for name in biases},
        left_out={name: changes[name] for name in pair.named("left out") if name in changes},
    )
