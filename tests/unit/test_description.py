"""A card for any checkpoint: what its files state, counted from them, and nothing that they do not."""

import json

import pytest
from safetensors.torch import load_file

from herdbook.audit.description import describe
from herdbook.cli.main import main
from herdbook.errors import SourceError
from herdbook.release.subject import FolderSubject
from support import tiny

EVIL = "<script>alert(1)</script> | {{ 7*7 }} \u202e"


def test_a_dense_model_is_described_by_its_files(tmp_path, capsys):
    folder = tiny.write_model(tmp_path / "model", shards=2)
    (folder / "LICENSE").write_text("Terms.\n")
    front = {"license": EVIL, "base_model": ["herd/a", EVIL], "tags": ["merge"]}
    (folder / "README.md").write_text(f"---\n{json.dumps(front)}\n---\n# A\n")
    (folder / "mergekit_config.yml").write_text("merge_method: slerp\n```\n<script>\n")
    total = sum(t.numel() for path in folder.glob("*.safetensors") for t in load_file(path).values())
    assert main(["card", str(folder)]) == 0
    told = capsys.readouterr().out
    assert f"| parameters | {total:,} |" in told
    assert "| context | 128 tokens |" in told
    assert "| chat template | none: it continues text |" in told
    assert "`herd/a`" in told
    assert "| license texts | `LICENSE` |" in told
    assert "Declared in `mergekit_config.yml`:\n\n````yaml\nmerge_method: slerp" in told
    assert "<script>" not in told.partition("## How it was merged")[0].replace("`<script>", "")
    assert "\u202e" not in told
    assert "its license, so nobody knows" not in told
    assert "`model-00001-of-00002.safetensors`" in told


def test_what_is_not_stated_is_listed(tmp_path):
    told = describe(FolderSubject(tiny.write_model(tmp_path / "model")))
    missing = told.partition("## What its files do not state")[2]
    for part in ("no README.md", "its license", "`base_model`", "no merge configuration"):
        assert part in missing


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SourceError):
        describe(FolderSubject(tmp_path))
