"""The path of every file below the results folder, and the name of every file in a release. Defined here only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

# -- the names in a release --------------------------------------------------------------------------------------------

WEIGHTS = "model.safetensors"  # of a model in one file
WEIGHTS_INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
RECIPE = "recipe.yaml"
RECIPE_SUFFIXES = {".yaml", ".yml"}
LOCK = "recipe.lock.json"
CARD = "README.md"
FIGURES = "figures"
LINEAGE_FIGURE = f"{FIGURES}/lineage.svg"
MEASUREMENTS_FIGURE = f"{FIGURES}/measurements.svg"
SPECTRUM_FIGURE = f"{FIGURES}/spectrum.svg"
ROUTING_FIGURE = f"{FIGURES}/routing.svg"
RECORDS = "provenance/records"
SEARCHES = "provenance/searches"
EVALUATIONS = "provenance/evaluations"
EVAL_RESULTS = ".eval_results"  # where the Hub looks for results of its benchmarks
COMPARISONS = "provenance/comparisons.json"
SAMPLES_SUFFIX = ".samples.jsonl.bz2"
ROUTING = "provenance/routing"
LOSSES = "provenance/losses"
INPUTS = "provenance/inputs"
NOTICE = "NOTICE"  # what the sources' licenses want to be handed on
LICENSE_TEXTS = "licenses"
LINEAGE = "provenance/lineage.jsonl"
BOMS = {"1.6": "provenance/bom-1.6.cdx.json", "1.7": "provenance/bom-1.7.cdx.json"}  # by CycloneDX's version
SUMS = "SHA256SUMS"
CLAIMS = "claims.jsonl"
SIGNATURE = "model.sig"
PUBLIC_KEY = "model.sig.pub"

IMATRIX = ".imatrix.gguf"  # the end of the name of an importance matrix

OUTSIDE_SUMS = frozenset({SUMS, CLAIMS, SIGNATURE, PUBLIC_KEY})  # what is about the sums, or signs them


def is_large(name: str) -> bool:
    """Return whether a file of a release contains weights: those are linked, never copied."""
    return name.endswith((".safetensors", ".gguf"))


def input_file(name: str, sha256: str) -> str:
    """Return the name in a release of an input file beside the recipe.

    Args:
        name: Its path in the lock; it may lead out of the recipe's folder.
        sha256: Its digest.
    """
    return f"{INPUTS}/{sha256[:12]}-{name.rpartition('/')[2]}"


def license_text(source: str, name: str) -> str:
    """Return the name of a license text of a source in a release."""
    return f"{LICENSE_TEXTS}/{source}/{name}"


def eval_results(task: str) -> str:
    """Return the name of the file with the result of a benchmark of the Hub."""
    return f"{EVAL_RESULTS}/{task}.yaml"


def image_file(name: str) -> str:
    """Return the name in a release of the picture on the card, by the name of its file beside the recipe."""
    return f"{FIGURES}/image.{name.rpartition('.')[2]}"


def heat_map(model: str) -> str:
    """Return the name of the figure of the ranks that LASER kept in a model."""
    return f"{FIGURES}/laser-{model}.svg"


# -- the paths below the results folder --------------------------------------------------------------------------------

# Folders of files with a key in their names, of all recipes; and what the folder of a release contains.
KEYED_FOLDERS = (
    "shards",
    "searches",
    "models",
    "data",
    "evaluations",
    "routing",
    "imatrix",
    "quantized",
    "losses",
)
STATES, DECOMPOSITIONS, SPENT = "states", "decompositions", "spent"
MADE = ".made"  # hidden, so that no release has its name
OF_A_RELEASE = frozenset({"card", "release", "verification.json", "report.html", "publication.json"})


class Named(Protocol):
    """Something with files of its own below the results folder. Its id, which contains its key, is their name."""

    @property
    def id(self) -> str:
        """The name, without a suffix."""


@dataclass(frozen=True)
class Layout:
    """The paths below the results folder.

    Args:
        root: The results folder.
        release: Name of the release.
    """

    root: Path
    release: str

    def shard(self, part: Named) -> Path:
        """Return the path of a part's weights."""
        return self.root / "shards" / f"{part.id}.safetensors"

    def record(self, part: Named) -> Path:
        """Return the path of a part's record."""
        return self.root / "shards" / f"{part.id}.json"

    def search(self, search: Named) -> Path:
        """Return the path of a search's result: the chosen ranks, and every trial."""
        return self.root / "searches" / f"{search.id}.json"

    def journal(self, search: Named) -> Path:
        """Return the path of the trials of a search that has not ended."""
        return self.root / "searches" / f"{search.id}.trials.jsonl"

    def scratch(self, search: Named) -> Path:
        """Return the folder of a search's temporary files."""
        return self.root / "searches" / f"{search.id}.states"

    @property
    def running(self) -> Path:
        """Return the path of the file that a build locks while it runs."""
        return self.root / ".running"

    @property
    def decompositions(self) -> Path:
        """Return the folder of decompositions, which all models share."""
        return self.root / DECOMPOSITIONS

    def states(self, model: str) -> Path:
        """Return the folder of what prompts become inside a model, by the model's key."""
        return self.root / STATES / model

    def folder(self, node: Named) -> Path:
        """Return the path of a model's folder, as transformers loads it."""
        return self.root / "models" / node.id

    def data(self, item: Named, repo: str, name: str) -> Path:
        """Return the path of a file of a data set on the Hub."""
        return self.root / "data" / item.id / repo.replace("/", "--") / name

    def data_record(self, item: Named) -> Path:
        """Return the path of what tasks find in data sets: how many documents each has."""
        return self.root / "data" / f"{item.id}.json"

    def evaluation(self, item: Named) -> Path:
        """Return the path of a measurement."""
        return self.root / "evaluations" / f"{item.id}.json"

    def samples(self, item: Named) -> Path:
        """Return the path of what a measurement found document by document."""
        return self.root / "evaluations" / f"{item.id}{SAMPLES_SUFFIX}"

    def answers(self, item: Named) -> Path:
        """Return the path of the answers of a measurement that has not ended."""
        return self.root / "evaluations" / f"{item.id}.answers.jsonl"

    def report(self, report: Named) -> Path:
        """Return the path of a report on routers."""
        return self.root / "routing" / f"{report.id}.json"

    def matrix(self, item: Named) -> Path:
        """Return the path of an importance matrix."""
        return self.root / "imatrix" / f"{item.id}{IMATRIX}"

    def matrix_record(self, item: Named) -> Path:
        """Return the path of an importance matrix's record."""
        return self.root / "imatrix" / f"{item.id}.json"

    def header(self, conversion: Named) -> Path:
        """Return the path of the header that all quantized files of a model share, a GGUF without tensors."""
        return self.root / "quantized" / f"{conversion.id}.header.gguf"

    def quantized(self, item: Named) -> Path:
        """Return the path of a quantized file."""
        return self.root / "quantized" / f"{item.id}.gguf"

    def quantized_record(self, item: Named) -> Path:
        """Return the path of a quantized file's record: each tensor's digest and origin."""
        return self.root / "quantized" / f"{item.id}.json"

    def reference(self, item: Named) -> Path:
        """Return the path of what the released model predicts for texts, against which losses are measured."""
        return self.root / "losses" / f"{item.id}.npy"

    def reference_record(self, item: Named) -> Path:
        """Return the path of the record of that."""
        return self.root / "losses" / f"{item.id}.json"

    def loss(self, item: Named) -> Path:
        """Return the path of the loss of a quantized file."""
        return self.root / "losses" / f"{item.id}.json"

    def spent(self, rule: str, id_: str) -> Path:
        """Return the path of the note of what a job took."""
        return self.root / SPENT / rule / f"{id_ or rule}.json"

    def made(self, rule: str, id_: str) -> Path:
        """Return the path of the note of what a job made; of a job without an id, it is that of the release."""
        return self.root / MADE / rule / f"{id_ or self.release}.json"

    @property
    def release_folder(self) -> Path:
        """Folder that holds exactly what is uploaded."""
        return self.root / self.release / "release"

    @property
    def card_folder(self) -> Path:
        """Folder of the card and its figures."""
        return self.root / self.release / "card"

    @property
    def verification(self) -> Path:
        """Path of the report of the release's verification."""
        return self.root / self.release / "verification.json"

    @property
    def page(self) -> Path:
        """Path of the page on the release and its verification."""
        return self.root / self.release / "report.html"

    @property
    def publication(self) -> Path:
        """Path of the note on where the release was published."""
        return self.root / self.release / "publication.json"
