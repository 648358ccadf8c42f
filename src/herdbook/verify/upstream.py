"""The level `upstream`: the sources still exist, and the lock records nothing of them that they do not state themselves.

A source on the Hub is pinned a second time, at its locked commit, by the code that wrote the lock: from the Hub's description,
the headers of the weights, and small files that are compared with their digests. No weights are read. One in a local folder is
pinned a second time from the verifier's copy, if there is one: its files are read as a whole.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_jsonable_python

from herdbook import hub
from herdbook.errors import GoneError, HerdbookError
from herdbook.layout import LOCK, RECIPE
from herdbook.lock import LockedHubFile, LockedSource
from herdbook.lock.adapter import pin_adapter, pin_hub_adapter
from herdbook.lock.data_set import pin_data_set, readings
from herdbook.lock.file import pin_file
from herdbook.lock.folder import pin_files
from herdbook.lock.pin import compare_tokens, make_vocabularies
from herdbook.lock.repository import pin_hub
from herdbook.plan.material import adapter_uri
from herdbook.recipe import Adapter, Folder, Hub, HubFile
from herdbook.release.finding import Check, Outcome
from herdbook.release.hub_subject import HubSubject
from herdbook.release.reader import caught, damaged
from herdbook.sources import purl
from herdbook.sources.data_set import CONVERTED
from herdbook.verify import named, tasks
from herdbook.verify.ahead import in_order
from herdbook.verify.copied import CopiedFolder, open_model
from herdbook.verify.differences import difference
from herdbook.verify.history import MERGED, check_history

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.lock import Lock, LockedAdapter, LockedDataSet, LockedFile
    from herdbook.recipe import Recipe
    from herdbook.release.finding import Finding, Options
    from herdbook.release.reader import Release
    from herdbook.release.subject import Subject
    from herdbook.sources.data_set import Reading

    Pinned = LockedSource | LockedAdapter

LEVEL = "upstream"
PINNED = Check(LEVEL, "pinned")
AGREES = Check(LEVEL, "lock")
# Locks of older versions do not name these. A lock that does not is as good as its version, but proves less.
ADDED_LATER = frozenset({"tokens", "chat_template", "license_texts", "datasets"})
# Who may download a source can change without a commit. What was requested, and what that resolves to, follows from the recipe.
NOT_IN_A_COMMIT = frozenset({"asked", "gated", "uri", "hub_commit"})


class Source(NamedTuple):
    """What is known of a source.

    Args:
        findings: The findings about it.
        pinned: What its lock should contain; None if that could not be determined.
    """

    findings: list[Finding]
    pinned: LockedSource | None = None


def check(release: Release, options: Options) -> Iterator[Finding]:
    """Check each source, adapter and single file that can be read; report others as unverified."""
    inputs = options.inputs
    pinned: dict[str, LockedSource] = {}
    for name, take in in_order(lambda name: _source(release, name, inputs), release.lock.sources):
        source = take()
        yield from source.findings
        if source.pinned:
            pinned[name] = source.pinned
    beside = (inputs or Path(RECIPE)).parent
    yield from caught(_token_differences(release, pinned, beside), AGREES, release)
    yield from caught(tasks.check(release), tasks.TASKS, release)
    for key, read in readings(release.lock.tasks).items():
        if key in release.lock.data_sets:
            yield from _data_set(key, release.lock.data_sets[key], read)
    for name, adapter in release.lock.adapters.items():
        model = release.recipe.models.get(name)
        if not isinstance(model, Adapter):
            yield PINNED.failed(name, f"the lock pins an adapter that {RECIPE} does not name", file=LOCK)
            continue
        yield from _adapter(release, f"adapter of {name}", model, adapter, inputs)
    yield from named.check(release)
    for where, entry, locked in _single_files(release.recipe, release.lock):
        yield from _single_file(release, where, entry, locked)


def _single_files(recipe: Recipe, lock: Lock) -> Iterator[tuple[str, HubFile | None, LockedHubFile]]:
    """Yield each pinned file of another publisher: its place in the recipe, and its entry there, if it has one."""
    section = recipe.quantize
    others = section.loss.others if section and section.loss else {}
    for name, locked in lock.others.items():
        yield f"quantize.loss.others.{name}", others.get(name), locked
    if isinstance(lock.imatrix, LockedHubFile):
        given = section.imatrix if section else None
        yield "quantize.imatrix", given if isinstance(given, HubFile) else None, lock.imatrix


def _single_file(
    release: Release, where: str, entry: HubFile | None, locked: LockedHubFile
) -> Iterator[Finding]:
    """Check that a file of another publisher is still what was pinned, in a commit that its owner published."""
    if entry is None:
        yield PINNED.failed(where, f"the lock pins a file that {RECIPE} does not name", file=LOCK)
        return
    uri = str(purl.HubCommit(entry.repo, locked.revision))
    try:
        remote = release.source(uri)
    except GoneError as error:
        yield PINNED.failed(where, f"{uri} is gone: {error}", source=uri)
        return
    except HerdbookError as error:
        yield PINNED.error(where, error, source=uri)
        return
    yield from _files(where, uri, (locked.file,), remote)
    if isinstance(remote, HubSubject):
        yield from caught(check_history(where, entry, remote), MERGED, release)


def _source(release: Release, name: str, inputs: Path | None) -> Source:
    """Check one source."""
    locked, model = release.lock.sources[name], release.recipe.models.get(name)
    try:
        remote = open_model(release, model, locked.uri, inputs)
    except GoneError as error:
        detail = f"{locked.uri} is gone: {error} {_elsewhere(locked.uri, locked.files)}"
        return Source([PINNED.failed(name, detail, source=locked.uri)])
    except HerdbookError as error:
        return Source([PINNED.error(name, error, source=locked.uri)])
    findings = [*_files(name, locked.uri, locked.files, remote)]
    if isinstance(model, Folder) and isinstance(remote, CopiedFolder):
        return _copied(name, model, locked, remote, findings)
    if not isinstance(model, Hub) or not isinstance(remote, HubSubject):
        return Source(findings)
    findings += caught(check_history(name, model, remote), MERGED, release)
    try:
        with damaged(locked.uri):
            pinned = pin_hub(model, remote.remote, remote)
    except (HerdbookError, OSError) as error:
        return Source([*findings, AGREES.error(name, error, source=locked.uri)])
    return Source([*findings, *_agrees(name, locked, pinned, locked.uri)], pinned)


def _copied(
    name: str, model: Folder, locked: LockedSource, remote: CopiedFolder, findings: list[Finding]
) -> Source:
    """Pin a local folder a second time, if its files are those that were pinned. They are not read a second time for it."""
    if not _passed(findings):
        return Source(findings)
    known = {file.name: file for file in locked.files}
    try:
        with damaged(locked.uri):
            pinned = pin_files(
                remote.folder,
                sorted(remote.files),
                f"folder: {model.folder}",
                asked=locked.asked,
                uri=locked.uri,
                declared_license=model.license,
                pin=lambda path, file: known.get(file) or pin_file(path, file),
            )
    except (HerdbookError, OSError) as error:
        return Source([*findings, AGREES.error(name, error, source=locked.uri)])
    return Source([*findings, *_agrees(name, locked, pinned, locked.uri)], pinned)


def _data_set(key: str, locked: LockedDataSet, read: Mapping[Reading, str]) -> Iterator[Finding]:
    """Pin a data set a second time, at its locked commit; no documents are read."""
    where = f"data set {key}"
    url = f"datasets/{locked.repo}@{locked.revision}"
    try:
        remote = hub.resolve(locked.repo, locked.revision, "dataset")
        pinned = pin_data_set(locked.repo, remote, locked.branch, read)
    except GoneError as error:
        yield PINNED.failed(where, f"is gone: {error}", source=url)
        return
    except (HerdbookError, OSError) as error:
        yield PINNED.error(where, error, source=url)
        return
    branches = {key.partition("@")[2] or "main", CONVERTED}
    if locked.branch not in branches:
        detail = "the lock differs: branch"
        expected = " or ".join(sorted(branches))
        yield AGREES.failed(where, detail, file=LOCK, expected=expected, found=locked.branch)
    ours, theirs = (one.model_dump(mode="json", exclude=set(NOT_IN_A_COMMIT)) for one in (pinned, locked))
    if ours == theirs:
        yield PINNED.passed(where, f"its {len(locked.files)} files still have the pinned digests", source=url)
    else:
        place, expected, found = difference(ours, theirs)
        yield AGREES.failed(where, f"the lock differs: {place}", file=LOCK, expected=expected, found=found)


def _adapter(
    release: Release, name: str, model: Adapter, locked: LockedAdapter, inputs: Path | None
) -> Iterator[Finding]:
    """Check one adapter."""
    uri, files = adapter_uri(model, locked), locked.files
    try:
        remote = open_model(release, model, uri, inputs)
    except GoneError as error:
        yield PINNED.failed(name, f"{uri} is gone: {error} {_elsewhere(uri, files)}", source=uri)
        return
    except HerdbookError as error:
        yield PINNED.error(name, error, source=uri)
        return
    findings = [*_files(name, uri, files, remote)]
    yield from findings
    if isinstance(model.adapter, Hub) and isinstance(remote, HubSubject):
        yield from caught(check_history(name, model.adapter, remote), MERGED, release)
        pin = partial(pin_hub_adapter, model, remote.remote)
    elif inputs and isinstance(remote, CopiedFolder) and _passed(findings):
        pin = partial(pin_adapter, model, inputs.parent)
    else:
        return
    try:
        with damaged(uri):
            pinned = pin()
    except (HerdbookError, OSError) as error:
        yield AGREES.error(name, error, source=uri)
    else:
        yield from _agrees(name, locked, pinned, uri)


def _files(name: str, uri: str, files: tuple[LockedFile, ...], remote: Subject) -> Iterator[Finding]:
    wrong = 0
    for file in files:
        expected = _format(file)
        try:
            actual = _there(file, remote)
        except (HerdbookError, OSError) as error:
            wrong += 1
            yield PINNED.error(name, error, source=f"{uri}#{file.name}")
            continue
        if expected != actual:
            wrong += 1
            detail = f"{file.name} of {uri} differs from what was pinned"
            yield PINNED.failed(name, detail, expected=expected, found=actual, source=f"{uri}#{file.name}")
    if not wrong:
        detail = f"all {len(files)} files exist with their pinned digests"
        if isinstance(remote, CopiedFolder):
            detail += f" in {remote.name}"
        elif remote.uri != uri:
            detail += f"; the repository is now {_repo(remote.uri)}"
        yield PINNED.passed(name, detail, source=uri)


def _passed(findings: list[Finding]) -> bool:
    return all(finding.outcome is Outcome.PASSED for finding in findings)


def _there(file: LockedFile, remote: Subject) -> str:
    """Return the digest and size of a file as it is in a source. In a local folder, it is read if it has the size that was pinned.

    Raises as ``Subject.digest``.
    """
    name = file.name
    if isinstance(remote, CopiedFolder) and (name in remote.files or name in remote.odd):
        size = remote.entry(name).size_bytes
        return f"{remote.digest(name)}, {size} bytes" if size == file.size_bytes else f"{size} bytes"
    entry = remote.files.get(name)
    return f"{entry.sha256 or entry.git_blob}, {entry.size_bytes} bytes" if entry else "no such file"


def _agrees(name: str, locked: Pinned, pinned: Pinned, uri: str) -> Iterator[Finding]:
    """Compare a lock's facts on a source or an adapter with its own."""
    fields = [field for field in type(locked).model_fields if field not in NOT_IN_A_COMMIT]
    wrong = False
    for field in fields:
        ours, theirs = (entry.model_dump(mode="json", include={field})[field] for entry in (pinned, locked))
        if ours == theirs:
            continue
        wrong = True
        where, expected, found = difference(ours, theirs, field)
        about = {"source": uri, "expected": expected, "found": found}
        if field in ADDED_LATER and field not in locked.model_fields_set:
            detail = f"the lock does not contain its {field}, as those of older versions do not"
            yield AGREES.unverified(name, detail, **about)
        else:
            yield AGREES.failed(name, f"the lock differs from the source: {where}", **about)
    if not wrong:
        yield AGREES.passed(name, f"the lock agrees with the source: {', '.join(fields)}", source=uri)


def _token_differences(
    release: Release, pinned: Mapping[str, LockedSource], beside: Path
) -> Iterator[Finding]:
    """Compare how the tokens of the sources differ with the lock, if all of them could be read."""
    locked = release.lock.token_differences
    if not release.lock.sources.keys() & release.recipe.models.keys() <= pinned.keys():
        if locked or release.lock.vocabularies:
            detail = (
                "the tokens of some sources could not be read, so how they differ was taken from the lock"
            )
            yield AGREES.unverified("token_differences", detail)
        return
    made = make_vocabularies(release.recipe, pinned, beside)
    found = compare_tokens(release.recipe, pinned, beside, vocabularies=made)
    # those of adapters are taken from the lock
    adapters = {adapter.tokens.sha256 for adapter in release.lock.adapters.values() if adapter.tokens}
    read = {source.tokens.sha256 for source in pinned.values() if source.tokens}
    read |= {own.tokens.sha256 for own in made.values()}
    yield from _compared(
        "token_differences",
        found,
        tuple(one for one in locked if read.issuperset(one.between) or not adapters & {*one.between}),
    )
    yield from _compared("vocabularies", made, release.lock.vocabularies)


def _compared(field: str, ours: Any, theirs: Any) -> Iterator[Finding]:
    """Compare what follows from the tokenizers with the lock."""
    if ours != theirs:
        pair = (to_jsonable_python(entries) for entries in (ours, theirs))
        where, expected, actual = difference(*pair)
        detail = f"the lock differs from the tokenizers: {where}"
        yield AGREES.failed(field, detail, expected=expected, found=actual)


def _repo(uri: str) -> str:
    """Return ``owner/name`` of a source that was opened by its URI."""
    commit = purl.parse(uri)
    assert commit  # noqa: S101 - other URIs are not opened
    return commit.repo


def _format(file: LockedFile) -> str:
    return f"{file.sha256 or file.git_blob}, {file.size_bytes} bytes"


def _elsewhere(uri: str, files: tuple[LockedFile, ...]) -> str:
    """Return whether the repository's main branch still has the same weights, as a sentence."""
    pinned = {file.sha256 for file in files if file.sha256}
    try:
        main = hub.resolve(_repo(uri), None)
    except HerdbookError:
        return "The repository itself cannot be read."
    present = {file.sha256 for file in main.files}
    if pinned and pinned <= present:
        return f"Its main branch, now {main.commit}, still has all pinned weights, byte for byte."
    return f"Its main branch, now {main.commit}, has {len(pinned & present)} of {len(pinned)} pinned weights files."
