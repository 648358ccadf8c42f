"""Sources of an audited merge: on the Hub and in folders; moved, gone, gated, and wrong."""

import json

import pytest
import yaml
from safetensors.torch import save_file

from herdbook.errors import SourceError, WrongAnswerError
from herdbook.hub import failure
from herdbook.release.finding import Outcome
from herdbook.release.hub_subject import HubSubject
from support.strangers import config_of, failed, mixture, model_config, of, unproven, verify
from support.verification import status


def config_file(stage, first):
    config = config_of()
    config["experts"][0]["source_model"] = first
    path = stage.root / "named.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_source_that_moved_and_one_that_is_pinned(stage):
    name = stage.merge(mixture(stage.sources, ("tuned", "other")))
    old = stage.add("herd/moved", stage.herd / "tuned")
    stage.hub.commit(
        "herd/moved",
        {path.name: path.read_bytes() for path in sorted((stage.herd / "base").iterdir())}
        | {"model.safetensors.index.json": None},
    )
    for reference, wrong in ((f"herd/moved@{old}", []), ("herd/moved", [("equal", "expert 1")])):
        config = config_of()
        config["experts"][0]["source_model"] = reference
        found = verify(stage.merge(mixture(stage.sources, ("tuned", "other")), config))
        assert failed(found) == wrong
    assert old in of(verify(name, config_file(stage, f"herd/moved@{old}")), "source")[1].detail


def test_a_gone_and_a_gated_source_leave_the_others_provable(stage, monkeypatch):
    stage.hub.add_repo(
        "herd/secret",
        {path.name: path.read_bytes() for path in sorted((stage.herd / "tuned").iterdir())},
        gated="manual",
    )
    name = stage.merge(
        mixture(stage.sources, ("tuned", "other")),
        config_of(("secret", "other")) | {"base_model": "herd/withdrawn"},
    )
    monkeypatch.setenv("HF_TOKEN", stage.hub.stranger)
    found = verify(name)
    assert not failed(found)
    assert [one.subject for one in of(found, "source", Outcome.UNVERIFIED)] == [
        "herd/withdrawn",
        "herd/secret",
    ]
    assert [one.subject for one in of(found, "equal", Outcome.PASSED)] == ["expert 2"]
    assert unproven(found) == {"routers", "herd/withdrawn", "herd/secret"}
    assert status(found) == 9
    assert stage.hub.stranger not in repr(found)


def test_a_source_that_answers_wrongly_is_not_one_that_cannot_be_read(stage, monkeypatch):
    monkeypatch.setattr(failure, "WAITS_S", (0.01,))
    name = stage.merge(mixture(stage.sources, ("tuned", "other")))
    weights = stage.hub.repos["herd/tuned"].find("main").files
    digests = "|".join(blob.sha256 for blob in weights.values() if blob.lfs)
    for kind, outcome in (("short", Outcome.FAILED), ("drop", Outcome.UNVERIFIED)):
        stage.hub.fault("GET", f"/lfs/({digests})", kind, 1000)
        found = verify(name)
        stage.hub.faults.clear()
        assert [one.subject for one in of(found, "source", outcome)] == ["herd/tuned"]


@pytest.mark.parametrize(
    ("error", "outcome"), [(WrongAnswerError, Outcome.FAILED), (SourceError, Outcome.UNVERIFIED)]
)
def test_blocks_that_could_not_be_compared(stage, monkeypatch, error, outcome):
    name = stage.merge(mixture(stage.sources, ("tuned", "other")))
    read = HubSubject.read_range

    def fail(subject, file, start, stop):
        if start and subject.repo == "herd/tuned":
            raise error("so it is")
        return read(subject, file, start, stop)

    monkeypatch.setattr(HubSubject, "read_range", fail)
    [one] = [one for one in of(verify(name), "equal") if "so it is" in one.detail]
    assert one.outcome is outcome


@pytest.mark.parametrize("path", ["../tuned", "/etc", "./tuned", "herd/..", "herd/tuned/../../x", "tuned"])
def test_a_remote_card_leads_to_no_folder(stage, path, monkeypatch):
    monkeypatch.chdir(stage.herd)  # where a folder of such a name is
    config = config_of() | {"base_model": path}
    found = verify(stage.merge(mixture(stage.sources, ("tuned", "other")), config))
    assert [one.subject for one in of(found, "source", Outcome.UNVERIFIED)] == [path]
    assert not failed(found)


def test_folders_are_read_inside_of_what_was_named_alone(stage, tmp_path):
    """A merge in a folder, with its sources in it, beside it, and behind a link."""
    merge = tmp_path / "work/merge"
    merge.mkdir(parents=True)
    save_file(mixture(stage.sources, ("tuned", "other")), merge / "model.safetensors", {"format": "pt"})
    (merge / "config.json").write_text(json.dumps(model_config(stage.herd / "base")))
    (merge / "inside").mkdir()
    for name in ("config.json", "model.safetensors"):
        (merge / "inside" / name).write_bytes((stage.herd / "base" / name).read_bytes())
    (merge / "link").symlink_to(stage.herd / "tuned")
    config = config_of() | {"base_model": "inside"}
    for place, reference in enumerate(("link", str(stage.herd / "other"))):
        config["experts"][place]["source_model"] = reference
    (merge / "mergekit_moe_config.yml").write_text(yaml.safe_dump(config))
    found = verify(str(merge))
    assert [one.subject for one in of(found, "source", Outcome.PASSED)] == ["inside"]
    assert [one.subject for one in of(found, "equal", Outcome.PASSED)] == ["base"]
    assert not failed(found)
    named = tmp_path / "work" / "named.yml"
    (tmp_path / "work/tuned").symlink_to(stage.herd / "tuned")
    (tmp_path / "work/base").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "work/base" / name).write_bytes((stage.herd / "base" / name).read_bytes())
    config = config_of() | {"base_model": "./base"}
    config["experts"][0]["source_model"] = "tuned"
    named.write_text(yaml.safe_dump(config))
    found = verify(merge, named)
    assert [one.subject for one in of(found, "source", Outcome.PASSED)] == ["./base", "herd/other"]
    assert [one.subject for one in of(found, "equal", Outcome.PASSED)] == ["expert 2", "base"]
