"""What proves the records of steps."""

from __future__ import annotations

from herdbook.recipe import Adapter, Laser
from herdbook.verify.fact import ASSERTED, BUILDER, RERUN, Fact
from herdbook.verify.facts.concerns import has, lines_up, stacks

RECORD = "provenance/records/*.json"
FACTS = (
    Fact(
        "steps",
        RECORD,
        ("key", "code", "operation", "parameters", "tensors.*.action", "tensors.*.dtype", "tensors.*.shape",
         "tensors.*.from", "tensors.*.slices", "tensors.router.gate", "tensors.merge"),
        "the plan of recipe and lock",
        "claims",
    ),
    Fact("files", RECORD, ("file.released", "tensors.released.sha256"), "the bytes of the files", "files"),
    Fact(
        "digests of what is not released, but was made from or into what is",
        RECORD,
        ("tensors.input.sha256",),
        RERUN,
        "recomputed",
    ),
    Fact(
        "digests of lined-up rows, if they are copied; those of means at `recomputed`",
        RECORD,
        ("tensors.rows.slices.*.sha256",),
        "the sources' bytes",
        "equality",
        lines_up,
    ),
    Fact(
        "digests of computed slices of stacked tensors",
        RECORD,
        ("tensors.alter.slices.*.sha256", "tensors.cast.slices.*.sha256", "tensors.compress.slices.*.sha256"),
        RERUN,
        "recomputed",
        stacks,
    ),
    Fact(
        "digests of what is not released",
        RECORD,
        ("file.unreleased", "tensors.between.sha256", "tensors.unused.sha256"),
        "the steps, rerun",
        "rebuild",
    ),
    Fact(
        "ranks, energies and spectra",
        RECORD,
        tuple(f"tensors.laser.{field}" for field in ("rule", "rank", "of", "energy", "change", "tolerance", "threshold", "clusters", "spectrum", "assumption_holds")),
        RERUN,
        "recomputed",
        has(Laser),
    ),
    Fact(
        "the records' entries on folded tensors",
        RECORD,
        ("tensors.adapter",),
        RERUN,
        "recomputed",
        has(Adapter),
    ),
    Fact(
        "devices, and digests of spectra",
        RECORD,
        ("device", "tensors.*.device", "tensors.laser.spectrum.sha256"),
        BUILDER,
        ASSERTED,
        has(Laser),
    ),
)  # fmt: skip
