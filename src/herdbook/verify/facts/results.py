"""What proves measurements and what else was found about the model, and the records of files that were made from it."""

from __future__ import annotations

from herdbook.layout import EVALUATIONS, IMATRIX, LOSSES, ROUTING, SAMPLES_SUFFIX, SEARCHES
from herdbook.recipe import Moe
from herdbook.verify.fact import ASSERTED, BUILDER, TEXTS, Fact
from herdbook.verify.facts.concerns import (
    evaluates,
    has,
    measures_losses,
    quantizes,
    reads_texts,
    releases_samples,
    spreads,
    weighs,
)

GGUF_RECORD = "provenance/records/*.gguf.json"
IMATRIX_RECORD = f"provenance/records/*{IMATRIX}.json"
MEASUREMENT = f"{EVALUATIONS}/*.json"
SEARCH = f"{SEARCHES}/*.json"
REPORT = f"{ROUTING}/*.json"
LOSS = f"{LOSSES}/*.json"
FACTS = (
    Fact(
        "what was measured, and how",
        MEASUREMENT,
        ("operation", "key", "name", "settings", "code", "weights", "tasks.*.title", "groups"),
        "recipe, lock and records",
        "claims",
        evaluates,
    ),
    Fact("measurements", MEASUREMENT, ("tasks", "samples", "device"), TEXTS, ASSERTED, evaluates),
    Fact(
        "measured values, where the results of each document are released",
        MEASUREMENT,
        ("tasks.*.documents", "tasks.*.metrics.*.value", "samples.sha256"),
        "the released samples",
        "recomputed",
        releases_samples,
    ),
    Fact(
        "results of each document",
        f"{EVALUATIONS}/*{SAMPLES_SUFFIX}",
        (),
        "the digests in the measurements",
        "recomputed",
        releases_samples,
    ),
    Fact("what was searched, and how", SEARCH, ("operation", "key", "code", "parameters"), "recipe and lock", "claims", reads_texts),
    Fact(
        "what searches chose",
        SEARCH,
        ("chosen", "end", "difference", "trials.*.difference", "trials.*.against_start", "trials.*.kept",
         "trials.*.tensor", "trials.*.rule", "ranking.*.tensor"),
        "the recipe, and the losses of their trials",
        "recomputed",
        reads_texts,
    ),
    Fact(
        "budgets of rank that were spread over matrices, unless by a text",
        SEARCH,
        ("budgets",),
        "the recipe, and the spectra, recomputed (a sample)",
        "recomputed",
        spreads,
    ),
    Fact(
        "the losses of searches",
        SEARCH,
        ("start", "trials", "confirmation", "ranking", "device"),
        TEXTS,
        ASSERTED,
        reads_texts,
    ),
    Fact(
        "of what the report on routers is",
        REPORT,
        ("operation", "key", "code", "model", "experts", "experts_per_token", "texts.*.windows", "texts.*.tokens"),
        "recipe and lock",
        "claims",
        has(Moe),
    ),
    Fact("rows of routers", REPORT, ("rows", "verdict"), "the released routers", "recomputed", has(Moe)),
    Fact("what the routers chose", REPORT, ("texts", "layers", "prompts", "device"), TEXTS, ASSERTED, has(Moe)),
    Fact(
        "records of GGUF files",
        GGUF_RECORD,
        ("operation", "key", "method", "name", "chosen", "replaced", "imatrix", "note", "file", "parameters", "bits_per_weight", "types"),
        "recipe, lock and files",
        "claims",
        quantizes,
    ),
    Fact("records of GGUF files", GGUF_RECORD, (), "the released weights", "recomputed", quantizes),
    Fact(
        "of what importance matrices are, and how they were made",
        IMATRIX_RECORD,
        ("operation", "key", "model", "name", "parameters", "code", "file", "chunks", "tensors"),
        "recipe, lock and files",
        "claims",
        weighs,
    ),
    Fact("importance matrices, and how many tokens reached each expert", IMATRIX_RECORD, (), TEXTS, ASSERTED, weighs),
    Fact("the version of the encoder of GGUF files", GGUF_RECORD, ("encoder",), BUILDER, ASSERTED, quantizes),
    Fact(
        "of which files the losses are, and against what",
        LOSS,
        ("operation", "key", "code", "model", "reference", "file", "bits_per_weight", "types", "texts.*.windows",
         "texts.*.tokens", "total.tokens", "control.tokens"),
        "recipe, lock and files",
        "claims",
        measures_losses,
    ),
    Fact("losses by quantization", LOSS, ("texts", "total", "control"), TEXTS, ASSERTED, measures_losses),
)  # fmt: skip
