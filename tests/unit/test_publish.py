"""Publishing, what needs no Hub: licences, the proposal, claims, a folder as the place."""

import ast
import base64
import hashlib
import inspect
import json
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import metadata_update

from herdbook import recipe as recipes
from herdbook.cli.main import main
from herdbook.errors import RecipeError, StepError, VerificationError
from herdbook.hub import RemoteFile
from herdbook.publish import claims, folder, local, preflight
from herdbook.publish.hub import _account
from herdbook.publish.proposal import RemoteState, describe, differences, propose, successor
from herdbook.release.subject import FolderSubject
from herdbook.release.sums import parse_sums
from herdbook.sources import purl
from herdbook.steps.card.step import render_card
from support import copies, dummy_release, tiny

# --- licences -----------------------------------------------------------------------------------------------------


def test_a_waiver_names_who_answers_and_then_nothing_is_refused(tmp_path):
    sources = {"base": None}
    refused = preflight.of_release(dummy_release.write(tmp_path / "1", sources=sources), public=True)
    assert "models.base: its license is not known" in refused[0]
    waiver = {
        "source": "base",
        "obligation": "unknown",
        "by": "A. Lawyer",
        "because": "the owner wrote to us",
    }
    assert "release.waivers {source: base, obligation: unknown, by, because}" in refused[0]
    waived = dummy_release.write(tmp_path / "2", sources=sources, waivers=[waiver])
    assert preflight.of_release(waived, public=True) == []
    del waiver["because"]
    with pytest.raises(RecipeError, match="because: missing"):
        dummy_release.write(tmp_path / "3", sources=sources, waivers=[waiver])


def test_a_predecessor_s_card_is_to_lead_to_the_release_by_a_command_that_can_run():
    head, command = successor("herd/old", "herd/new")
    assert "propose `new_version: herd/new` to its owner" in head
    call = ast.parse(shlex.split(command)[-1]).body[-1].value
    values = [ast.literal_eval(argument) for argument in call.args]
    inspect.signature(metadata_update).bind(*values, **{one.arg: one.value.value for one in call.keywords})
    assert values == ["herd/old", {"new_version": "herd/new"}]


@pytest.mark.parametrize(
    ("source", "release", "problem"),
    [
        ("llama3", "apache-2.0", "its license, llama3, must also be that of derived works"),
        ("my own terms", "apache-2.0", "its license, 'my own terms', is not known to Herdbook"),
        ("apache-2.0", "unknown", "release.license: 'unknown' gives nobody a right"),
        ("apache-2.0", "mit", ""),
    ],
)
def test_a_release_that_drops_an_obligation_is_not_published(tmp_path, source, release, problem):
    found = preflight.of_release(
        dummy_release.write(tmp_path, license=release, sources={"base": source}), public=True
    )
    assert problem in "".join(found)
    assert bool(found) == bool(problem)


def test_gated_sources_are_not_made_public_unless_somebody_has_read_the_terms(tmp_path):
    release = dummy_release.write(tmp_path / "1", gated={"base": "manual"})
    found = preflight.of_release(release, public=True)
    assert "models.base (folder:base, access granted manually) is gated" in found[0]
    assert preflight.of_release(release, public=False) == []
    waived = {"gated": {"by": "A. Lawyer", "because": "section 3 allows it"}}
    assert (
        preflight.of_release(
            dummy_release.write(tmp_path / "2", gated={"base": "auto"}, publish=waived), public=True
        )
        == []
    )


# --- who may write ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "may"),
    [
        ({"role": "write"}, {"me/a": True, "herd/a": True}),
        ({"role": "read"}, {"me/a": False}),
        (None, {"me/a": True}),  # no token of the settings page, but a login by a browser
        ({"role": "fineGrained"}, {"me/a": False}),
        (
            {
                "role": "fineGrained",
                "fineGrained": {
                    "scoped": [
                        {"entity": {"type": "user", "name": "me"}, "permissions": ["repo.content.read"]},
                        {"entity": {"type": "model", "name": "me/a"}, "permissions": ["repo.write"]},
                        {"entity": {"type": "org", "name": "herd"}, "permissions": ["repo.write"]},
                    ]
                },
            },
            {"me/a": True, "me/b": False, "herd/b": True},
        ),
    ],
)
def test_what_a_token_may_write_to(token, may):
    account = _account(
        {
            "name": "me",
            "auth": {"accessToken": token} if token else {},
            "orgs": [{"name": "herd", "roleInOrg": "write"}, {"name": "museum", "roleInOrg": "read"}],
        }
    )
    assert account.owners == {"me", "herd"}
    assert {repo: account.may_write(repo) for repo in may} == may


# --- the release's folder -----------------------------------------------------------------------------------------


def test_everything_that_is_wrong_with_a_folder_is_told_at_once(tmp_path):
    release = dummy_release.write(tmp_path)
    (release.folder / "config.json").write_text("{}")
    (release.folder / "model.safetensors").unlink()
    (release.folder / ".left.over.part").write_text("x")
    found = "\n".join(local.read(release.folder).problems)
    assert "config.json: expected sha256" in found
    assert hashlib.sha256(b"{}").hexdigest() in found
    assert "model.safetensors: is listed" in found
    assert ".left.over.part: is not listed" in found


def test_what_copies_leave_in_a_folder_is_named_and_not_published(tmp_path, capsys):
    release = dummy_release.write(tmp_path)
    before = {path.relative_to(release.folder) for path in release.folder.rglob("*")}
    copies.leave(release.folder)
    assert main(["publish", "--release", str(release.folder), "--to", str(tmp_path / "usb")]) == 0
    assert {path.relative_to(tmp_path / "usb") for path in (tmp_path / "usb").rglob("*")} == before
    ignored = [line for line in capsys.readouterr().err.splitlines() if "ignored" in line]
    assert [line.partition(":")[0] for line in ignored] == [
        ".cache/huggingface", ".git", ".gitattributes", "files of macOS and Windows",
    ]  # fmt: skip
    (release.folder / ".git/hooks/post-checkout").write_text("#!/bin/sh\n./run\n")
    (release.folder / "LICENSE").write_text("my own terms")
    found = "\n".join(local.read(release.folder).problems)
    assert ".git/hooks/post-checkout: is not listed" in found
    assert "LICENSE: is not listed" in found  # people add it to have it published


@pytest.mark.parametrize(
    "line", ["0" * 63 + "  a", "0" * 64 + " a", "0" * 64 + "  ../a", "0" * 64 + "  /a", "Z" * 64 + "  a"]
)
def test_damaged_checksums_are_refused(line):
    with pytest.raises(VerificationError, match="line 1|leads out"):
        parse_sums(line + "\n", "SHA256SUMS")


def test_git_blob_is_git_s(tmp_path):
    content = b"a\0b" * 1000
    (tmp_path / "f").write_bytes(content)
    expected = subprocess.run(
        ["git", "hash-object", "--no-filters", tmp_path / "f"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert local.LocalFile.of("f", content).git_blob == expected
    assert local.LocalFile("f", len(content), "", FolderSubject(tmp_path)).git_blob == expected


# --- the proposal -------------------------------------------------------------------------------------------------


def there(contents, *, large=()):
    """Return a place that holds files, of which it knows what the Hub would know."""

    def entry(name, content):
        file = local.LocalFile.of(name, content)
        if name in large:
            return RemoteFile(name, len(content), file.sha256, None)
        return RemoteFile(name, len(content), None, file.git_blob)

    files = {name: entry(name, content) for name, content in contents.items()}
    return RemoteState("1" * 40, files, lambda name, _: contents[name])


def names(files):
    return [file.name for file in files]


def contents(release):
    return {name: file.read() for name, file in release.files.items()}


def test_nothing_there(tmp_path):
    release = dummy_release.write(tmp_path)
    proposal = propose(release, RemoteState(None, {}, None))
    assert names(proposal.new) == sorted(release.files)
    assert proposal.upload_bytes == sum(
        path.stat().st_size for path in release.folder.rglob("*") if path.is_file()
    )
    assert (proposal.changed, proposal.deleted, proposal.kept) == ((), (), ())


@pytest.mark.parametrize("large", [(), ("model.safetensors", "README.md")])
def test_all_of_it_there(tmp_path, large):
    release = dummy_release.write(tmp_path)
    proposal = propose(release, there(contents(release), large=large))
    assert proposal.is_empty
    assert names(proposal.unchanged) == sorted(release.files)
    assert proposal.upload_bytes == 0


def test_a_new_version_keeps_what_no_release_put_there_or_somebody_has_edited(tmp_path):
    earlier = dummy_release.write(
        tmp_path / "1", files={"old.json": b"1", "edited.json": b"1", "big.gguf": b"2"}
    )
    held = contents(earlier) | {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "NOTES.md": b"by hand",
        "edited.json": b"by hand",
        "model.sig": b"of the earlier release",
    }
    release = dummy_release.write(tmp_path / "2", files={"new.json": b"1"}, weights=b"others")
    proposal = propose(release, there(held, large=("big.gguf", "model.safetensors")))
    assert names(proposal.new) == ["new.json"]
    assert names(proposal.deleted) == ["big.gguf", "model.sig", "old.json"]
    assert names(proposal.kept) == [".gitattributes", "NOTES.md", "edited.json"]
    assert "model.safetensors" in names(proposal.changed)
    assert "recipe.lock.json" in names(proposal.unchanged)


@pytest.mark.parametrize("sums", [b"not a line of sums\n", b"\xff\n", b"0" * 64 + b"  old.json\n"])
def test_what_another_program_s_checksums_list_is_not_ours(tmp_path, sums):
    proposal = propose(
        dummy_release.write(tmp_path), there({"SHA256SUMS": sums, "old.json": b"1", "model.sig": b"s"})
    )
    assert names(proposal.kept) == ["model.sig", "old.json"]
    assert proposal.deleted == ()


def test_content_that_is_there_under_another_name_is_not_sent_again(tmp_path):
    release = dummy_release.write(tmp_path, weights=b"w" * 1000)
    before = propose(release, RemoteState(None, {}, None)).upload_bytes
    moved = propose(
        release, there({"pytorch/model.safetensors": b"w" * 1000}, large=("pytorch/model.safetensors",))
    )
    assert before - moved.upload_bytes == 1000


def test_differences_name_each_file_and_both_digests(tmp_path):
    release = dummy_release.write(tmp_path)
    held = contents(release) | {"config.json": b"!!", "stranger": b""}
    del held["README.md"]
    wrong = there(held).files
    found = differences(release.files, wrong)
    assert found == [
        "README.md: is missing",
        f"config.json: expected {release.files['config.json'].size_bytes} bytes, found 2",
        "stranger: is unexpected",
    ]
    flipped = bytes([contents(release)["config.json"][0] ^ 1]) + contents(release)["config.json"][1:]
    found = differences(release.files, there(contents(release) | {"config.json": flipped}).files)
    assert len(found) == 1
    assert release.files["config.json"].git_blob in found[0]
    assert local.LocalFile.of("", flipped).git_blob in found[0]


def test_the_description_has_every_file_with_size_and_digest(tmp_path):
    release = dummy_release.write(tmp_path, publish={"tag": "v3.0"})
    text = describe(propose(release, there({"NOTES.md": b"x"})), "herd/tiny", "v3.0")
    for name, file in release.files.items():
        assert (
            f"add      {name}  {file.size_bytes:,} bytes  sha256 {hashlib.sha256(file.read()).hexdigest()}"
            in text
        )
    assert "keep     NOTES.md" in text
    assert "parent   " + "1" * 40 in text
    assert "tag      v3.0" in text


# --- claims -------------------------------------------------------------------------------------------------------


def statement(kind, digests, **predicate):
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()],
        "predicateType": kind,
        "predicate": predicate,
    }


def bare(data):
    return json.dumps(data).encode() + b"\n"


def enveloped(data, signature="s"):
    payload = base64.b64encode(json.dumps(data).encode()).decode()
    envelope = {
        "payload": payload,
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": signature}],
    }
    return bare({"dsseEnvelope": envelope})


NEW = {"model.safetensors": "a" * 64, "SHA256SUMS": "b" * 64}
OLD = {"model.safetensors": "a" * 64, "SHA256SUMS": "c" * 64}
SLSA = "https://slsa.dev/provenance/v1"
RESULT = "https://in-toto.io/attestation/test-result/v0.1"
VSA = "https://slsa.dev/verification_summary/v1"


def test_merge_loses_no_line_of_others_and_drops_the_earlier_build_s():
    mine = bare(statement(SLSA, NEW))
    summary, unreadable = bare(statement(VSA, OLD)), b"{no json at all\n"
    published = bare(claims.published(OLD, "pkg:huggingface/herd/tiny@" + "1" * 40))
    measured = enveloped(statement(RESULT, {"model.safetensors": "a" * 64}))
    outdated = enveloped(statement(SLSA, OLD))
    held = outdated + summary + unreadable + published + measured
    merged = claims.merge(mine, held, NEW)
    assert merged == mine + summary + unreadable + published + measured
    assert claims.merge(mine, merged, NEW) == merged


def test_merge_takes_the_release_s_own_signature_over_an_earlier_one():
    mine = enveloped(statement(SLSA, NEW), "new")
    assert (
        claims.merge(mine, bare(statement(SLSA, NEW)) + enveloped(statement(SLSA, NEW), "old"), NEW) == mine
    )


def test_a_line_without_its_end_is_whole():
    assert claims.append(b'{"a":1}', '{"b":2}') == b'{"a":1}\n{"b":2}\n'
    assert claims.append(b"", '{"b":2}') == b'{"b":2}\n'


@pytest.mark.parametrize(
    "line", [b"[]", b"1", b'{"subject": [1, {"digest": 3}], "predicateType": []}', b"\xff", b"[" * 10**5]
)
def test_lines_of_nobody_are_kept(line):
    assert claims.merge(b"", line, NEW) == line + b"\n"
    assert list(claims.publications(line, NEW)) == []


def test_publications_are_of_this_release_alone():
    here, before = "pkg:huggingface/herd/tiny@" + "1" * 40, "pkg:huggingface/herd/tiny@" + "2" * 40
    content = bare(claims.published(OLD, before)) + enveloped(claims.published(NEW, here))
    assert [purl for purl, _ in claims.publications(content, NEW)] == [here]


def test_purl_names_the_hub_unless_it_is_the_public_one():
    commit = "0" * 40
    assert (
        str(purl.HubCommit("Owner/Name-1.0", commit, "https://huggingface.co"))
        == f"pkg:huggingface/Owner/Name-1.0@{commit}"
    )
    elsewhere = str(purl.HubCommit("o/n", commit, "http://127.0.0.1:80"))
    assert elsewhere == f"pkg:huggingface/o/n@{commit}?repository_url=http:%2F%2F127.0.0.1:80"
    assert purl.parse(elsewhere) == ("o/n", commit, "http://127.0.0.1:80")
    assert [
        purl.parse(uri)
        for uri in (
            f"pkg:pypi/o@{commit}",
            "pkg:huggingface/o/n@main",
            f"{elsewhere} x",
            f"folder:o/n@{commit}",
        )
    ] == [None] * 4


# --- to a folder --------------------------------------------------------------------------------------------------


def held(place):
    return {
        path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()
    }


def test_to_a_folder_and_again(tmp_path):
    release = dummy_release.write(tmp_path / "r")
    assert not folder.publish(release, tmp_path / "usb" / "tiny").is_empty
    assert held(tmp_path / "usb" / "tiny") == contents(release)
    assert folder.publish(release, tmp_path / "usb" / "tiny").is_empty


def test_a_new_version_to_a_folder(tmp_path):
    place = tmp_path / "usb"
    folder.publish(
        dummy_release.write(tmp_path / "1", files={"deep/er/old.json": b"1", "same.json": b"2"}), place
    )
    (place / "photo.png").write_text("mine")
    release = dummy_release.write(tmp_path / "2", files={"same.json": b"2"}, weights=b"others")
    kept = (place / "same.json").stat().st_ino
    folder.publish(release, place)
    assert held(place) == contents(release) | {"photo.png": b"mine"}
    assert not (place / "deep").exists()
    assert (place / "same.json").stat().st_ino == kept


def test_a_folder_with_what_a_verification_rejects_is_refused_as_it_is(tmp_path):
    place = tmp_path / "usb"
    place.mkdir()
    (place / "old.gguf").write_bytes(b"by hand")
    (place / "photo.png").write_bytes(b"by hand")
    release = dummy_release.write(tmp_path / "1")
    with pytest.raises(StepError, match=f"{place}: contains old.gguf, not of this release") as caught:
        folder.publish(release, place)
    assert "photo.png" not in str(caught.value)
    assert held(place) == {"old.gguf": b"by hand", "photo.png": b"by hand"}


@pytest.mark.parametrize("step", ["replace", "unlink"])
def test_killed_at_any_step_to_a_folder_it_goes_on(tmp_path, monkeypatch, step):
    """Renames make files whole and move them in; removals take away what is in the release no more."""
    first = dummy_release.write(tmp_path / "1", files={"old.json": b"1"})
    release = dummy_release.write(tmp_path / "2", files={"new.json": b"1"}, weights=b"others")
    place, count, real = tmp_path / "usb", 0, getattr(Path, step)
    folder.publish(first, place)
    (place / "photo.png").write_text("mine")
    written = len(folder.preview(release, place)[0].written)
    while True:
        left = count

        def limited(path, *arguments, **options):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return real(path, *arguments, **options)

        monkeypatch.setattr(Path, step, limited)
        try:
            folder.publish(release, place)
            break
        except KeyboardInterrupt:
            count += 1
        finally:
            monkeypatch.setattr(Path, step, real)
        folder.publish(release, place)
        assert held(place) == contents(release) | {"photo.png": b"mine"}
        folder.publish(first, place)
        assert held(place) == contents(first) | {"photo.png": b"mine"}
    assert count == {"replace": 2 * written, "unlink": 1}[step]


def test_two_publishers_to_one_folder(tmp_path):
    release = dummy_release.write(tmp_path / "r")
    with (
        folder._staged(tmp_path / "usb"),
        pytest.raises(StepError, match="another process is publishing to it"),
    ):
        folder.publish(release, tmp_path / "usb")
    assert not (tmp_path / "usb").exists()
    folder.publish(release, tmp_path / "usb")
    assert held(tmp_path / "usb") == contents(release)


def test_a_folder_that_cannot_be_the_place(tmp_path, monkeypatch):
    release = dummy_release.write(tmp_path / "r")
    for place in (release.folder, release.folder / "inside", release.folder.parent):
        with pytest.raises(StepError, match="own folder"):
            folder.publish(release, place)
    (tmp_path / "away").mkdir()
    (tmp_path / "usb").mkdir()
    nested = dummy_release.write(tmp_path / "n", files={"sub/file.json": b"1"})
    (tmp_path / "usb/sub").symlink_to(tmp_path / "away")
    with pytest.raises(StepError, match="leads out"):
        folder.publish(nested, tmp_path / "usb")
    assert not any((tmp_path / "away").iterdir())
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3, total=9))
    with pytest.raises(StepError, match="3 are free"):
        folder.publish(release, tmp_path / "full")
    assert not (tmp_path / "full").exists()


def test_bytes_that_change_on_the_way_are_found(tmp_path, monkeypatch):
    release = dummy_release.write(tmp_path / "r")

    def corrupt(source, target, _):
        target.write(source.read()[::-1])

    monkeypatch.setattr("shutil.copyfileobj", corrupt)
    with pytest.raises(VerificationError, match=r"config.json: expected sha256 \w{64}, found \w{64}"):
        folder.publish(release, tmp_path / "usb")


def test_command_line_to_a_folder(tmp_path, capsys):
    release = dummy_release.write(tmp_path / "r")
    place = tmp_path / "usb"
    arguments = ["publish", "--release", str(release.folder), "--to", str(place)]
    assert main([*arguments, "--dry-run"]) == 0
    assert "add      README.md" in capsys.readouterr().out
    assert not place.exists()
    assert main(arguments) == 0
    assert held(place) == contents(release)
    assert main(arguments) == 0
    assert "already contains the release" in capsys.readouterr().out
    (release.folder / "README.md").write_text("x")
    assert main([*arguments, "--dry-run"]) == 7
    assert "refused: " in capsys.readouterr().out


# --- the recipe ---------------------------------------------------------------------------------------------------


def test_a_release_that_another_recipe_made_is_not_published(tmp_path):
    release = dummy_release.write(tmp_path)
    recipe = tmp_path / "r.yaml"
    recipe.write_bytes((release.folder / "recipe.yaml").read_bytes())
    (tmp_path / "r.lock.json").write_bytes((release.folder / "recipe.lock.json").read_bytes())
    layout = SimpleNamespace(release_folder=release.folder)
    plan = SimpleNamespace(layout=layout, recipe_path=recipe)
    preflight.check_made_by(plan)
    recipe.write_bytes(recipe.read_bytes() + b"# more\n")
    said = r"was made with another recipe.yaml than the current .*r.yaml. Run `snakemake` .*delete .*SHA256SUMS before"
    with pytest.raises(StepError, match=said):
        preflight.check_made_by(plan)


def test_a_misspelt_key_is_told(tmp_path):
    with pytest.raises(RecipeError, match="publish.privat: unknown key; did you mean 'private'"):
        dummy_release.write(tmp_path, publish={"privat": True})
    with pytest.raises(RecipeError, match="publish.gated.why: unknown key"):
        dummy_release.write(tmp_path, publish={"gated": {"by": "x", "because": "y", "why": "z"}})
    with pytest.raises(RecipeError, match="publish.tag"):
        dummy_release.write(tmp_path, publish={"tag": "a b"})
    assert recipes.Publish().private is False


def test_absolute_paths_in_a_release_of_an_old_version_are_not_published(tmp_path, monkeypatch):
    """`herdbook lock` of today refuses them."""
    monkeypatch.setattr("herdbook.lock.pin.check_recipe", lambda *_: None)
    source = tiny.write_model(tmp_path / "base")
    adapter = tiny.write_adapter(tmp_path / "adapter", source)

    def problems(folder, places):
        models = {"base": {"folder": places[0]}, "tuned": {"adapter": places[1], "on": "base"}}
        plan = tiny.build(tiny.write_recipe(folder / "r.yaml", models), folder / "results")
        render_card(plan, plan.layout.card_folder)
        return preflight.of_release(local.read(tiny.release(plan)), public=False)

    found = [one for one in problems(tmp_path / "1", (str(source), str(adapter))) if "relative" in one]
    assert [one.partition(" is ")[0] for one in found] == [
        f"models.base.folder: {source}",
        f"models.tuned.adapter: {adapter}",
    ]
    assert not any("relative" in one for one in problems(tmp_path / "2", ("../base", "../adapter")))
