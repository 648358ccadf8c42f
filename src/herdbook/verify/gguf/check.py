"""The part of the level `claims` about GGUF files: each entry of their headers, and the list of their tensors.

Configuration and tokenizer are proven at this level; the headers' content follows from them, from the recipe and from the
tensors' shapes. The bytes of the tensors are compared by the level `recomputed`.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.errors import CheckpointError
from herdbook.plan.quantize import CONVERT_CODE, QUANTIZE_CODE
from herdbook.quantization.types import TYPES
from herdbook.release.finding import Check
from herdbook.release.reader import damaged, unread
from herdbook.release.subject import MissingError
from herdbook.verify.gguf.compare import HeaderReader, compare, lines_of
from herdbook.verify.gguf.model import Model
from herdbook.verify.gguf.recorded import recorded_types
from herdbook.verify.gguf.table import tokenizer_entries
from herdbook.weights.gguf_header import OF_A_PART, Header, own_entries, parse_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.plan import Plan, Quantized
    from herdbook.plan.code import RecordedCode
    from herdbook.release.finding import Finding
    from herdbook.release.reader import Release

_NAMES = {kind.number: name for name, kind in TYPES.items()}
ABSENT = "no such tensor"
HEADERS = Check("claims", "gguf headers")
SHOWN = 20  # wrong entries and tensors of a file that get a finding of their own


def check(plan: Plan, release: Release, code: RecordedCode) -> Iterator[Finding]:
    """Derive the header of each GGUF file of the recipe, and compare it."""
    if not plan.quantized:
        return
    excused = code.is_of_another_version and any(
        each.describe().changed_modules for each in (CONVERT_CODE, QUANTIZE_CODE)
    )
    subject = release.subject
    config = plan.released.config
    with damaged("the tokenizer's files"):
        tokenizer = tokenizer_entries(config, plan.released.files, subject.read)
    model = Model(config, tokenizer, plan.gguf_metadata)
    for planned in plan.quantized:
        try:
            headers = [parse_header(HeaderReader(subject, name), Path(name)) for name in planned.parts]
            item = recorded_types(release, planned)
        except MissingError as error:
            yield unread(HEADERS, error, release)
            continue
        header = _joined(headers)
        with damaged("what the header of a GGUF is made from"):
            try:
                entries = item.imatrix.entries if item.imatrix else {}
                one = replace(model, file_type=item.file_type, tensors=header.tensors, imatrix=entries)
                compared = compare(one, header.metadata)
            except struct.error as error:
                raise CheckpointError(f"{item.file}: its header cannot be derived: {error}") from error
        problems: list[tuple[str, str, str, str | None]] = [
            (lines_of(one), one.expected, one.found, None) for one in compared.different
        ]
        problems += list(_misfits(header, item))
        problems += list(_misplaced(headers, item))
        for detail, expected, found, tensor in problems[:SHOWN]:
            about = {"file": item.file, "expected": expected, "found": found, "tensor": tensor}
            if excused:
                yield HEADERS.unverified(item.file, f"{detail}. {code.advice}", **about)
            else:
                yield HEADERS.failed(item.file, detail, **about)
        if len(problems) > SHOWN:
            more = f"{len(problems) - SHOWN} more entries and tensors are wrong"
            yield HEADERS.unverified(item.file, more) if excused else HEADERS.failed(item.file, more)
        if not problems:
            detail = f"{len(compared.equal)} entries and {len(item.tensors)} tensors are those that follow"
            if compared.unknown:
                detail += f", all but {', '.join(compared.unknown)} (see level rebuild)"
            yield HEADERS.passed(item.file, detail, file=item.file)


def _joined(headers: list[Header]) -> Header:
    """Return the header of a file of which parts have these."""
    if len(headers) == 1:
        return headers[0]
    metadata = {key: raw for key, raw in headers[0].metadata.items() if key not in OF_A_PART}
    return Header(metadata, tuple(one for header in headers for one in header.tensors), 0)


def _misplaced(headers: list[Header], item: Quantized) -> Iterator[tuple[str, str, str, str | None]]:
    """Yield what is wrong with the parts of a file as parts: their own entries, and which tensors they have."""
    if not item.is_split:
        return
    for number, (header, run) in enumerate(zip(headers, item.runs, strict=True)):
        expected = own_entries(number, len(headers), len(item.tensors))
        found = {key: raw for key, raw in header.metadata.items() if key in expected or number}
        if found != expected:
            keys = ", ".join(
                sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
            )
            yield f"{item.parts[number]} has other entries than such a part: {keys}", "", "", None
        if (names := tuple(one.name for one in header.tensors)) != run:
            detail = f"{item.parts[number]} has other tensors than `split` gives it"
            yield detail, f"{len(run)} tensors", f"{len(names)} tensors", None


def _misfits(header: Header, item: Quantized) -> Iterator[tuple[str, str, str, str | None]]:
    """Yield what is wrong with the list of tensors: detail, expected and found value, and the tensor."""
    expected = {one.name: f"{one.type} {list(_as_listed(one.shape))}" for one in item.tensors}
    found = {one.name: f"{_NAMES.get(one.type, one.type)} {list(one.shape)}" for one in header.tensors}
    for name in sorted(expected.keys() | found.keys()):
        ours, theirs = expected.get(name), found.get(name)
        if ours is None or theirs is None:
            yield "lists a tensor that is not the model's", ours or ABSENT, theirs or ABSENT, name
        elif ours != theirs:
            yield f"has another type or shape than {item.method} gives it", ours, theirs, name
    if len(found) != len(header.tensors):
        yield "lists a tensor twice", str(len(found)), str(len(header.tensors)), None
    elif expected == found and list(expected) != list(found):
        at = next(number for number, name in enumerate(found) if name != list(expected)[number])
        yield "its tensors are not in the order of llama.cpp", list(expected)[at], list(found)[at], None


def _as_listed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape as ggml lists it, without slow extents of 1."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape
