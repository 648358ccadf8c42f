"""What proves the fields of a release's lock, and the files of tasks and snapshots beside it."""

from __future__ import annotations

from herdbook.layout import INPUTS, LOCK
from herdbook.recipe import Adapter
from herdbook.verify.fact import ASSERTED, FOLDERS, Fact
from herdbook.verify.facts.concerns import (
    draws,
    evaluates,
    fetches,
    has,
    names_hub_ids,
    reads_texts,
    resolves,
    succeeds,
    takes_files,
    tunes,
    weighs,
)

FACTS = (
    Fact(
        "which sources, tasks, texts and snapshots are pinned",
        LOCK,
        ("version", "sources.*.asked", "sources.*.uri", "adapters.*.asked", "calibration.*.asked", "others.*.asked", "imatrix.asked", "leaderboards.*.name",
         "leaderboards.*.uri"),
        "the recipe",
        "claims",
    ),
    Fact(
        "commits and the lock's facts on the sources",
        LOCK,
        (
            *(f"sources.*.{field}" for field in ("revision", "weights", "files", "members", "tensors", "config")),
            *(f"sources.*.{field}" for field in ("tokens", "generation", "license", "license_texts", "base_models", "chat_template", "datasets")),
            "token_differences",
            "vocabularies",
        ),
        f"the sources, on the Hub or in {FOLDERS}",
        "upstream",
    ),
    Fact(
        "which models of the Hub those in folders and packages are",
        LOCK,
        ("sources.*.hub_commit",),
        "the digests of their weights there, if the lock has a commit; else the author",
        "upstream",
        names_hub_ids,
    ),
    Fact(
        "what the predecessor was",
        LOCK,
        ("predecessor",),
        "its repository, on the Hub",
        "upstream",
        succeeds,
    ),
    Fact(
        "who may download the sources and other publishers' files",
        LOCK,
        ("sources.*.gated", "data_sets.*.gated", "others.*.gated", "imatrix.gated"),
        "the Hub, when it was locked",
        ASSERTED,
    ),
    Fact(
        "files of other publishers: quantized ones that are measured, importance matrices",
        LOCK,
        ("others", "imatrix.revision", "imatrix.file"),
        "their repositories, on the Hub",
        "upstream",
        takes_files,
    ),
    Fact(
        "commits and the lock's facts on the adapters",
        LOCK,
        tuple(
            f"adapters.*.{field}"
            for field in ("revision", "files", "config", "tensors", "license_texts", "tokens", "padding", "chat_template")
        ),
        f"the adapters, on the Hub or in {FOLDERS}",
        "upstream",
        has(Adapter),
    ),
    Fact(
        "tasks and snapshots of leaderboards",
        LOCK,
        ("tasks.*.name", "tasks.*.file", "tasks.*.definitions", "tasks.*.metadata", "suites",
         "leaderboards.*.sha256", "leaderboards.*.size_bytes"),
        f"the files in `{INPUTS}`; of tasks that lm-eval resolves, lm-eval (`upstream`)",
        "claims",
        reads_texts,
    ),
    Fact(
        "templates and picture of the card",
        LOCK,
        ("templates", "image"),
        "the files of the release",
        "claims",
        draws,
    ),
    Fact("lm-eval's version", LOCK, ("harness",), "the measurements", "claims", evaluates),
    Fact(
        "what lm-eval made of its own tasks and of files with code",
        LOCK,
        ("tasks.*.sources", "tasks.*.groups"),
        "lm-eval, where that version is installed",
        "upstream",
        resolves,
    ),
    Fact("what models were asked", LOCK, ("requests",), "the measurements", "claims", evaluates),
    Fact("data sets on the Hub", LOCK, ("data_sets",), "the data sets, on the Hub", "upstream", reads_texts),
    Fact(
        "texts that were measured or calibrated on, and importance matrices of other programs",
        LOCK,
        ("tasks.*.data", "calibration.*.data", "imatrix"),
        "the author's folder",
        ASSERTED,
        lambda recipe: reads_texts(recipe) or weighs(recipe),
    ),
    Fact(
        "the commits of data sets that snapshots were fetched from",
        LOCK,
        ("leaderboards.*.revision",),
        "the builder (the snapshot is in the release)",
        ASSERTED,
        fetches,
    ),
    Fact("tasks and snapshots of leaderboards", f"{INPUTS}/*", (), "the lock", "claims", reads_texts),
    Fact(
        "for which search, models and tasks the found numbers hold",
        LOCK,
        ("tuned.*.result.key",),
        "recipe and lock",
        "claims",
        tunes,
    ),
    Fact(
        "the trials of searches, and which of them won",
        LOCK,
        ("tuned.*.result.trials.*.point", "tuned.*.result.kept", "tuned.*.result.higher_is_better"),
        "the search, its tasks and its seed, and the scores of its trials",
        "recomputed",
        tunes,
    ),
    Fact(
        "scores and gains of searches, and the tasks that they were measured on",
        LOCK,
        ("tuned",),
        "the builder; `herdbook tune` measures them again",
        ASSERTED,
        tunes,
    ),
)  # fmt: skip
