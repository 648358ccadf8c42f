"""A change of a module changes the keys of what is made with it, and of what is made of that; a comment changes none."""

import re
import sys

import pytest

from herdbook import plan as plans
from herdbook.plan import code, parsed
from herdbook.plan.jobs import all_jobs
from support import tiny
from support.sampled import sampled

# What is known of one module, and what is known of several.
OF_A_MODULE = ("_parsed", "imports")
OF_SEVERAL = ("_closure",)
PROMPTS = [{"model": "base", "prompts": ["w1"]}, {"model": "other", "prompts": ["w9"]}]
DRAWN = [{"model": "base"}, {"model": "other"}]
LASER = {"laser": "base", "matrices": ["mlp.down_proj"]}
MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "tuned": {"adapter": "adapter", "on": "base"},
    "cut": {**LASER, "rank": {"fraction": 0.5}},
    "whitened": {**LASER, "rank": {"svd-llm": {"fraction": 0.5}}, "calibration": "c"},
    "searched": {**LASER, "rank": {"fraction": 0.9}, "calibration": "c", "guard": {}},
    "dare": {
        "merge": {"method": "dare_ties", "base": "base", "models": [{"model": "other", "density": 0.5}]}
    },
    "stacked": {
        "merge": {"method": "passthrough", "slices": [{"model": "base", "layers": "0-1", "scale": 0.5}]}
    },
    "theirs": {"merge": {"method": "karcher", "models": [{"model": "base"}, {"model": "other"}]}},
    "della": {
        "merge": {
            "method": "della",
            "base": "base",
            "models": [{"model": "other", "parameters": {"weight": 1, "density": 0.5}}],
        }
    },
    "hidden": {"moe": {"base": "base", "gate": "hidden", "experts": PROMPTS}},
    "ridge": {"moe": {"base": "base", "gate": "ridge", "experts": PROMPTS}},
    "bits": {"moe": {"base": "base", "gate": "hidden", "semantics": "mergekit-0.1.5", "experts": PROMPTS}},
    "drawn": {"moe": {"base": "base", "gate": "random", "experts": DRAWN}},
    "noisy": {
        "moe": {"base": "base", "gate": "random", "experts": [{**DRAWN[0], "noise_scale": 0.1}, DRAWN[1]]}
    },
    "wide": {"moe": {"base": "base", "gate": "random", "dtype": "float32", "experts": DRAWN}},
}
WIDE = {"wide.base-1", "wide.expert1-1", "wide.expert2-1"}
DOCUMENTS = {"card", "release", "attest", "verify"}
LASERED = {"cut.1", "whitened.1", "searched.1"}
MERGED = {"dare.1", "stacked.1"}
AS_MERGEKIT = {"theirs.1", "della.1"}
FITTED = {"hidden.routers", "ridge.routers", "bits.routers"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed")
    for seed, name in enumerate(("base", "other")):
        tiny.write_model(folder / name, seed=seed)
    tiny.write_adapter(folder / "adapter", folder / "base")
    (folder / "c.jsonl").write_text('{"text": "w1"}\n', encoding="utf-8")
    (folder / "measured.jsonl").write_text('{"text": "w2"}\n', encoding="utf-8")
    (folder / "task.yaml").write_text(
        '{"task": "t", "dataset_kwargs": {"data_files": "measured.jsonl"}}', encoding="utf-8"
    )
    path = tiny.write_recipe(
        folder / "r.yaml",
        MODELS,
        release={"model": "wide"},
        calibration={"c": {"data": ["c.jsonl"], "split": "validation"}},
        evaluate={"tasks": ["task.yaml"], "models": [name for name in MODELS if name != "wide"]},
        quantize={"methods": ["Q8_0"], "evaluate": True},
    )
    tiny.lock(path)
    return path


@pytest.fixture
def changed(recipe, monkeypatch):
    """A function that changes the text of a module, and returns which jobs have other keys, apart from measurements."""

    def forget():
        for name in OF_SEVERAL:
            getattr(code, name).cache_clear()

    def keys():
        forget()
        return {
            (job.rule, job.label): job.key for job in all_jobs(plans.load(recipe, recipe.parent / "results"))
        }

    before = keys()
    source = parsed._source

    def change(module, edit):
        text = source(module).decode()
        edited = edit(text)
        assert edited != text
        monkeypatch.setattr(
            parsed, "_source", lambda name: edited.encode() if name == module else source(name)
        )
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # nor is what was found in the edited text kept
        for name in OF_A_MODULE:  # of the others the answer is known
            known = getattr(parsed, name)
            anew = known.__wrapped__
            monkeypatch.setattr(
                parsed,
                name,
                lambda asked, known=known, anew=anew: (anew if asked == module else known)(asked),
            )
        after = keys()
        monkeypatch.undo()
        assert after.keys() == before.keys()
        return {job for job in before if after[job] != before[job]}

    yield change
    monkeypatch.undo()
    forget()


def called(jobs):
    """Return jobs by their label alone, or by the rule where they have none; measurements and folders left out."""
    return {label or rule for rule, label in jobs if rule not in {"assemble", "files", "evaluate"}}


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    sampled([
        # what used to go unnoticed: the formula of a scaled passthrough, and what DARE drops and noise is drawn by
        ("steps.merge.methods", 'inputs[0].float() * values["scale"]', 'inputs[0].float() * (values["scale"] * 1.0001)', MERGED),
        ("weights.tensors", "[:15]", "[:14]", {*LASERED, "searched", *MERGED, *AS_MERGEKIT, "tuned.1", *FITTED, "noisy.expert1-1", *WIDE}),
        ("steps.merge.sphere", "cos(norm)", "sin(norm)", AS_MERGEKIT),
        ("steps.laser.whiten", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {"whitened.1", "searched", "searched.1"}),
        ("steps.laser.guard", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {"searched", "searched.1"}),
        ("steps.laser.rank", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {*LASERED, "searched", *DOCUMENTS}),
        ("inference.forward", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {*FITTED, "whitened.1", "searched", "searched.1", "wide"}),
        ("steps.moe.ridge", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {"ridge.routers"}),
        ("steps.moe.mergekit_gates", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {"bits.routers"}),
        # noisy.routers are drawn.routers under another name
        ("steps.moe.random_gate", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {"drawn.routers", "wide.routers"}),
        ("steps.moe.perturb", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {"noisy.expert1-1"}),
        ("steps.moe.cast", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {"noisy.expert1-1", *WIDE}),
        ("steps.adapter.fold", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {"tuned.1"}),
        ("steps.card.counts", "\n\ndef ", "\n\nx = 1\n\n\ndef ", DOCUMENTS),
        ("provenance.bom", "\n\ndef ", "\n\nx = 1\n\n\ndef ", DOCUMENTS - {"card"}),
        ("verify.pedigree", "\n\ndef ", "\n\nx = 1\n\n\ndef ", {"verify"}),
        ("errors", "\n\nclass ", "\n\nx = 1\n\n\nclass ", set()),
        ("plan.merge", "\n\ndef ", "\n\nx = 1\n\n\ndef ", DOCUMENTS),
        ("plan.model", "\n\n@dataclass", "\n\nx = 1\n\n\n@dataclass", DOCUMENTS),
        # it computes what a rule of rules keeps
        ("recipe.spectral", "\n\n@dataclass", "\n\nx = 1\n\n\n@dataclass", {*LASERED, "searched", *DOCUMENTS}),
        ("view.words", "\n\ndef ", "\n\nx = 1\n\n\ndef ", set()),
    ], every=3),
)  # fmt: skip
def test_a_change_reaches_what_is_made_with_it(changed, module, old, new, expected):
    found = called(changed(f"herdbook.{module}", lambda text: text.replace(old, new, 1)))
    # All documents follow from the models; the report and the GGUF file from the released one.
    if expected & WIDE or "wide.routers" in expected:
        expected = {*expected, "wide", "Tiny", "Tiny.Q8_0"}
    if expected - DOCUMENTS:
        expected = {*expected, *DOCUMENTS}
    assert found == expected


@pytest.mark.parametrize(
    "module", ["steps.merge.methods", "weights.tensors", "steps.laser.step", "steps.card.step"]
)
def test_how_a_module_is_written_reaches_nothing(changed, module):
    def rewritten(text):
        text = re.sub(r'^( *)"""(?=[A-Z])', r'\1"""Other words. ', text, flags=re.MULTILINE)
        return "# A comment.\n" + text.replace("\n\n\ndef ", "\n\n\n\n# Another.\ndef ")

    assert changed(f"herdbook.{module}", rewritten) == set()
