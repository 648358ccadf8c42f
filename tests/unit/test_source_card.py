"""What a source's card says of it: as in the pinned commit, whatever its description says."""

import json

import pytest
from huggingface_hub import ModelCard
from pytest_local_hub import LocalHub, client

from herdbook import lock as locks
from herdbook.errors import SourceError
from herdbook.sources.card import Card, read_card
from support import tiny


def read(text):
    return read_card(["README.md"], lambda _: text.encode(), "hub: a/b")


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"license": "mit", "base_model": "herd/clover"},
        {"license": ["mit", "apache-2.0"], "base_model": ["herd/clover", "herd/bella"]},
        {"license": "mit", "tags": ["a: b"], "widget": [{"text": "x"}]},
    ],
    ids=str,
)
def test_a_card_is_read_as_the_hub_s_client_reads_it(entries):
    text = f"---\n{json.dumps(entries)}\n---\n# Title\n\n---\nlicense: other\n---\n"
    known = ModelCard(text).data.to_dict()
    licenses, parents = (known.get(key) or [] for key in ("license", "base_model"))
    found = read(text)
    assert found.license == ((licenses if isinstance(licenses, str) else ", ".join(licenses)) or None)
    assert found.base_models == ((parents,) if isinstance(parents, str) else tuple(parents))


@pytest.mark.parametrize(
    "text",
    [
        "", "# Title\n", "---\n---\n", "---\n# nothing\n---\n", "---\nlicense: mit\n", "license: mit\n---\n",
        "---\nlicense: 1.5\nbase_model: [3, null]\n---\n",
    ],
)  # fmt: skip
def test_a_card_that_says_nothing(text):
    assert read(text) == Card()


@pytest.mark.parametrize(
    "text",
    ["---\nlicense: mit\n---\n", "\ufeff---\r\nlicense: mit\r\n---\r\n# A", "\n---\nlicense: mit\n---"],
)
def test_line_ends_and_marks_make_no_difference(text):
    assert read(text).license == "mit"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- license", "is not a mapping"),
        ("license: mit\nlicense: apache-2.0", "line 2, column 1: duplicate key 'license'"),
        ("license: [", "line 1, column 11"),
        ("a: &a [b, b]\nc: !!set {d}", "could not determine a constructor for the tag '!!set'"),
    ],
)
def test_a_card_that_cannot_be_understood_is_refused(text, problem):
    with pytest.raises(SourceError) as refused:
        read(f"---\n{text}\n---\n")
    assert str(refused.value).startswith("hub: a/b: README.md: its front matter")
    assert problem in str(refused.value)
    assert "the license in the recipe" in str(refused.value)


def test_a_source_without_a_card():
    assert read_card(["config.json"], lambda _: b"", "") == Card()


def test_the_lock_follows_the_card_at_the_commit_and_not_the_description(tmp_path, monkeypatch):
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        files = {path.name: path.read_bytes() for path in tiny.write_model(tmp_path / "base").iterdir()}
        first = hub.add_repo("herd/base", files, license="mit", base_model="herd/old")
        hub.commit("herd/base", {"README.md": b"---\nlicense: apache-2.0\n---\n"})
        hub.repos["herd/base"].card |= {"license": "gpl-3.0", "base_model": "herd/lie"}
        for asked, said in {
            f"herd/base@{first}": ("mit", ("herd/old",)),
            "herd/base": ("apache-2.0", ()),
        }.items():
            recipe = tiny.write_recipe(tmp_path / "recipe.yaml", {"base": {"hub": asked}})
            tiny.lock(recipe)
            pinned = locks.load(locks.path_for(recipe)).sources["base"]
            assert (pinned.license, pinned.base_models) == said
