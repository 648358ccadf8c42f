"""Every release that a test builds is loaded by transformers itself, which must miss nothing, and find nothing else.

It must also cut texts into the tokens that the release's tokenizer says.

The release step is followed by this in the processes that are forked for tests, and in `tiny.release`. Releases that differ in
nothing that decides it, which are many, are loaded once in a test run.
"""

import functools
import hashlib
import json
import os
from pathlib import Path

from herdbook.architectures.mixtures import BY_MODEL_TYPE
from herdbook.inference.agreement import disagreement
from herdbook.quantization.schemes import scheme_of
from herdbook.weights.loading import loading_problems
from support import forkserver


def loads_whole(folder):
    """Have transformers load a model's folder; an AssertionError says what it did not find, or did not need."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    model_class = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
    _, report = model_class.from_pretrained(folder, output_loading_info=True, dtype="auto")
    left = {kind: sorted(map(str, found)) for kind, found in report.items() if found}
    assert not left, f"{folder}: transformers does not load it whole: {left}"


def checked(release):
    """Return the release step, followed by the check of what it made."""

    @functools.wraps(release)
    def step(plan):
        release(plan)
        check(plan.layout.release_folder)

    return step


def check(folder):
    """Check that a release loads whole, unless one like it was checked in this test run."""
    tokenizer = [path.read_bytes() for path in sorted(folder.glob("tokenizer*"))]
    headers = {path.name: _header(path) for path in sorted(folder.glob("*.safetensors"))}
    config = (folder / "config.json").read_bytes()
    index = [path.read_bytes() for path in folder.glob("*.index.json")]
    if not _is_first(repr([headers, config, index, tokenizer])):
        return
    family = BY_MODEL_TYPE.get(json.loads(config)["model_type"])
    scheme = scheme_of(json.loads(config))
    if (family and not family.loadable) or (
        scheme and scheme.library == "mlx"
    ):  # transformers does not have it
        tensors = {name: entry for header in headers.values() for name, entry in json.loads(header).items()}
        shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items() if name != "__metadata__"}
        assert loading_problems(json.loads(config), shapes) == []
    else:
        loads_whole(folder)
    if tokenizer:
        found = disagreement(folder)
        assert not found.keys() & {"text", "error"}, f"{folder}: transformers reads other tokens: {found}"


def _header(path):
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


def _is_first(text):
    """Return whether no process of this test run has asked about this text."""
    if forkserver.ADDRESS not in os.environ:  # no test run
        return True
    marks = Path(os.environ[forkserver.ADDRESS]).parent / "loaded"
    marks.mkdir(exist_ok=True)
    try:
        (marks / hashlib.sha256(text.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
