"""The facts of a release: what each field is derived from, and at which level it is proven; or that it is asserted.

This is the table of docs/verify.md, and the only place of these facts. ``tests/integration/test_mutations.py`` holds them against
what verification does.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from herdbook.layout import (
    BOMS,
    CARD,
    CLAIMS,
    COMPARISONS,
    CONFIG,
    EVAL_RESULTS,
    EVALUATIONS,
    FIGURES,
    GENERATION_CONFIG,
    IMATRIX,
    INPUTS,
    LICENSE_TEXTS,
    LINEAGE,
    LOCK,
    LOSSES,
    NOTICE,
    PUBLIC_KEY,
    RECIPE,
    ROUTING,
    SAMPLES_SUFFIX,
    SEARCHES,
    SIGNATURE,
    SUMS,
    WEIGHTS_INDEX,
)
from herdbook.quantization.schemes import SCHEMES
from herdbook.recipe import Adapter, Compress, Hub, HubFile, Laser, Merge, Moe, Pypi, is_file, search_of
from herdbook.recipe.evaluate import AskedSuite
from herdbook.recipe.tokenizer import Tokenizer
from herdbook.sources.select import PROCESSOR_FILES, TOKENIZER_FILES
from herdbook.verify.fact import ASSERTED, Fact
from herdbook.verify.gguf.table import (
    FROM_CONFIG,
    FROM_CONVERTER,
    FROM_RECIPE,
    FROM_TENSORS,
    FROM_TOKENIZER,
    ROWS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from herdbook.recipe import Recipe, Section

TEXTS = "the author's texts (`rebuild --inputs`)"
AGE = "that no newer release exists"


def _has(*kinds: type) -> Callable[[Recipe], bool]:
    return lambda recipe: any(isinstance(model, kinds) for model in recipe.models.values())


def _lines_up(recipe: Recipe) -> bool:
    joined = (
        model.moe if isinstance(model, Moe) else model.merge
        for model in recipe.models.values()
        if isinstance(model, Moe | Merge)
    )
    chosen = (one.tokenizer for one in joined)
    return any(isinstance(one, Tokenizer) and one.source is not None for one in chosen)


def _stacks(recipe: Recipe) -> bool:
    mixtures = [model for model in recipe.models.values() if isinstance(model, Moe)]
    models: Iterable[Section] = recipe.models.values()
    encoded = (SCHEMES[model.scheme] for model in models if isinstance(model, Compress))
    for_macs = any(scheme.library == "mlx" for scheme in encoded)
    return bool(mixtures and for_macs) or any(model.moe.layout == "fused" for model in mixtures)


def _spreads(recipe: Recipe) -> bool:
    lasered = (model for model in recipe.models.values() if isinstance(model, Laser))
    return any(rule.spreads is not None for model in lasered for rule in model.ranks)


def _tunes(recipe: Recipe) -> bool:
    return any(map(search_of, recipe.models.values()))


def _texts(recipe: Recipe) -> bool:
    return bool(recipe.evaluate or recipe.calibration)


def _evaluates(recipe: Recipe) -> bool:
    return recipe.evaluate is not None


def _reports(recipe: Recipe) -> bool:
    return bool(recipe.evaluate or recipe.routing or recipe.leaderboards)


def _resolves(recipe: Recipe) -> bool:
    """Return whether lm-eval resolves tasks: those that a recipe names, and those of suites, which may be its own."""
    tasks = recipe.evaluate.tasks if recipe.evaluate else ()
    return any(
        isinstance(task, AskedSuite) or not is_file(task if isinstance(task, str) else task.task)
        for task in tasks
    )


def _quantizes(recipe: Recipe) -> bool:
    return bool(recipe.gguf)


def _draws(recipe: Recipe) -> bool:
    return bool(recipe.card.templates or recipe.release.image)


def _names_hub_ids(recipe: Recipe) -> bool:
    return any(getattr(model, "hub_id", None) for model in recipe.models.values())


def _succeeds(recipe: Recipe) -> bool:
    return recipe.publish.replaces is not None


def _names_signer(recipe: Recipe) -> bool:
    return recipe.release.signer is not None


def _weighs(recipe: Recipe) -> bool:
    return bool(recipe.quantize and recipe.quantize.imatrix)


def _takes_files(recipe: Recipe) -> bool:
    section = recipe.quantize
    return bool(section and ((section.loss and section.loss.others) or isinstance(section.imatrix, HubFile)))


def _fetches(recipe: Recipe) -> bool:
    return any(board.fetch and board.fetch.dataset for board in recipe.leaderboards.values())


def _releases_samples(recipe: Recipe) -> bool:
    return bool(recipe.evaluate and recipe.evaluate.release_samples)


def _compares(recipe: Recipe, *, samples: bool) -> bool:
    """Return whether measurements are compared, and their samples released or not."""
    section = recipe.evaluate
    if section is None or section.release_samples is not samples:
        return False
    marked = any(mark.no_worse_than for mark in recipe.marks)
    cut = any(
        isinstance(model, Laser) and {name, model.laser} <= set(section.models)
        for name, model in recipe.models.items()
    )
    return bool(section.compare) or marked or cut


def _measures_losses(recipe: Recipe) -> bool:
    return bool(recipe.quantize and recipe.quantize.loss)


RECORD = "provenance/records/*.json"
GGUF = "*.gguf"
GGUF_RECORD = "provenance/records/*.gguf.json"
IMATRIX_RECORD = f"provenance/records/*{IMATRIX}.json"
MEASUREMENT = f"{EVALUATIONS}/*.json"
SEARCH = f"{SEARCHES}/*.json"
REPORT = f"{ROUTING}/*.json"
LOSS = f"{LOSSES}/*.json"
WEIGHTS = "*.safetensors"
RERUN = "the steps, rerun (a sample)"
BUILDER = "the builder"
# Of some facts, the more specific one counts: a field that is named, before a whole file.
FACTS = (
    Fact("files", SUMS, (), "the bytes of the files", "files"),
    # -- the recipe and its lock
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
        _reports,
    ),
    Fact("who signs", RECIPE, ("release.signer",), "the signatures", "claims", _names_signer),
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
        "the sources, on the Hub",
        "upstream",
    ),
    Fact(
        "which models of the Hub those in folders and packages are",
        LOCK,
        ("sources.*.hub_commit",),
        "the digests of their weights there, if the lock has a commit; else the author",
        "upstream",
        _names_hub_ids,
    ),
    Fact(
        "what the predecessor was",
        LOCK,
        ("predecessor",),
        "its repository, on the Hub",
        "upstream",
        _succeeds,
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
        _takes_files,
    ),
    Fact(
        "commits and the lock's facts on the adapters",
        LOCK,
        tuple(
            f"adapters.*.{field}"
            for field in ("revision", "files", "config", "tensors", "license_texts", "tokens", "padding", "chat_template")
        ),
        "the adapters, on the Hub",
        "upstream",
        _has(Adapter),
    ),
    Fact(
        "tasks and snapshots of leaderboards",
        LOCK,
        ("tasks.*.name", "tasks.*.file", "tasks.*.definitions", "tasks.*.metadata", "suites",
         "leaderboards.*.sha256", "leaderboards.*.size_bytes"),
        f"the files in `{INPUTS}`; of tasks that lm-eval resolves, lm-eval (`upstream`)",
        "claims",
        _texts,
    ),
    Fact(
        "templates and picture of the card",
        LOCK,
        ("templates", "image"),
        "the files of the release",
        "claims",
        _draws,
    ),
    Fact("lm-eval's version", LOCK, ("harness",), "the measurements", "claims", _evaluates),
    Fact(
        "what lm-eval made of its own tasks and of files with code",
        LOCK,
        ("tasks.*.sources", "tasks.*.groups"),
        "lm-eval, where that version is installed",
        "upstream",
        _resolves,
    ),
    Fact("what models were asked", LOCK, ("requests",), "the measurements", "claims", _evaluates),
    Fact("data sets on the Hub", LOCK, ("data_sets",), "the data sets, on the Hub", "upstream", _texts),
    Fact(
        "texts that were measured or calibrated on, and importance matrices of other programs",
        LOCK,
        ("tasks.*.data", "calibration.*.data", "imatrix"),
        "the author's folder",
        ASSERTED,
        lambda recipe: _texts(recipe) or _weighs(recipe),
    ),
    Fact(
        "the commits of data sets that snapshots were fetched from",
        LOCK,
        ("leaderboards.*.revision",),
        "the builder (the snapshot is in the release)",
        ASSERTED,
        _fetches,
    ),
    Fact("tasks and snapshots of leaderboards", f"{INPUTS}/*", (), "the lock", "claims", _texts),
    Fact(
        "for which search, models and tasks the found numbers hold",
        LOCK,
        ("tuned.*.result.key",),
        "recipe and lock",
        "claims",
        _tunes,
    ),
    Fact(
        "the trials of searches, and which of them won",
        LOCK,
        ("tuned.*.result.trials.*.point", "tuned.*.result.kept", "tuned.*.result.higher_is_better"),
        "the search, its tasks and its seed, and the scores of its trials",
        "recomputed",
        _tunes,
    ),
    Fact(
        "scores and gains of searches, and the tasks that they were measured on",
        LOCK,
        ("tuned",),
        "the builder; `herdbook tune` measures them again",
        ASSERTED,
        _tunes,
    ),
    # -- the model
    Fact("configuration and index", CONFIG, (), "recipe and lock", "claims"),
    Fact("configuration and index", WEIGHTS_INDEX, (), "recipe and lock", "claims"),
    *(
        Fact("tokenizer, chat template, generation config", name, (), "the lock", "claims")
        for name in (*TOKENIZER_FILES, *PROCESSOR_FILES, GENERATION_CONFIG)
    ),
    Fact("headers of weights", WEIGHTS, ("header",), "the plan of recipe and lock", "claims"),
    Fact("copied tensors", WEIGHTS, ("copy", "fetch", "stack", "rows"), "the sources' bytes", "equality"),
    Fact("zeros", WEIGHTS, ("zeros",), "the plan of recipe and lock", "claims", _has(Moe)),
    Fact(
        "computed tensors",
        WEIGHTS,
        ("laser", "adapter", "merge", "alter", "cast", "router", "compress"),
        f"{RERUN}; all routers",
        "recomputed",
        lambda recipe: not all(isinstance(model, Hub) for model in recipe.models.values()),
    ),
    # -- the records
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
        _lines_up,
    ),
    Fact(
        "digests of computed slices of stacked tensors",
        RECORD,
        ("tensors.alter.slices.*.sha256", "tensors.cast.slices.*.sha256", "tensors.compress.slices.*.sha256"),
        RERUN,
        "recomputed",
        _stacks,
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
        _has(Laser),
    ),
    Fact(
        "the records' entries on folded tensors",
        RECORD,
        ("tensors.adapter",),
        RERUN,
        "recomputed",
        _has(Adapter),
    ),
    Fact(
        "devices, and digests of spectra",
        RECORD,
        ("device", "tensors.*.device", "tensors.laser.spectrum.sha256"),
        BUILDER,
        ASSERTED,
        _has(Laser),
    ),
    # -- the results
    Fact(
        "what was measured, and how",
        MEASUREMENT,
        ("operation", "key", "name", "settings", "code", "weights", "tasks.*.title", "groups"),
        "recipe, lock and records",
        "claims",
        _evaluates,
    ),
    Fact("measurements", MEASUREMENT, ("tasks", "samples", "device"), TEXTS, ASSERTED, _evaluates),
    Fact(
        "measured values, where the results of each document are released",
        MEASUREMENT,
        ("tasks.*.documents", "tasks.*.metrics.*.value", "samples.sha256"),
        "the released samples",
        "recomputed",
        _releases_samples,
    ),
    Fact(
        "results of each document",
        f"{EVALUATIONS}/*{SAMPLES_SUFFIX}",
        (),
        "the digests in the measurements",
        "recomputed",
        _releases_samples,
    ),
    Fact("what was searched, and how", SEARCH, ("operation", "key", "code", "parameters"), "recipe and lock", "claims", _texts),
    Fact(
        "what searches chose",
        SEARCH,
        ("chosen", "end", "difference", "trials.*.difference", "trials.*.against_start", "trials.*.kept",
         "trials.*.tensor", "trials.*.rule", "ranking.*.tensor"),
        "the recipe, and the losses of their trials",
        "recomputed",
        _texts,
    ),
    Fact(
        "budgets of rank that were spread over matrices, unless by a text",
        SEARCH,
        ("budgets",),
        "the recipe, and the spectra, recomputed (a sample)",
        "recomputed",
        _spreads,
    ),
    Fact(
        "the losses of searches",
        SEARCH,
        ("start", "trials", "confirmation", "ranking", "device"),
        TEXTS,
        ASSERTED,
        _texts,
    ),
    Fact(
        "of what the report on routers is",
        REPORT,
        ("operation", "key", "code", "model", "experts", "experts_per_token", "texts.*.windows", "texts.*.tokens"),
        "recipe and lock",
        "claims",
        _has(Moe),
    ),
    Fact("rows of routers", REPORT, ("rows", "verdict"), "the released routers", "recomputed", _has(Moe)),
    Fact("what the routers chose", REPORT, ("texts", "layers", "prompts", "device"), TEXTS, ASSERTED, _has(Moe)),
    Fact(
        "records of GGUF files",
        GGUF_RECORD,
        ("operation", "key", "method", "name", "chosen", "replaced", "imatrix", "note", "file", "parameters", "bits_per_weight", "types"),
        "recipe, lock and files",
        "claims",
        _quantizes,
    ),
    Fact("records of GGUF files", GGUF_RECORD, (), "the released weights", "recomputed", _quantizes),
    Fact(
        "of what importance matrices are, and how they were made",
        IMATRIX_RECORD,
        ("operation", "key", "model", "name", "parameters", "code", "file", "chunks", "tensors"),
        "recipe, lock and files",
        "claims",
        _weighs,
    ),
    Fact("importance matrices, and how many tokens reached each expert", IMATRIX_RECORD, (), TEXTS, ASSERTED, _weighs),
    Fact("the version of the encoder of GGUF files", GGUF_RECORD, ("encoder",), BUILDER, ASSERTED, _quantizes),
    Fact(
        "of which files the losses are, and against what",
        LOSS,
        ("operation", "key", "code", "model", "reference", "file", "bits_per_weight", "types", "texts.*.windows",
         "texts.*.tokens", "total.tokens", "control.tokens"),
        "recipe, lock and files",
        "claims",
        _measures_losses,
    ),
    Fact("losses by quantization", LOSS, ("texts", "total", "control"), TEXTS, ASSERTED, _measures_losses),
    # -- what is written about it
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
        lambda recipe: _compares(recipe, samples=True),
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
        lambda recipe: _compares(recipe, samples=False),
    ),
    Fact(
        "probabilities and intervals of comparisons without released samples",
        COMPARISONS,
        ("comparisons",),
        "the builder (`release_samples`)",
        ASSERTED,
        lambda recipe: _compares(recipe, samples=False),
    ),
    Fact("the picture on the card", f"{FIGURES}/image.*", (), "the lock", "claims", _draws),
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
    # -- GGUF files
    *(
        Fact(name, GGUF, tuple(row.key for row in ROWS if row.origin == origin), origin, level, _quantizes)
        for name, origin, level in (
            ("settings in the headers of GGUF files", FROM_CONFIG, "claims"),
            ("tokens, special tokens and chat templates in the headers of GGUF files", FROM_TOKENIZER, "claims"),
            ("names, licenses and methods in the headers of GGUF files", FROM_RECIPE, "claims"),
            ("sizes in the headers of GGUF files", FROM_TENSORS, "claims"),
            ("how GGUF files split text, unless their tokenizer is of SentencePiece's kind", FROM_CONVERTER, "rebuild"),
        )
    ),
    Fact("names, shapes, types and order of the tensors in GGUF files", GGUF, (), "the released tensors, and the recipe's methods", "claims", _quantizes),
    Fact("importance matrices, and how many tokens reached each expert", f"*{IMATRIX}", (), TEXTS, ASSERTED, _weighs),
    Fact("bytes of the tensors in GGUF files", GGUF, ("tensors",), "the released weights", "recomputed", _quantizes),
    Fact("the order of the entries in GGUF files, and the bytes between tensors", GGUF, (), FROM_CONVERTER, "rebuild", _quantizes),
    Fact(
        "the tokenizer and chat template, if a package has the source as GGUF",
        "the release",
        (),
        "the package's GGUF, read again",
        "rebuild",
        _has(Pypi),
    ),
    Fact(AGE, "the release", (), "a reference from elsewhere: `--expect`, `--not-before`", ASSERTED),
)  # fmt: skip


def fact_about(file: str, at: Sequence[str], facts: Sequence[Fact] = FACTS) -> Fact | None:
    """Return what proves a field of a release; None if nothing is known of it, which is a fault of the table.

    Args:
        file: The name of the file in the release.
        at: The names on the way to the field. In records, a tensor is called by its action (see ``Fact``).
        facts: The facts that count: all, or those of a release (see ``proofs.facts_of``).
    """
    found: list[tuple[int, int, Fact]] = []
    for fact in facts:
        if fnmatchcase(file, fact.file) and ("/" in fact.file or "/" not in file):
            found += [(len(fact.file), length, fact) for length in fact.fitting(at)]
    return max(found, key=lambda each: each[:2])[2] if found else None
