"""Whether a tokenizer can be converted, from the small files of a model alone, before anything is built.

llama.cpp has code of its own for each way to split text. The converter identifies the way by a digest of the tokens of one
text, in a table that only the converter has, so it is run on the tokenizer alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.architectures.gguf_equivalent import as_converted
from herdbook.errors import RecipeError, StepError
from herdbook.files import write_json
from herdbook.layout import CONFIG
from herdbook.plan.folder import files_origin
from herdbook.steps.assemble.tokenizer import write_tokenizer
from herdbook.steps.fetch.step import make_files
from herdbook.tools.converter import CONVERTER

if TYPE_CHECKING:
    from herdbook.plan import Plan

UNKNOWN_WAY = "BPE pre-tokenizer was not recognized"  # in the converter's last line
NOT_INSTALLED = ("ModuleNotFoundError", "ImportError")


def check_vocabulary(plan: Plan) -> str | None:
    """Convert the released model's tokenizer, if the recipe quantizes the model; the files are deleted.

    Returns:
        A warning if the converter does not run here; else None.

    Raises:
        RecipeError: If the converter does not read the tokenizer, or llama.cpp would not load the GGUF.
        SourceError: If the tokenizer's files are unavailable.
    """
    if plan.recipe.gguf is None:
        return None
    name, origin = plan.released.name, files_origin(plan, plan.released)
    unchecked = f"quantize: whether llama.cpp's converter reads the tokenizer of {origin.name!r} is not known"
    try:
        from herdbook.steps.quantize.convert import missing_tokens
        from herdbook.weights.gguf_file import read_gguf

        CONVERTER.find()
    except (StepError, ModuleNotFoundError) as error:
        return f"{unchecked}, since it does not run here: {error}"
    with tempfile.TemporaryDirectory() as scratch:
        staging, converted = Path(scratch) / "model", Path(scratch) / "vocabulary.gguf"
        make_files(plan, origin, staging)
        write_json(staging / CONFIG, as_converted(plan.released.config))
        write_tokenizer(plan, plan.released, staging, staging)
        try:
            CONVERTER.run([str(staging), "--vocab-only", "--outfile", str(converted)], Path(scratch))
        except StepError as error:
            last = str(error).splitlines()[-1].strip().replace(f"{staging}/", "")
            if last.startswith(NOT_INSTALLED):
                return f"{unchecked}, since it does not run here: {last}"
            reason = f"llama.cpp's converter fails with {last}"
            if UNKNOWN_WAY in last:
                reason = "its way to split text (pre-tokenizer) is not one that llama.cpp supports"
            raise RecipeError(_refusal(name, origin.name, reason)) from error
        missing = missing_tokens(read_gguf(converted), plan.released.config)
    if missing:
        raise RecipeError(_refusal(name, origin.name, missing))
    return None


def _refusal(name: str, source: str, reason: str) -> str:
    return (
        f"quantize: {name!r} cannot be converted to GGUF with the tokenizer of {source!r}: {reason}; leave `quantize` out, or "
        "use the tokenizer of another model"
    )
