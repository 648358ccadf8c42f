"""Single files of other publishers on the Hub: pinned, fetched, and looked up again by `herdbook verify`."""

import json
from types import SimpleNamespace

import pytest

from herdbook import plan as plans
from herdbook.cli.checks import check
from herdbook.errors import LockError, RecipeError, SourceError
from herdbook.needs.disk import fetch_bytes
from herdbook.plan.jobs import result_jobs
from herdbook.release.subject import open_source
from herdbook.steps.imatrix.step import made
from herdbook.verify.upstream import _single_file, _single_files
from support import tiny
from support.inputs.conversions import weighted

FILE = {"hub": "them/Base-GGUF", "file": "Base.imatrix.gguf"}


@pytest.fixture
def given(tmp_path, local_hub_client):
    """Write a quantized model with an importance matrix beside its recipe, and publish that matrix."""
    recipe = weighted()(tmp_path)
    content = (tmp_path / "m.gguf").read_bytes()
    commit = local_hub_client.add_repo(FILE["hub"], {FILE["file"]: content, "README.md": b"# GGUF\n"})
    return SimpleNamespace(recipe=recipe, content=content, commit=commit, hub=local_hub_client)


def planned(recipe):
    tiny.lock(recipe)
    return plans.load(recipe, recipe.parent / "results")


def on_the_hub(recipe, **changes):
    matrix = json.dumps({**FILE, **changes})
    text = recipe.read_text(encoding="utf-8").replace('{"file": "m.gguf"}', matrix)
    text = text.replace("imatrix:\n    file: m.gguf", f"imatrix: {matrix}")
    recipe.write_text(text, encoding="utf-8")
    assert FILE["hub"] in text
    return recipe


def test_a_matrix_on_the_hub_is_that_beside_the_recipe(given):
    local = planned(given.recipe)
    plan = planned(on_the_hub(given.recipe))
    locked = plan.lock.imatrix
    assert (locked.revision, locked.asked, locked.file.name) == (given.commit, FILE, FILE["file"])
    assert locked.file.size_bytes == len(given.content)
    assert plan.imatrix.parameters == {**local.imatrix.parameters, "names": [FILE["file"]]}
    assert plan.imatrix.entries["quantize.imatrix.dataset"] == FILE["file"]
    assert plan.imatrix.key != local.imatrix.key  # the name is in the headers of the files made with it
    (job,) = [job for job in result_jobs(plan) if job.rule == "imatrix"]
    assert not [path for path in job.inputs if path.name == "m.gguf"]
    assert fetch_bytes(plan) == fetch_bytes(local) + len(given.content)
    (given.recipe.parent / "m.gguf").unlink()
    matrix, _, _ = made(plan, plan.imatrix, given.recipe.parent, 1)
    assert {name: one.sums.max() for name, one in matrix.inputs.items()} == dict.fromkeys(
        plan.imatrix.tensors, 1.0
    )


def test_a_matrix_of_another_model_is_refused_by_name(given, tmp_path):
    weighted(columns=16)(tmp_path)
    given.hub.commit(FILE["hub"], {FILE["file"]: (tmp_path / "m.gguf").read_bytes()})
    plan = planned(on_the_hub(given.recipe))
    with pytest.raises(
        RecipeError, match=r"quantize\.imatrix: them/Base-GGUF: .* of another model: blk\.0\."
    ):
        check(plan)


def test_a_file_that_is_not_there_is_refused_by_name(given):
    wrong = on_the_hub(given.recipe, file="Base.matrix.gguf")
    with pytest.raises(SourceError, match=r"quantize\.imatrix: .* did you mean 'Base\.imatrix\.gguf'"):
        tiny.lock(wrong)


def test_a_lock_of_another_file_does_not_fit(given):
    recipe = given.recipe
    tiny.lock(recipe)
    with pytest.raises(LockError, match=r"does not match the recipe at quantize\.imatrix"):
        plans.load(on_the_hub(recipe), recipe.parent / "results")
    tiny.lock(recipe)
    text = recipe.read_text(encoding="utf-8").replace(FILE["hub"], f"{FILE['hub']}@{'0' * 40}")
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(LockError, match=r"does not match the recipe at quantize\.imatrix"):
        plans.load(recipe, recipe.parent / "results")


def test_the_level_upstream_looks_at_the_files_again(given):
    plan = planned(on_the_hub(given.recipe))
    locked = plan.lock.imatrix
    others = {"theirs": locked.model_copy()}
    both = plan.lock.model_copy(update={"others": others})
    places = [(where, entry is not None) for where, entry, _ in _single_files(plan.recipe, both)]
    assert places == [("quantize.loss.others.theirs", False), ("quantize.imatrix", True)]
    entry = plan.recipe.quantize.imatrix
    changed = locked.file.model_copy(update={"sha256": "0" * 64})
    larger = locked.file.model_copy(update={"size_bytes": 1 + locked.file.size_bytes})
    release = SimpleNamespace(source=open_source)

    def outcomes(entry, pinned):
        return [finding.outcome.value for finding in _single_file(release, "it", entry, pinned)]

    given.hub.commit(FILE["hub"], {"more.txt": b"more"})
    assert outcomes(entry, locked) == ["passed", "passed"]  # the file, and its commit's history
    assert outcomes(None, locked) == ["failed"]
    for file in (changed, larger):
        assert outcomes(entry, locked.model_copy(update={"file": file})) == ["failed", "passed"]
    assert outcomes(entry, locked.model_copy(update={"revision": "0" * 40})) == ["failed"]
