"""What proves what is written about a model: the card, figures, notices, provenance, signatures."""

from __future__ import annotations

from herdbook.layout import (
    BOMS,
    CARD,
    CLAIMS,
    COMPARISONS,
    EVAL_RESULTS,
    FIGURES,
    LICENSE_TEXTS,
    LINEAGE,
    NOTICE,
    PUBLIC_KEY,
    SIGNATURE,
)
from herdbook.verify.fact import ASSERTED, BUILDER, Fact
from herdbook.verify.facts.concerns import compares, draws

FACTS = (
    Fact("the card", CARD, (), "records, results and snapshots", "recomputed"),
    Fact(
        "results of the Hub's benchmarks",
        f"{EVAL_RESULTS}/*",
        (),
        "measurements and the recipe",
        "recomputed",
        lambda recipe: bool(recipe.benchmarks),
    ),
    Fact(
        "comparisons of measurements, and whether these follow from their documents' results",
        COMPARISONS,
        (),
        "the released samples",
        "recomputed",
        lambda recipe: compares(recipe, samples=True),
    ),
    Fact(
        "what is compared without released samples, and verdicts",
        COMPARISONS,
        (
            "operation",
            "method",
            *(f"comparisons.*.{field}" for field in ("model", "other", "task", "metric", "corrected", "verdict")),
        ),
        "the recipe, and the stated probabilities",
        "recomputed",
        lambda recipe: compares(recipe, samples=False),
    ),
    Fact(
        "probabilities and intervals of comparisons without released samples",
        COMPARISONS,
        ("comparisons",),
        "the builder (`release_samples`)",
        ASSERTED,
        lambda recipe: compares(recipe, samples=False),
    ),
    Fact("the picture on the card", f"{FIGURES}/image.*", (), "the lock", "claims", draws),
    Fact("figures", f"{FIGURES}/*", (), "records, results and snapshots", "recomputed"),
    *(
        Fact("license texts and notices", name, (), "recipe and lock", "recomputed")
        for name in (NOTICE, f"{LICENSE_TEXTS}/*")
    ),
    Fact("lineage", LINEAGE, (), "recipe, lock and records", "claims"),
    *(Fact("bills of materials", name, (), "recipe, lock and records", "claims") for name in BOMS.values()),
    Fact("claims of the build", CLAIMS, (), "recipe, lock, records and files", "claims"),
    Fact(
        "the version that built it",
        CLAIMS,
        ("predicate.runDetails.builder.version",),
        BUILDER,
        ASSERTED,
    ),
    Fact(
        "versions of packages that decide no weights",
        CLAIMS,
        ("predicate.buildDefinition.internalParameters.operations.*.packages",),
        BUILDER,
        ASSERTED,
    ),
    Fact("signatures", SIGNATURE, (), "the public key, and the files", "claims"),
    Fact("signatures", PUBLIC_KEY, (), "the signatures", "claims"),
)  # fmt: skip
