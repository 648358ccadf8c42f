"""What a model without a configuration is made of, and audits of many models."""

import json

import pytest

from herdbook.audit import listing
from herdbook.audit.audit import Audit
from herdbook.cli.main import main
from herdbook.release.finding import Options, Outcome
from support import tiny
from support.strangers import LAYERS, cut_ranks, mixture, of, unproven

HERD = ["herd/base", "herd/tuned", "herd/other"]


def composed(name, candidates=HERD):
    return Audit(name, None, (), Options(), candidates).run(lambda _: None).findings


def put(stage, tensors, **changes):
    config = json.loads((stage.herd / "base/config.json").read_text()) | changes
    return stage.merge(tensors, {}, config, files={"README.md": b"# A model\n"})


def test_weights_are_found(stage):
    tensors = {
        name: (
            0.25 * stage.sources["tuned"][name].float() + 0.75 * stage.sources["other"][name].float()
        ).bfloat16()
        for name in stage.sources["base"]
    }
    found = composed(put(stage, tensors))
    (total,) = of(found, "summed", Outcome.PASSED)
    assert total.subject == "layers 0-1"
    assert "0.250 * herd/tuned + 0.750 * herd/other" in total.detail
    assert "so this is the merge" in total.detail
    assert [one.subject for one in of(found, "copied", Outcome.UNVERIFIED)] == ["herd/base"]
    assert "composition" in unproven(found)
    # one of the two is not known: what is left is more than roundings, and is called a likelihood
    found = composed(put(stage, tensors), ["herd/base", "herd/other"])
    (total,) = of(found, "summed", Outcome.UNVERIFIED)
    assert "This is a likelihood" in total.detail


def test_layers_that_were_copied_are_found_wherever_they_are(stage):
    base, tuned = stage.sources["base"], stage.sources["tuned"]
    tensors = {name: one for name, one in base.items() if "layers.1" not in name}
    for name, one in tuned.items():
        if "layers.0" in name:
            tensors[name.replace("layers.0", "layers.1")] = one.clone()
    found = composed(put(stage, tensors))
    assert [(one.subject, one.detail.split(":")[0]) for one in of(found, "copied", Outcome.PASSED)] == [
        ("layers 0", "are copies of herd/base"),
        ("layers 1", "are copies of herd/tuned (its layers 0)"),
    ]


def test_lasered_experts_are_recognized(stage):
    sources = {
        **stage.sources,
        "cut": {
            name: cut_ranks(one, 0.5) if "mlp" in name else one
            for name, one in stage.sources["other"].items()
        },
    }
    tensors = mixture(sources, ("tuned", "cut"))
    changes = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 2}
    found = composed(put(stage, tensors, num_experts_per_tok=2, **changes))
    experts = [one.detail for one in of(found, "expert", Outcome.PASSED)]
    assert experts[0].startswith("is herd/tuned: up_proj of layer")
    assert f"is herd/other, lasered: up_proj of layer {LAYERS // 2}" in experts[1]
    assert "cut to rank 16 of 32" in experts[1]


def test_a_list_goes_on_where_it_ended(stage, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(listing, "PAUSE_SECONDS", 0)
    monkeypatch.chdir(tmp_path)
    config = {
        "merge_method": "linear",
        "models": [{"model": "herd/tuned", "parameters": {"weight": 1.0}}],
        "dtype": "bfloat16",
    }
    model = json.loads((stage.herd / "base/config.json").read_text())
    good, bad = (stage.merge(stage.sources[name], config, model) for name in ("tuned", "other"))
    names = tmp_path / "merges.txt"
    names.write_text(f"# merges\n{good}\n\n{bad}\n")
    assert main(["audit", "--list", str(names), "--page", "audits.md"]) == 8
    page = (tmp_path / "audits.md").read_text()
    assert "2 of 2 models." in page
    assert page.index("| passed |") < page.index("| failed |", page.index("| --- |"))
    assert len((tmp_path / "audits.jsonl").read_text().splitlines()) == 2
    # a run that was killed left half a line
    kept = (tmp_path / "audits.jsonl").read_text().splitlines()
    (tmp_path / "audits.jsonl").write_text(kept[0] + "\n" + kept[1][:40])
    capsys.readouterr()
    assert main(["audit", "--list", str(names), "--page", "audits.md"]) == 8
    assert "(kept)" in capsys.readouterr().out
    assert (tmp_path / "audits.jsonl").read_text().splitlines()[0] == kept[0]
    (tmp_path / "audits.jsonl").write_text("{}\n")
    assert main(["audit", "--list", str(names), "--page", "audits.md"]) != 0
    assert "is not a result of an audit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--list", "x.txt"], "belong together"),
        (["herd/base", "--candidates"], "name at least one model"),
        ([], "Missing argument"),
        (["herd/base", "--list", "x.txt", "--page", "p.md"], "leave the other models out"),
    ],
)
def test_wrong_use(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_text("herd/base\n")
    assert main(["audit", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_candidates_on_the_command_line(stage, capsys):
    name = put(stage, stage.sources["tuned"])
    assert main(["audit", name, "--candidates", *HERD, "--seed", "3"]) == 9
    shown = capsys.readouterr().out
    assert shown.startswith(f"audit: {name}@")
    assert " is compared with herd/base, herd/tuned and herd/other: which of them is it made of?\n" in shown
    assert "layers 0-1: are copies of herd/tuned" in shown


def test_a_folder_can_be_a_candidate(stage, tmp_path):
    folder = tiny.write_model(tmp_path / "here", seed=1)
    found = composed(put(stage, stage.sources["tuned"]), [str(folder)])
    assert [one.subject for one in of(found, "copied", Outcome.PASSED)] == ["layers 0-1"]
