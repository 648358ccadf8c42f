"""What a card leads to: its commands run a release from a Hub, and what it states of models of the Hub is proven there."""

import io
import json
import re
import shlex
from contextlib import redirect_stdout
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.cli.hf import app
from markdown_it import MarkdownIt
from pytest_local_hub import LocalHub, client

from herdbook import hub
from herdbook import lock as locks
from herdbook import recipe as recipes
from herdbook.errors import LockError, StepError
from herdbook.lock.pin import pin
from herdbook.lock.succession import pin_predecessor
from herdbook.publish import local, preflight
from herdbook.release.finding import Options, Outcome
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.signing.keys import generate, load_private
from herdbook.steps.attest.step import attest
from herdbook.steps.card.step import card_texts, render_card
from herdbook.verify import named, signature
from support import measured, tiny

EVIL = "</details><script>alert(1)</script> | [a](javascript:b)"


def add(served, folder, name, **more):
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    served.add_repo(name, {**files, **more})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A Hub with a source, a release with a predecessor there, and its plan; the base is a copy of the source."""
    root = tmp_path_factory.mktemp("leads")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as served:
        client.use(served, root / "home", patch, served.token)
        for seed, name in enumerate(("base", "other", "third")):
            tiny.write_model(root / name, seed=seed)
        card = {"license": "mit", "datasets": ["herd/text", EVIL]}
        add(served, root / "base", "herd/base")
        add(
            served,
            root / "third",
            "herd/third",
            **{"README.md": f"---\n{yaml.safe_dump(card)}---\n".encode()},
        )
        tiny.write_task(root / "task.yaml", ["w1 w2"] * 3)
        first = build(root, "first", {"rank": {"fraction": 0.5}}, 0.9)
        add(served, first.layout.release_folder, "keeper/First")
        uses = {"intended": ["tests", EVIL], "unsuitable": [EVIL]}
        second = build(
            root,
            "second",
            {"rank": {"fraction": 0.75}},
            0.8,
            release={"repo": "keeper/Second", "uses": uses},
            publish={"replaces": "keeper/First"},
        )
        add(served, second.layout.release_folder, "keeper/Second")
        yield second


def build(root, name, cut, value, **sections):
    models = {
        "base": {"folder": "base", "hub_id": "herd/base"},
        "other": {"folder": "other", "hub_id": "herd/base"},
        "third": {"hub": "herd/third"},
        "cut": {"laser": "base", "matrices": ["mlp.up_proj"], **cut},
        "mix": {
            "moe": {
                "base": "cut",
                "gate": "random",
                "experts": [{"model": "cut"}, {"model": "other"}, {"model": "third"}],
            }
        },
    }
    if name == "first":
        del models["mix"]["moe"]["experts"][2], models["third"]
    evaluate = {"tasks": ["task.yaml"], "models": ["mix"]}
    path = tiny.write_recipe(root / f"{name}.yaml", models, evaluate=evaluate, **sections)
    plan = tiny.build(path, root / f"results-{name}")
    for item in plan.evaluations:
        measured.write(plan, item, [value + number / 100 for number in range(3)])
    render_card(plan, plan.layout.card_folder)
    tiny.release(plan)
    return plan


def head(repo):
    return hub.resolve(repo, None).commit


def card_of(plan):
    return (plan.layout.release_folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def card(made):
    return card_of(made)


def test_the_example_runs(card):
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert 'model_id = "keeper/Second"' in example
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(example, "card", "exec"), {})  # noqa: S102 - it is the card's
    assert output.getvalue().strip()


def test_the_download_runs(made, card, tmp_path, monkeypatch):
    (line,) = [line for line in card.splitlines() if line.startswith("hf download ")]
    monkeypatch.chdir(tmp_path)
    with redirect_stdout(io.StringIO()):
        app.main(shlex.split(line)[1:], standalone_mode=False)
    ours = made.layout.release_folder
    weights = list(ours.glob("*.safetensors"))
    assert weights
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in weights)


def test_a_command_that_no_test_runs_is_marked(card):
    assert "\nvllm serve keeper/Second  # not run by a test here\n" in card


def test_a_folder_is_the_model_of_the_hub_whose_weights_it_has(made, card):
    plan = made
    locked = plan.lock.sources
    assert locked["base"].hub_commit == head("herd/base")
    assert locked["other"].hub_commit == ""
    assert (
        f"`base` is `herd/base` of the Hub: commit `{locked['base'].hub_commit[:12]}` has the same weights"
        in card
    )
    assert "`other` is `herd/base` of the Hub, as the author *asserts*." in card


def test_what_is_found_is_printed_and_without_a_hub_it_stays_asserted(made, monkeypatch):
    from huggingface_hub import constants

    path = made.recipe_path
    lines = []
    pin(recipes.load(path), path, lines.append)
    found = [line for line in lines if "hub_id" in line]
    assert found[0].startswith("base: hub_id: herd/base: proven: commit ")
    assert found[1].startswith("other: hub_id: herd/base: not proven, so it stays as you state: commit ")
    assert found[1].endswith("has no file with the content of model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models = {"base": {"folder": "base", "hub_id": "herd/gone"}}
    alone = tiny.write_recipe(path.parent / "alone.yaml", models)
    lines.clear()
    assert pin(recipes.load(alone), alone, lines.append).sources["base"].hub_commit == ""
    assert "not compared, so it stays as you state" in lines[-1]


def changed(plan, edit):
    """The findings on a release whose lock is another."""
    release = Release(FolderSubject(plan.layout.release_folder))
    release.__dict__["lock"] = edit(plan.lock)
    return {finding.subject: finding for finding in named.check(release)}


def test_both_are_derived_again_upstream(made):
    found = changed(made, lambda lock: lock)
    assert {finding.outcome for finding in found.values()} == {Outcome.PASSED}
    assert set(found) == {"base", "publish.replaces"}

    def other(lock):
        source = lock.sources["other"].model_copy(update={"hub_commit": lock.sources["base"].hub_commit})
        before = lock.predecessor.model_copy(update={"weights": {}})
        return lock.model_copy(update={"sources": {**lock.sources, "other": source}, "predecessor": before})

    found = changed(made, other)
    assert found["other"].outcome is Outcome.FAILED
    assert "has no file with the content of" in found["other"].detail
    assert found["publish.replaces"].outcome is Outcome.FAILED
    assert "weights" in found["publish.replaces"].detail


def test_changes_since_the_predecessor(made, card):
    plan = made
    text = card[card.index("<summary>Changes since the predecessor") :].partition("</details>")[0]
    assert f"[keeper/First](<https://huggingface.co/keeper/First/tree/{head('keeper/First')}>)" in text
    assert f"at `{head('keeper/First')[:12]}`" in text
    third = plan.lock.sources["third"].uri
    assert f"| `third` | \u2013 | `{third}` |" in text
    assert "| `base` |" not in text
    assert "- parameter \\`cut.rank.fraction\\` was 0.5, is 0.75\n" in text
    values = {
        name: json.loads(next((root / "provenance/evaluations").glob("*.json")).read_text())
        for name, root in (
            ("now", plan.layout.release_folder),
            ("was", plan.layout.root.parent / "results-first/Tiny/release"),
        )
    }
    was, now = (
        values[name]["tasks"]["held_out"]["metrics"]["bits_per_byte"]["value"] for name in ("was", "now")
    )
    assert f"(bits per byte, lower is better) | {was:.4f} | {now:.4f} |" in text
    ours = {path.read_bytes() for path in plan.layout.release_folder.glob("*.safetensors")}
    theirs = {
        path.read_bytes()
        for path in (plan.layout.root.parent / "results-first/Tiny/release").glob("*.safetensors")
    }
    same = len(ours & theirs)
    assert f"release's {len(ours)} files of weights, {same} {'is' if same == 1 else 'are'} there" in text


def test_a_predecessor_that_herdbook_did_not_make_is_compared_by_its_weights(made):
    plan = made
    path = plan.recipe_path.parent / "third.yaml"
    data = yaml.safe_load(plan.recipe_path.read_text())
    data["publish"] = {"replaces": "herd/third"}
    path.write_text(yaml.safe_dump(data))
    before = pin(recipes.load(path), path, lambda _: None).predecessor
    assert (before.models, before.sources, before.measured) == (None, None, {})
    assert list(before.weights) == ["model.safetensors"]


def test_what_a_hostile_predecessor_states_stays_text(made):
    files = {
        "recipe.yaml": yaml.safe_dump({"models": {EVIL: {"hub": EVIL}}, "release": {"model": EVIL}}).encode(),
        "recipe.lock.json": b'{"version": 1, "sources": {"' + EVIL.encode() + b'": 1}}',
        "provenance/evaluations/a.json": json.dumps({"name": EVIL, "tasks": {EVIL: 1}}).encode(),
        "provenance/evaluations/b.json": b"[" * 5000,
    }
    served = HfApi()
    served.create_repo("keeper/evil", exist_ok=True)
    for name, content in files.items():
        served.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id="keeper/evil")
    before = pin_predecessor("keeper/evil")
    assert before.models == {EVIL: {"hub": EVIL}}
    assert (before.sources, before.measured) == (None, {})
    sources = {EVIL: EVIL, "third": f"pkg:{EVIL}"}
    before = before.model_copy(update={"sources": sources, "repo": EVIL})
    lock = made.lock.model_copy(update={"predecessor": before})
    text = card_texts(replace(made, lock=lock))["README.md"]
    text = text[text.index("<summary>Changes since") :].partition("\n</details>")[0]
    assert text.count("alert(1)") >= 6
    shown = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)
    assert "<script" not in shown
    assert 'href="javascript' not in shown
    assert "<details" not in shown


def test_a_lock_with_another_predecessor_does_not_fit(made):
    plan = made
    lock = plan.lock.model_copy(update={"predecessor": None})
    with pytest.raises(LockError, match=r"publish\.replaces"):
        locks.check_fits(lock, plan.recipe, plan.recipe_path)


def test_uses_and_declared_data_are_listed_and_stay_text(card):
    text = card[card.index("<summary>Uses and training data") :].partition("\n</details>")[0]
    assert "<script>" not in text
    assert "- tests\n" in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3
    assert "| `third` | `herd/text` and " in text
    assert "| `base` |" not in text


def test_citations_name_methods_and_sources(made, card):
    plan = made
    (text,) = re.findall(r"```bibtex\n(.*?)```", card, re.DOTALL)
    keys = re.findall(r"^@misc\{([^,]+),$", text, re.MULTILINE)
    assert keys[:2] == ["sharma2023laser", "shazeer2017outrageously"]
    assert len(keys) == len(set(keys)) == 5
    assert f"pinned to {plan.lock.sources['third'].revision[:12]}" in text
    for entry in text.split("@misc")[1:]:
        assert entry.count("{") == entry.count("}")


def test_a_named_signer_is_on_the_card_and_no_other_signs(made, tmp_path):
    plan = made
    keys = {}
    for name in ("ours", "theirs"):
        generate(tmp_path / name)
        keys[name] = load_private(tmp_path / name)
    data = yaml.safe_load(plan.recipe_path.read_text())
    data["release"]["signer"] = {"key": keys["ours"].fingerprint}
    path = plan.recipe_path.parent / "signed.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    signed = tiny.build(path, plan.layout.root)
    render_card(signed, signed.layout.card_folder)
    (problem,) = unsigned(tiny.release(signed))
    assert f"its card names who signs it (release.signer: key {keys['ours'].fingerprint})" in problem
    (missing,) = signatures(signed.layout.release_folder)
    assert (missing.check, missing.outcome) == ("unsigned", Outcome.UNVERIFIED)
    assert f"though the recipe names who signs it: key {keys['ours'].fingerprint}" in missing.detail
    (accepted,) = signatures(signed.layout.release_folder, unsigned=True)
    assert (accepted.check, accepted.outcome) == ("unsigned", Outcome.PASSED)
    folder = tiny.release(signed, keys["ours"])
    assert unsigned(folder) == []
    card = card_of(signed)
    assert f"(SHA-256 of the public key, PEM) is `{keys['ours'].fingerprint}`" in card
    assert f"| signed | by key `{keys['ours'].fingerprint[:12]}`: " in card
    assert {finding.outcome for finding in signatures(folder)} == {Outcome.PASSED}
    with pytest.raises(
        StepError, match=rf"release\.signer: the recipe names key {keys['ours'].fingerprint}, and key"
    ):
        attest(signed, keys["theirs"])
    # as a stranger would sign it, with another program
    object.__setattr__(signed.recipe.release, "signer", None)
    attest(signed, keys["theirs"])
    wrong = [finding for finding in signatures(folder) if finding.outcome is not Outcome.PASSED]
    assert [finding.detail for finding in wrong] == [
        "is by another signer than the recipe names, and the card with it"
    ]


def unsigned(folder):
    problems = preflight.of_release(local.read(folder), public=False)
    return [problem for problem in problems if "is not signed" in problem]


def signatures(folder, **options):
    release = Release(FolderSubject(folder))
    return list(signature.check(release, signature.read_claims(release), Options(**options)))
