"""Planning the importance matrix of the released model: what it is computed from, and the tensors that it is about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from herdbook.architectures.gguf_tensors import gguf_shapes
from herdbook.errors import RecipeError
from herdbook.key import SHORT, digest
from herdbook.layout import IMATRIX
from herdbook.lock import LockedHubFile
from herdbook.plan.code import TOKENIZERS, Code
from herdbook.plan.laser import calibration_text
from herdbook.quantization.tensor import ENDS, is_quantized
from herdbook.recipe.quantize import ComputedImatrix
from herdbook.sources.purl import HubCommit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.lock import Lock, LockedFile
    from herdbook.plan.code import DescribedCode
    from herdbook.plan.model import Node
    from herdbook.recipe import Recipe

_STEP = ("herdbook.steps.imatrix.step",)
IMATRIX_CODE = Code("imatrix", _STEP, packages=TOKENIZERS)
GIVEN_CODE = Code(
    "imatrix-given",
    _STEP,
    without=("herdbook.steps.imatrix.measure", "herdbook.inference.text", "torch", "transformers"),
)
# The classes that the layer-by-layer forward pass computes as transformers does; of DeepSeek's, as its family is defined.
READ = (
    *(f"{family}ForCausalLM" for family in ("Llama", "Mistral", "Qwen2", "Qwen3")),
    *(f"{family}ForCausalLM" for family in ("Mixtral", "Qwen2Moe", "Qwen3Moe", "Deepseek")),
)
LONGEST_ENTRY = 127  # bytes of a text that llama.cpp sets in a header


@dataclass(frozen=True)
class Imatrix:
    """The importance matrix of the released model.

    Args:
        name: The release's name.
        key: Digest that identifies it.
        texts: Names of the calibration texts that it is computed from; none if it is given.
        chunks: How many windows of text these have.
        given: The file of another program, pinned; None if it is computed.
        commit: Where that file is on the Hub; None if it is beside the recipe.
        floor: The fewest tokens that have to reach an expert.
        fill: Whether an expert below it takes the mean of its layer.
        tensors: The shape of each tensor of the GGUF that it is about.
        code: The code that it depends on, as ``Code.describe`` returns it.
        model: The model's key.
        parameters: What it depends on besides model and code.
    """

    name: str
    key: str
    texts: tuple[str, ...]
    chunks: int
    given: LockedFile | None
    commit: HubCommit | None
    floor: int
    fill: bool
    tensors: Mapping[str, tuple[int, ...]] = field(hash=False)
    code: DescribedCode
    model: str
    parameters: Mapping[str, Any] = field(hash=False)

    @property
    def id(self) -> str:
        """Name of its files below ``results/imatrix``, without suffixes."""
        return f"{self.name}-{self.key[:SHORT]}"

    @property
    def file(self) -> str:
        """Its name in the release."""
        return f"{self.name}{IMATRIX}"

    @property
    def about(self) -> dict[str, Any]:
        """What its record states about how it was made, as JSON."""
        return {
            "operation": "imatrix",
            "key": self.key,
            "model": self.model,
            "name": self.file,
            "parameters": dict(self.parameters),
            "code": self.code.json,
        }

    @property
    def entries(self) -> dict[str, str | int]:
        """What llama.cpp adds to the header of a file that is quantized with it, in its order."""
        texts = {"file": self.file, "dataset": self.parameters["names"][0]}
        entries: dict[str, str | int] = {
            key: text.encode()[:LONGEST_ENTRY].decode(errors="ignore") for key, text in texts.items()
        }
        entries["entries_count"] = len(self.tensors)
        if self.chunks:
            entries["chunks_count"] = self.chunks
        return {f"quantize.imatrix.{key}": value for key, value in entries.items()}


def plan_imatrix(recipe: Recipe, lock: Lock, released: Node) -> Imatrix | None:
    """Return the importance matrix of the released model; None if the recipe requests none."""
    wanted = recipe.quantize.imatrix if recipe.quantize else None
    if wanted is None:
        return None
    computed = isinstance(wanted, ComputedImatrix)
    given, commit = (None, None) if computed else _pinned(lock)
    texts = tuple(wanted.texts) if isinstance(wanted, ComputedImatrix) else ()
    code = (IMATRIX_CODE if computed else GIVEN_CODE).describe()
    parameters = {
        "texts": [calibration_text(name, recipe, lock).parameters for name in texts],
        **({} if computed else {"given": given.sha256 if given else None}),
        # they are in the matrix, and the first is in the headers of files that are made with it
        "names": list(texts) or [str(given and given.name).rpartition("/")[2]],
        "floor": wanted.floor,
        "below": wanted.below,
    }
    key = digest({"operation": "imatrix", "model": released.key, **parameters, "code": code.json})
    return Imatrix(
        recipe.release.name,
        key,
        texts,
        sum(recipe.calibration[name].windows for name in texts),
        given,
        commit,
        wanted.floor,
        wanted.below == "mean",
        matrix_tensors(released),
        code,
        released.key,
        parameters,
    )


def _pinned(lock: Lock) -> tuple[LockedFile | None, HubCommit | None]:
    """Return the file that a lock pins, and where it is on the Hub."""
    if not isinstance(lock.imatrix, LockedHubFile):
        return lock.imatrix, None
    repo = str(lock.imatrix.asked["hub"]).partition("@")[0]
    return lock.imatrix.file, HubCommit(repo, lock.imatrix.revision)


def matrix_tensors(released: Node) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a model's GGUF that an importance matrix is about: the matrices of its layers."""
    shapes = {name: tensor.shape for name, (_, tensor) in released.tensors.items()}
    found = gguf_shapes(released.config, shapes, released.name)
    return {name: shape for name, shape in found.items() if is_quantized(name, shape) and name not in ENDS}


def check_imatrix(recipe: Recipe, released: Node) -> None:
    """Check that an importance matrix can be computed. Raises RecipeError if not."""
    wanted = recipe.quantize.imatrix if recipe.quantize else None
    architecture = (released.config.get("architectures") or [""])[0]
    if isinstance(wanted, ComputedImatrix) and architecture not in READ:
        raise RecipeError(
            f"quantize.imatrix: it is not computed for {architecture}, only for {', '.join(READ)}; give the `file` of one that "
            "llama-imatrix has computed"
        )
