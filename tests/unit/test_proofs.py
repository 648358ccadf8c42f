"""The table of what is proven where: complete for the lock, in the documentation, and what a level prints follows from it."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from herdbook import recipe as recipes
from herdbook.layout import LOCK, SIGNATURE
from herdbook.lock import Lock, LockedAdapter, LockedCalibration, LockedFile, LockedSource, LockedTask
from herdbook.plan.edition import Edition
from herdbook.release.finding import Finding, Options, Outcome
from herdbook.verify import levels, report
from herdbook.verify.fact import ASSERTED
from herdbook.verify.facts import FACTS, fact_about
from herdbook.verify.proofs import table, unproven

DOCS = Path(__file__).parents[2] / "docs/verify.md"
NAMES = list(levels.LEVELS)
PLAIN = "models: {base: {hub: a/b}}\nrelease: {model: base, name: Plain, license: mit}\n"
MORE = PLAIN.replace("}}", "}, cut: {laser: base, rank: 4, matrices: [mlp.up_proj]}}").replace(
    "model: base", "model: cut"
)
MORE += "quantize: {methods: [Q8_0]}\n"


def of(text, *files):
    return SimpleNamespace(
        edition=Edition.WHOLE,
        recipe=recipes.parse(text, "r.yaml"),
        subject=SimpleNamespace(files=dict.fromkeys(files)),
    )


def test_each_field_of_a_lock_is_in_the_table():
    nested = {
        "sources": LockedSource,
        "adapters": LockedAdapter,
        "tasks": LockedTask,
        "calibration": LockedCalibration,
    }
    nested["leaderboards"] = LockedFile
    expected = {(name,) for name in Lock.model_fields if name not in nested}
    expected |= {(name, "*", field) for name, model in nested.items() for field in model.model_fields}
    expected.remove(("leaderboards", "*", "git_blob"))  # of files on the Hub
    assert {at for at in expected if fact_about(LOCK, at) is None} == set()


def test_no_field_is_in_the_table_twice():
    listed = [(fact.file, field) for fact in FACTS for field in fact.fields or (fact.name,)]
    assert sorted(set(listed)) == sorted(listed)


@pytest.mark.parametrize(
    ("file", "at", "name"),
    [
        ("provenance/records/x.json", ("tensors", "laser", "spectrum", "snr"), "ranks, energies and spectra"),
        (
            "provenance/records/x.json",
            ("tensors", "laser", "spectrum", "sha256"),
            "devices, and digests of spectra",
        ),
        ("provenance/records/x.gguf.json", ("encoder",), "the version of the encoder of GGUF files"),
        ("provenance/records/x.json", ("more",), None),
        ("x/config.json", (), None),
        ("config.json", ("more",), "configuration and index"),
    ],
)
def test_the_more_specific_fact_counts(file, at, name):
    fact = fact_about(file, at)
    assert (fact.name if fact else None) == name


def test_levels_in_the_table_exist():
    assert {fact.level for fact in FACTS} <= {*NAMES, ASSERTED}


def test_the_documentation_has_the_table():
    assert table() in DOCS.read_text(encoding="utf-8")


def test_each_level_leaves_less_unproven_and_the_last_leaves_what_is_asserted():
    left = [set(unproven(of(MORE), name, NAMES, Options())) for name in NAMES]
    for before, after in itertools.pairwise(left):
        assert after <= before
    assert all("see level" not in each for each in left[-1])
    assert any("how GGUF files split text" in each for each in left[NAMES.index("recomputed")])
    assert not any("GGUF" in each for each in unproven(of(PLAIN), "claims", NAMES, Options()))


@pytest.mark.parametrize(
    ("files", "key", "expected"),
    [
        ((), None, "its author (nothing is signed)"),
        ((SIGNATURE,), None, "who signed it (pass --key or --identity)"),
        ((SIGNATURE,), Path("k.pem"), None),
    ],
)
def test_without_a_key_the_author_is_unproven(files, key, expected):
    left = unproven(of(PLAIN, *files), "rebuild", NAMES, Options(key=key))
    assert [each for each in left if "sign" in each] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("", []),
        ("evaluate: {tasks: [t], models: [base]}\n", []),
        ("evaluate: {tasks: [t], models: [base, cut]}\n", ["asserted"]),  # LASER is always compared
        ("evaluate: {tasks: [t], models: [base, cut], release_samples: true}\n", ["see level recomputed"]),
    ],
)
def test_comparisons_follow_from_samples_only_where_these_are_released(section, expected):
    left = unproven(of(MORE + section), "claims", NAMES, Options())
    found = [each for each in left if "comparisons of measurements" in each or "of comparisons" in each]
    assert [each.rpartition("(")[2].rstrip(")") for each in found] == expected


def test_what_is_unproven_is_counted_once_and_listed_on_demand():
    """By hand: of five statements, two are asserted, two are of one level, and one depends on an option."""
    level, _ = levels.LEVELS["claims"]
    finding = Finding(
        "claims", "unsigned", "x", Outcome.PASSED, "nothing is signed, so its author is not proven"
    )
    statements = (
        "one (asserted)",
        "a two (b) (see level upstream)",
        "three (see level upstream)",
        "four (asserted)",
        "who signed it (pass --key or --identity)",
    )
    result = levels.LevelResult(level, (finding,), 0, 0.0, statements)
    text = report.level_text(result)
    assert "proven:" not in text
    assert "ok         signature" not in text
    short = report.unproven_text(result)
    assert short == (
        "not proven: 5 statements of the release: 2 asserted by its builder, which no level proves; 2 left to the level upstream; "
        "who signed it (pass --key or --identity). --verbose lists them"
    )
    assert report.unproven_text(result, every=True).split("\n")[1:] == [f"  {each}" for each in statements]
    assert report.unproven_text(levels.LevelResult(level, (finding,), 0, 0.0)) == ""


@pytest.mark.parametrize("wrong", [False, True])
def test_who_signed_is_never_folded(wrong):
    """A count of signatures says nothing: only the reader can tell whether the key is the right one."""
    signed = Finding(
        "claims",
        "signature",
        "model.sig",
        Outcome.PASSED,
        "signs all 3 files, by the key ..., fingerprint abc",
    )
    other = Finding(
        "claims", "signature", "claims.jsonl line 1", Outcome.FAILED if wrong else Outcome.PASSED, "is"
    )
    lines = report.level_text(levels.LevelResult(levels.LEVELS["claims"][0], (signed, other), 0, 0.0)).split(
        "\n"
    )
    assert [each for each in lines if "fingerprint abc" in each] == [
        f"               model.sig: {signed.detail}"
    ]
    every = report.level_text(
        levels.LevelResult(levels.LEVELS["claims"][0], (signed, other), 0, 0.0), every=True
    )
    assert ("claims.jsonl line 1: is" in every) is True
