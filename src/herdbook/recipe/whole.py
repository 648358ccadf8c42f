"""A whole recipe: a graph of models, each made in exactly one way, and what is released from it."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

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
    def _references_exist(self) -> Recipe:
        problems = [
            f"{where}: no model is named {name!r}{did_you_mean(name, self.models)}"
            for where, name in _references(self)
            if name not in self.models
        ]
        problems += _cycles(self) if not problems else []
        if len(set(self.evaluate.models if self.evaluate else [])) != len(
            self.evaluate.models if self.evaluate else []
        ):
            problems.append("evaluate.models: a model is named twice")
        problems += evaluate_problems(self.evaluate) if self.evaluate else []
        problems += claim_problems(self.claims, self.leaderboards, self.evaluate, self.release.model)
        problems += mark_problems(self.marks, self.evaluate, self.release.model)
        problems += quantize_problems(self.quantize) if self.quantize else []
        if self.quantize and self.quantize.loss:
            labels = [*(file.label for file in self.quantize.files), *self.quantize.schemes]
            problems += loss_problems(self.quantize.loss, labels, self.calibration, made_of_texts(self))
        problems += _gguf_repo_problems(self)
        problems += _scheme_repo_problems(self)
        problems += benchmark_problems(self.benchmarks, self.evaluate, self.release.model)
        for name, model in self.models.items():
            problems += mixture_problems(f"models.{name}.moe", model.moe) if isinstance(model, Moe) else []
            problems += (
                merge_problems(f"models.{name}.merge", model.merge) if isinstance(model, Merge) else []
            )
            problems += _tokenizer_problems(name, model, self.models)
            if search := search_of(model):
                problems += search_problems(f"models.{name}.search", model, search, parents)
        problems += [
            f"models.{name}.calibration: no calibration is named {model.calibration!r}"
            f"{did_you_mean(str(model.calibration), self.calibration)}"
            for name, model in self.models.items()
            if isinstance(model, Laser) and model.calibration and model.calibration not in self.calibration
        ]
        for index, text in enumerate(self.routing.texts if self.routing else []):
            if text not in self.calibration:
                problems.append(
                    f"routing.texts.{index}: no calibration is named {text!r}{did_you_mean(text, self.calibration)}"
                )
        matrix = self.quantize.imatrix if self.quantize else None
        for index, text in enumerate(matrix.texts if isinstance(matrix, ComputedImatrix) else []):
            if text not in self.calibration:
                problems.append(
                    f"quantize.imatrix.texts.{index}: no calibration is named {text!r}{did_you_mean(text, self.calibration)}"
                )
        if self.routing and not isinstance(self.models.get(self.release.model), Moe):
            problems.append(
                f"routing: {self.release.model!r} is not a mixture, so it has no routers; leave `routing` out"
            )
        for name, board in self.leaderboards.items():
            if board.row:
                continue
            if self.evaluate is None:
                problems.append(
                    f"leaderboards.{name}: the recipe has no `evaluate`, which gives the model its score"
                )
            elif self.release.model not in self.evaluate.models:
                problems.append(
                    f"leaderboards.{name}: evaluate.models does not measure {self.release.model!r}"
                )
        if problems:
            raise ValueError("\n".join(problems))
        return self


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
        (f"models.{name}", parent) for name, model in recipe.models.items() for parent in parents(model)
    ]
    references.append(("release.model", recipe.release.model))
    if recipe.evaluate:
        references += [
            (f"evaluate.models.{index}", name) for index, name in enumerate(recipe.evaluate.models)
        ]
    return references


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
