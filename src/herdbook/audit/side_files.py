"""Compare the files beside a merge's weights with the base's: the numbers in its config.json, and its tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.architectures.dense import rope_of
from herdbook.audit.configuration import MIXTURE
from herdbook.audit.level import LEVEL, UNPROVEN
from herdbook.errors import HerdbookError
from herdbook.layout import CONFIG
from herdbook.release.finding import Check
from herdbook.sources.select import TOKENIZER_FILES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.audit.configuration import Configuration
    from herdbook.audit.model import Model
    from herdbook.release.finding import Finding
    from herdbook.release.subject import Subject

SETTINGS = Check(LEVEL, "config")
FILES = Check(LEVEL, "tokenizer")
# Numbers that the base's layers are computed with; the same in every merge of them.
SAME = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
)
COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def check(configuration: Configuration, merge: Model, base: Model) -> Iterator[Finding]:
    """Compare configuration and tokenizer, and yield the findings."""
    try:
        wrong = list(_numbers(configuration, merge, base))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        yield SETTINGS.failed(CONFIG, f"contains a value of the wrong type: {error}")
    else:
        for key, expected, found in wrong:
            detail = f"{key} differs from the value that it follows from"
            yield SETTINGS.failed(CONFIG, detail, expected=str(expected), found=str(found), file=CONFIG)
        if not wrong:
            yield SETTINGS.passed(
                CONFIG,
                "the numbers that the layers are computed with are the same as the base's",
                file=CONFIG,
            )
    yield from _tokenizer(merge.subject, base.subject)


def _numbers(configuration: Configuration, merge: Model, base: Model) -> Iterator[tuple[str, object, object]]:
    """Yield key, expected and actual value of each number that differs."""
    ours, theirs = merge.config, base.config
    for key in SAME:
        if ours.get(key) is not None and theirs.get(key) is not None and ours[key] != theirs[key]:
            yield key, theirs[key], ours[key]
    for key, expected, found in zip(
        ("rope_theta", "rope_scaling"), rope_of(theirs), rope_of(ours), strict=True
    ):
        if expected != found:
            yield key, expected, found
    if configuration.method != MIXTURE:
        return
    for key in COUNTS:
        if key in ours and ours[key] != len(configuration.experts):
            yield key, len(configuration.experts), ours[key]
    per_token = ours.get("num_experts_per_tok")
    if per_token is not None and per_token != configuration.per_token:
        yield "num_experts_per_tok", configuration.per_token, per_token


def _tokenizer(merge: Subject, base: Subject) -> Iterator[Finding]:
    names = sorted(merge.files.keys() & set(TOKENIZER_FILES))
    differing, missing = [], []
    for name in names:
        if name not in base.files:
            missing.append(name)
            continue
        try:
            if not _same(merge, base, name):
                differing.append(name)
        except (HerdbookError, OSError) as error:
            yield FILES.error(name, error, file=name)
    equal = [name for name in names if name not in {*differing, *missing}]
    if equal:
        yield FILES.passed(f"{len(equal)} files", f"equal to the base's: {', '.join(equal)}")
    if differing or missing:
        problems = [
            f"{', '.join(names)} {verb}"
            for names, verb in ((differing, "differ from the base's"), (missing, "missing in the base"))
            if names
        ]
        detail = f"Tokenizer files: {'; '.join(problems)}. mergekit rewrites them, so a difference alone means little."
        yield UNPROVEN.unverified("tokenizer", detail)


def _same(merge: Subject, base: Subject, name: str) -> bool:
    ours, theirs = merge.files[name], base.files[name]
    if ours.size_bytes != theirs.size_bytes:
        return False
    if ours.git_blob and theirs.git_blob:
        return ours.git_blob == theirs.git_blob
    return merge.digest(name) == base.digest(name)
