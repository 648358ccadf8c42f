"""A whole recipe: a graph of models, each made in exactly one way, and what is released from it."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag, ValidationInfo, model_validator

from herdbook.graph import reachable
from herdbook.humanize import did_you_mean, parse_size
from herdbook.recipe.benchmarks import Benchmark, benchmark_problems
from herdbook.recipe.card import Card
from herdbook.recipe.compress import Compress
from herdbook.recipe.dense import Merge
from herdbook.recipe.evaluate import Evaluate, Mark, evaluate_problems, mark_problems
from herdbook.recipe.laser import Calibration, Laser
from herdbook.recipe.loss import loss_problems
from herdbook.recipe.merge_problems import merge_problems
from herdbook.recipe.moe import Moe, mixture_problems
from herdbook.recipe.publish import Publish
from herdbook.recipe.quantize import ComputedImatrix, Quantize, quantize_problems
from herdbook.recipe.ranks import Claim, Leaderboard, claim_problems
from herdbook.recipe.references import places_of
from herdbook.recipe.release import Release, Routing
from herdbook.recipe.search import Search, search_problems
from herdbook.recipe.section import Name, Section
from herdbook.recipe.source import Adapter, Folder, Hub, Pypi
from herdbook.recipe.tokenizer import Tokenizer, keeper, named, tokenizer_problems

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from herdbook.quantization.scheme import SchemeName

SHARD_SIZE_PATTERN = r"^[1-9][0-9]*(KB|MB|GB)$"

OPERATIONS: dict[str, type[Section]] = {
    "hub": Hub,
    "folder": Folder,
    "pypi": Pypi,
    "laser": Laser,
    "adapter": Adapter,
    "merge": Merge,
    "moe": Moe,
}


def _operation(value: Any) -> str | None:
    if isinstance(value, Section):
        return type(value).__name__
    sections = [section for key, section in OPERATIONS.items() if isinstance(value, dict) and key in value]
    return sections[0].__name__ if len(sections) == 1 else None


Model = Annotated[
    Annotated[Hub, Tag("Hub")]
    | Annotated[Folder, Tag("Folder")]
    | Annotated[Pypi, Tag("Pypi")]
    | Annotated[Laser, Tag("Laser")]
    | Annotated[Adapter, Tag("Adapter")]
    | Annotated[Merge, Tag("Merge")]
    | Annotated[Moe, Tag("Moe")],
    Discriminator(
        _operation,
        custom_error_type="model_operation",
        custom_error_message=f"a model is made in exactly one way: give one of {', '.join(OPERATIONS)}",
    ),
]


class Recipe(Section):
    """A whole recipe."""

    models: dict[Name, Model] = Field(min_length=1)
    release: Release
    evaluate: Evaluate | None = None
    marks: list[Mark] = Field([])
    benchmarks: list[Benchmark] = Field([])
    routing: Routing | None = None
    quantize: Quantize | None = None
    leaderboards: dict[Name, Leaderboard] = Field({})
    calibration: dict[Name, Calibration] = Field({})
    claims: list[Claim] = Field([])
    publish: Publish = Field(Publish())
    card: Card = Field(Card())
    shard_size: str = Field(
        "2GB",
        pattern=SHARD_SIZE_PATTERN,
        description="approximate size of weights files (KB, MB, GB: decimal)",
    )

    @property
    def shard_bytes(self) -> int:
        """Largest size of a shard in bytes, unless one tensor alone is larger."""
        return parse_size(self.shard_size)

    @property
    def schemes(self) -> tuple[SchemeName, ...]:
        """The formats for GPU servers and Macs that the released model is made in."""
        return tuple(self.quantize.schemes) if self.quantize else ()

    @property
    def gguf(self) -> Quantize | None:
        """The section on quantized files, if it has files in GGUF."""
        return self.quantize if self.quantize and self.quantize.methods else None

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Recipe:
        about = info.context or {}
        problems = [] if about.get("form_only") else incoherences(self, about.get("missing", frozenset()))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def incoherences(recipe: Recipe, missing: Collection[str] = ()) -> list[str]:
    """Return what is wrong with what the entries of a recipe mean together, one line each.

    Args:
        recipe: The recipe.
        missing: Sections, and models as ``models.NAME``, whose own form is wrong, so that something else is in their place. What
            depends on them is not checked.
    """

    def has(*sections: str) -> bool:
        return not any(section in missing for section in sections)

    released = recipe.release.model
    problems = [
        f"{where}: no model is named {name!r}{did_you_mean(name, recipe.models)}"
        for where, name in _references(recipe)
        if name not in recipe.models
    ]
    problems += _cycles(recipe)
    problems += evaluate_problems(recipe.evaluate) if recipe.evaluate else []
    if has("leaderboards", "evaluate", "release"):
        problems += claim_problems(recipe.claims, recipe.leaderboards, recipe.evaluate, released)
        problems += _leaderboard_problems(recipe)
    if has("evaluate", "release"):
        problems += mark_problems(recipe.marks, recipe.evaluate, released)
        problems += benchmark_problems(recipe.benchmarks, recipe.evaluate, released)
    problems += quantize_problems(recipe.quantize) if recipe.quantize else []
    if recipe.quantize and recipe.quantize.loss and has("calibration"):
        labels = [*(file.label for file in recipe.quantize.files), *recipe.quantize.schemes]
        problems += loss_problems(recipe.quantize.loss, labels, recipe.calibration, made_of_texts(recipe))
    if has("quantize", "release"):
        problems += _gguf_repo_problems(recipe)
        problems += _scheme_repo_problems(recipe) if has("publish") else []
    for name, model in recipe.models.items():
        problems += mixture_problems(f"models.{name}.moe", model.moe) if isinstance(model, Moe) else []
        problems += merge_problems(f"models.{name}.merge", model.merge) if isinstance(model, Merge) else []
        problems += _tokenizer_problems(name, model, recipe.models)
        if search := search_of(model):
            problems += search_problems(f"models.{name}.search", model, search, parents)
    problems += _calibration_problems(recipe) if has("calibration") else []
    if (
        recipe.routing
        and has("release", f"models.{released}")
        and released in recipe.models
        and not isinstance(recipe.models[released], Moe)
    ):
        problems.append(f"routing: {released!r} is not a mixture, so it has no routers; leave `routing` out")
    return problems


def parents(model: Section) -> tuple[str, ...]:
    """Return the names of the models that ``model`` is made from, in the recipe's order, with repetitions."""
    match model:
        case Laser():
            return (model.laser,)
        case Adapter():
            return (model.on,)
        case Compress():
            return (model.compress,)
        case Merge():
            return (*model.merge.inputs, *named(model.merge.tokenizer))
        case Moe():
            moe = model.moe
            return (moe.base, *(expert.model for expert in moe.all_experts), *named(moe.tokenizer))
        case _:
            return ()


def search_of(model: Section) -> Search | None:
    """Return the search over a model's entry; None if it has none."""
    return model.search if isinstance(model, Laser | Merge | Moe) else None


def searched(recipe: Recipe) -> list[str]:
    """Return the names of models with searches; those that others are made from come first."""
    order = TopologicalSorter({name: parents(model) for name, model in recipe.models.items()}).static_order()
    return [name for name in order if search_of(recipe.models[name])]


def without_searches(recipe: Recipe) -> Recipe:
    """Return a recipe whose models are as they are written, without searches."""
    models = {
        name: model.model_copy(update={"search": None}) if search_of(model) else model
        for name, model in recipe.models.items()
    }
    return recipe.model_copy(update={"models": models})


def keeper_of(model: Section) -> str | None:
    """Return the model whose tokenizer and generation config a model takes over, or starts from; None for a source."""
    match model:
        case Laser():
            return model.laser
        case Adapter():
            return model.on
        case Compress():
            return model.compress
        case Merge():
            return keeper(model.merge.tokenizer, model.merge.inputs[0])
        case Moe():
            return keeper(model.moe.tokenizer, model.moe.base)
        case _:
            return None


def tokenizer_of(model: Section) -> Tokenizer | None:
    """Return the section of a merge or a mixture that makes a vocabulary or a chat template of its own."""
    match model:
        case Merge():
            tokenizer = model.merge.tokenizer
        case Moe():
            tokenizer = model.moe.tokenizer
        case _:
            return None
    return tokenizer if isinstance(tokenizer, Tokenizer) else None


def ancestry(recipe: Recipe, *models: str) -> list[str]:
    """Return the names of ``models`` and of all their ancestors: in the order given, the nearest first."""
    return reachable(models, lambda name: parents(recipe.models[name]))


def made_of_texts(recipe: Recipe) -> dict[str, str]:
    """Return the texts that something is made of: by name of the text, the first place in the recipe that uses it so."""
    used: dict[str, str] = {}
    for name, model in recipe.models.items():
        if isinstance(model, Laser) and model.calibration:
            used.setdefault(model.calibration, f"models.{name}")
    matrix = recipe.quantize.imatrix if recipe.quantize else None
    for name in matrix.texts if isinstance(matrix, ComputedImatrix) else ():
        used.setdefault(name, "quantize.imatrix")
    return used


def _calibration_problems(recipe: Recipe) -> Iterator[str]:
    named = [
        (f"models.{name}.calibration", model.calibration)
        for name, model in recipe.models.items()
        if isinstance(model, Laser) and model.calibration
    ]
    texts = recipe.routing.texts if recipe.routing else []
    named += [(f"routing.texts.{index}", text) for index, text in enumerate(texts)]
    matrix = recipe.quantize.imatrix if recipe.quantize else None
    texts = matrix.texts if isinstance(matrix, ComputedImatrix) else []
    named += [(f"quantize.imatrix.texts.{index}", text) for index, text in enumerate(texts)]
    for where, text in named:
        if text not in recipe.calibration:
            yield f"{where}: no calibration is named {text!r}{did_you_mean(text, recipe.calibration)}"


def _leaderboard_problems(recipe: Recipe) -> Iterator[str]:
    for name, board in recipe.leaderboards.items():
        if board.row:
            continue
        if recipe.evaluate is None:
            yield f"leaderboards.{name}: the recipe has no `evaluate`, which gives the model its score"
        elif recipe.release.model not in recipe.evaluate.models:
            yield f"leaderboards.{name}: evaluate.models does not measure {recipe.release.model!r}"


def _tokenizer_problems(name: str, model: Section, models: Collection[str]) -> Iterator[str]:
    match model:
        case Merge(merge=merge):
            inputs = merge.inputs
            yield from tokenizer_problems(f"models.{name}.merge", merge.tokenizer, inputs[0], inputs, models)
        case Moe(moe=moe):
            inputs = (moe.base, *(expert.model for expert in moe.all_experts))
            yield from tokenizer_problems(f"models.{name}.moe", moe.tokenizer, moe.base, inputs, models)
        case _:
            pass


def _gguf_repo_problems(recipe: Recipe) -> Iterator[str]:
    repo = recipe.publish.gguf_repo
    if repo is None:
        return
    if recipe.gguf is None:
        yield "publish.gguf_repo: the recipe has no `quantize.methods`, so there are no files for it"
    if recipe.release.repo is None:
        yield "publish.gguf_repo: needs `release.repo`, the repository of the weights that its files are made from"
    elif recipe.release.repo.lower() == repo.lower():
        yield "publish.gguf_repo: is the repository of the release; name another one, or leave it out"


def _scheme_repo_problems(recipe: Recipe) -> Iterator[str]:
    taken = {
        repo.lower(): where
        for where, repo in (
            ("release.repo", recipe.release.repo),
            ("publish.gguf_repo", recipe.publish.gguf_repo),
        )
        if repo
    }
    for scheme, repo in recipe.publish.scheme_repos.items():
        where = f"publish.scheme_repos.{scheme}"
        if scheme not in recipe.schemes:
            yield f"{where}: quantize.schemes does not name it, so there is nothing to publish"
        if recipe.release.repo is None:
            yield f"{where}: needs `release.repo`, the repository of the model that is encoded"
        if repo.lower() in taken:
            yield f"{where}: is {taken[repo.lower()]}, too; name another repository"
        taken.setdefault(repo.lower(), where)
    for scheme in recipe.schemes if recipe.release.repo else ():
        if scheme not in recipe.publish.scheme_repos:
            yield (
                f"publish.scheme_repos: names no repository for {scheme}, and all releases of a build are published together; name one, "
                "such as owner/NAME-FP8"
            )


def _references(recipe: Recipe) -> list[tuple[str, str]]:
    references = [
        pair
        for name, model in recipe.models.items()
        for pair in places_of(parents(model), f"models.{name}", model)
    ]
    references.append(("release.model", recipe.release.model))
    measured = recipe.evaluate.models if recipe.evaluate else ()
    return [*references, *((f"evaluate.models.{index}", name) for index, name in enumerate(measured))]


def _cycles(recipe: Recipe) -> list[str]:
    try:
        TopologicalSorter({name: parents(model) for name, model in recipe.models.items()}).prepare()
    except CycleError as error:
        # graphlib lists parents first, and its first model also last.
        cycle = error.args[1][:0:-1]
        first = min(range(len(cycle)), key=lambda index: list(recipe.models).index(cycle[index]))
        path = [*cycle[first:], *cycle[:first], cycle[first]]
        return [f"models: a model cannot be made from itself: {' -> '.join(path)}"]
    return []
