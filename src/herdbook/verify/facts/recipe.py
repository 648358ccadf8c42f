"""What proves the fields of a release's recipe."""

from __future__ import annotations

from herdbook.layout import RECIPE
from herdbook.verify.fact import ASSERTED, RERUN, Fact
from herdbook.verify.facts.concerns import names_signer, reports

FACTS = (
    Fact("how the models are made", RECIPE, ("models", "shard_size"), RERUN, "recomputed"),
    Fact(
        "what the author states about the release, and how it was searched and measured",
        RECIPE,
        ("models.*.select", "models.*.guard", "models.*.search.metric", "release", "claims", "publish", "card", "evaluate", "leaderboards", "marks", "benchmarks"),
        "the author",
        ASSERTED,
    ),
    Fact(
        "what was requested",
        RECIPE,
        ("models.*.calibration", "release.model", "release.image.file", "publish.replaces", "card.sections", "card.templates", "calibration"),
        "the lock and the files of the release",
        "recomputed",
    ),
    Fact(
        "which quantized files and formats were requested",
        RECIPE,
        ("quantize",),
        "the lock and the files of the release",
        "recomputed",
        lambda recipe: bool(recipe.gguf or recipe.schemes),
    ),
    Fact(
        "which measurements, reports and ranks were requested",
        RECIPE,
        ("evaluate.tasks", "evaluate.models", "evaluate.compare", "evaluate.release_samples", "routing",
         "leaderboards.*.snapshot", "leaderboards.*.model_column", "leaderboards.*.score_column", "leaderboards.*.task",
         "leaderboards.*.metric"),
        "the lock and the files of the release",
        "recomputed",
        reports,
    ),
    Fact("who signs", RECIPE, ("release.signer",), "the signatures", "claims", names_signer),
)  # fmt: skip
