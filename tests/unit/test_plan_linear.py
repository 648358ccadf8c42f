"""Planning is linear in the number of tensors: twice the layers or the models take no more than twice the instructions."""

import sys
from pathlib import Path

import pytest

from herdbook.plan import make
from support.buttercup import Widths
from support.planned import merge, mixture, recipe_of, sources, stack

FEW = 3


def widths(layers):
    return Widths(hidden=64, intermediate=64, heads=2, kv_heads=2, vocabulary=64, layers=layers)


def instructions(entry, lock):
    """Return how many instructions of Python planning executes, those of comprehensions included."""
    recipe, count = recipe_of(entry, len(lock.sources)), 0

    def trace(frame, event, _argument):
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        make(recipe, lock, Path("recipe.yaml"))
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("entry", [mixture, merge, stack], ids=["moe", "mean", "stack"])
@pytest.mark.parametrize("grows", ["layers", "models"])
def test_twice_the_tensors_take_twice_the_instructions(entry, grows):
    counts = []
    for factor in (1, 2, 4):
        layers, models = (FEW * factor, 2) if grows == "layers" else (FEW, 2 * factor)
        arguments = (models,) if entry in {mixture, merge} else (models, layers)
        lock = sources(widths(layers), models)
        make(recipe_of(entry(*arguments), models), lock, Path("recipe.yaml"))  # digests of code are kept
        counts.append(instructions(entry(*arguments), lock))
    added = counts[1] - counts[0], counts[2] - counts[1]
    assert added[1] <= 2.2 * added[0]
