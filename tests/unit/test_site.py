"""The documentation as a site: generated pages are current, and every command on a page has the options that it shows.

Commands of the tutorial are run by tests/workflow/test_tutorial.py, those of how-to guides here, each page in a folder in which the
names that it uses exist. A block that no test runs has the reason in a comment before it: ``<!-- not run: REASON -->``.
"""

import importlib.util
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import yaml
from gguf.constants import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file

from herdbook.cli.commands import herdbook
from herdbook.cli.main import main
from herdbook.publish import local
from herdbook.signing.keys import generate, load_private
from herdbook.steps.card.step import render_card
from support import pages, publishing, tiny
from support.gguf_files import write_gguf
from support.strangers import Stage, mixture, model_config

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs/site"))

import reference  # noqa: E402

UNPROVEN = (0, 9)  # no audit proves everything
SHOWN = [one for page in pages.all_pages() for one in pages.commands(page)]


@pytest.mark.parametrize("name", reference.pages())
def test_generated_pages_are_current(name):
    assert (reference.FOLDER / name).read_text(encoding="utf-8") == reference.pages()[name], (
        "run: python docs/site/reference.py"
    )


def test_every_page_is_in_the_navigation():
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert written <= {*pages.all_pages(), *(f"docs/reference/{name}" for name in reference.pages())}


def test_alerts_of_github_are_shown_as_the_theme_does(monkeypatch):
    """MkDocs is not installed here; its hook is read with a stand-in."""
    for name, content in {
        "mkdocs.exceptions": {"PluginError": Exception},
        "mkdocs.structure.files": {"File": object, "Files": object},
    }.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))
    spec = importlib.util.spec_from_file_location("hook", ROOT / "docs/site/pages.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="docs/x.md"))
    text = "before\n\n> [!WARNING]\n> It is *small*;\n> so be it.\n\n> a quotation\n"
    assert hook.on_page_markdown(text, page, None, None) == (
        "before\n\n!!! warning\n\n    It is *small*;\n    so be it.\n\n> a quotation\n"
    )
    theme = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["theme"]
    assert (
        "navigation.indexes" not in theme["features"]
    )  # pages whose files are README.md would be in no menu


def test_blocks_are_run_or_have_a_reason():
    """Raise the first number as blocks become runnable; the second counts what no test runs."""
    blocks = [block for page in pages.guides() for block in pages.blocks(page)]
    reasons = [block.reason for block in blocks if block.reason is not None]
    assert all(reasons)
    assert (len(blocks) - len(reasons), len(reasons)) == (18, 24)
    for page in pages.guides():
        assert not pages.indented(page), f"{page}: put commands into a fence (```sh)"


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{page}: {command}" for page, command in SHOWN])
def test_commands_have_the_options_that_pages_show(page, command):
    """Options are parsed, not their values: those are often placeholders."""
    words = shlex.split(command, comments=True)[1:]
    context, found = click.Context(herdbook, info_name="herdbook"), herdbook
    while isinstance(found, click.Group):
        if words[0].startswith("-"):
            return  # herdbook --help, herdbook --debug COMMAND
        _, found, words = found.resolve_command(context, words)
        context = click.Context(found, info_name=found.name, parent=context)
    found.make_parser(context).parse_args(words)


# --- running ------------------------------------------------------------------------------------------------------


def models(folder, _):
    tiny.write_model(folder / "MODEL", layers=30)


def fine_tune(folder, _):
    base = tiny.write_model(folder / "BASE")
    tuned = tiny.write_model(folder / "TUNED")
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name] * 1.5}, tuned / "model.safetensors", metadata={"format": "pt"})


def cards(folder, _):
    for name, (one, two) in {
        "README.md": ("owner/one", "owner/two"),
        "CARD.md": ("D:/models/one", "left"),
    }.items():
        models = [{"model": model, "parameters": {"weight": 0.5}} for model in (one, two)]
        merge = yaml.safe_dump({"merge_method": "linear", "models": models})
        (folder / name).write_text(f"# Merge\n\n```yaml\n{merge}```\n", encoding="utf-8")
    (folder / "names.txt").write_text("# the paths of this machine\nleft=owner/two\n", encoding="utf-8")


def generated(path):
    """Make a key pair as a page names it: the private one, and beside it NAME.pub."""
    generate(path)
    return path


def release(folder, _):
    tiny.write_model(folder / "base")
    recipe = tiny.write_recipe(folder / "recipe.yaml", {"base": {"folder": "base"}})
    plan = tiny.build(recipe, folder / "results")
    render_card(plan, plan.layout.card_folder)
    (folder / "FOLDER").symlink_to(tiny.release(plan, load_private(generated(folder / "herd"))))


def published(folder, hub):
    """Put two releases of a lasered model on the Hub, as owner/name, and a folder of one here."""
    source = tiny.write_model(folder / "base")
    hub.add_repo(
        "herd/base", {path.name: path.read_bytes() for path in source.iterdir()}, license="apache-2.0"
    )
    models = {
        "base": {"hub": "herd/base"},
        "cut": {"laser": "base", "rank": 8, "matrices": ["mlp.down_proj"]},
    }
    hub.orgs = {"owner"}
    key = load_private(generated(folder / "author"))
    for tag in ("v1.0.0", "v2.0.0"):
        about = {"release": {"repo": "owner/name", "summary": tag}, "publish": {"tag": tag}}
        plan = tiny.build(tiny.write_recipe(folder / f"{tag}.yaml", models, **about), folder / tag)
        render_card(plan, plan.layout.card_folder)
        made = tiny.release(plan, key)
        publishing.publish(local.read(made), repo="owner/name", key=key)
    (folder / "FOLDER").symlink_to(made)


def merges(folder, hub):
    """Put a mixture on the Hub, as owner/name, and one here."""
    stage = Stage(hub, folder / "hub")
    tensors = mixture(stage.sources, ("tuned", "other"))
    quantized = write_gguf(folder / "x.gguf", tensors, Kind.Q8_0, model_config(stage.herd / "base"))
    hub.add_repo("owner/name-GGUF", {"name.Q8_0.gguf": quantized.read_bytes()})
    stage.merge(tensors, name="owner/name")
    (folder / "FOLDER").symlink_to(stage.write(tensors))
    (folder / "hub/merge2.yml").rename(folder / "mergekit_moe_config.yml")
    for name, model in {"owner/one": "tuned", "owner/other": "other"}.items():
        stage.add(name, stage.herd / model)
    (folder / "merges.txt").write_text("owner/name\n", encoding="utf-8")


def known(folder, hub):
    """Put a merge on the Hub whose sources are there, and its configuration here."""
    merges(folder, hub)
    (folder / "mergekit_moe_config.yml").rename(folder / "mergekit_config.yml")


FOLDERS = {
    "docs/audit.md": merges,
    "docs/check.md": published,
    "docs/import.md": cards,
    "docs/reduce.md": models,
    "docs/extract.md": fine_tune,
    "docs/recipes.md": known,
    "docs/signing.md": release,
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow) if page == "docs/check.md" else page
        for page in pages.guides()
        if page != pages.TUTORIAL
    ],
)
def test_guides_show_commands_that_work(page, tmp_path, monkeypatch, capsys, local_hub_client):
    runnable = [block for block in pages.blocks(page) if block.reason is None]
    assert bool(runnable) == (page in FOLDERS), page
    if not runnable:
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    FOLDERS[page](tmp_path, local_hub_client)
    for block in runnable:
        for command in block.commands:
            program, *arguments = shlex.split(command, comments=True)
            assert program == "herdbook", command
            status = main([str(Path(one).expanduser()) if one[0] == "~" else one for one in arguments])
            assert status in (UNPROVEN if arguments[0] == "audit" else (0,)), (
                f"{command}\n{capsys.readouterr().err}"
            )
