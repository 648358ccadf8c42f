"""A search over what a model's entry contains: its numbers, choices and orders, by trial on a validation split.

All that is searched has a place between 0 and 1, so that an optimizer needs to know nothing else of it. A point is a tuple of such
places; the start is the point of the recipe as it is written. (LASER's own search, over matrices and ranks, is in ``laser``.)
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, JsonValue, Tag, ValidationError, model_validator

from herdbook.faults import told
from herdbook.humanize import did_you_mean
from herdbook.recipe.evaluate import AskedTask
from herdbook.recipe.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

PLACES = 4  # decimals of a place: a point is written down as it was tried
DIGITS = 6  # significant digits of a searched number
MOST = 50  # dimensions: with more, trials of which there are few find nothing
MOST_TRIALS = 10_000  # which everyone who verifies proposes again
Path = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][\w.-]*$")]
Point = tuple[float, ...]


class SearchedNumber(Section):
    """A number, or all numbers of a list."""

    path: Path = Field(
        description="where it is in the model's entry, such as merge.models.0.weight or merge.t"
    )
    low: float = Field(allow_inf_nan=False, description="the smallest number that is tried")
    high: float = Field(allow_inf_nan=False, description="the largest number that is tried")


class SearchedChoice(Section):
    """A value of which there are several, such as the prompts of an expert."""

    path: Path = Field(description="where it is in the model's entry, such as moe.experts.0.prompts")
    choices: list[JsonValue] = Field(
        min_length=2, description="what is tried; the value in the model's entry is one of them"
    )


class SearchedOrder(Section):
    """A list whose items are tried in other orders, such as the experts of a mixture."""

    order: Path = Field(description="where the list is in the model's entry, such as moe.experts")


def _kind(value: Any) -> str:
    if isinstance(value, Section):
        return type(value).__name__
    given = value if isinstance(value, dict) else {}
    kinds = {"choices": SearchedChoice, "order": SearchedOrder}
    return next((kind for key, kind in kinds.items() if key in given), SearchedNumber).__name__


Searched = SearchedNumber | SearchedChoice | SearchedOrder
Item = Annotated[
    Annotated[SearchedNumber, Tag("SearchedNumber")]
    | Annotated[SearchedChoice, Tag("SearchedChoice")]
    | Annotated[SearchedOrder, Tag("SearchedOrder")],
    Discriminator(_kind),
]


class Search(Section):
    """Finds numbers of a model by trial: `herdbook tune` tries them, and writes what it found into the lock."""

    over: list[Item] = Field(
        min_length=1, description="what is searched: {path, low, high}, {path, choices} or {order: path}"
    )
    metric: str = Field(
        description="the metric of both tasks, such as bits_per_byte or acc; its task states which results are better"
    )
    validation: str | AskedTask = Field(
        description="the task by which trials are judged; of text that is not tested on"
    )
    test: str | AskedTask = Field(
        description="the task on which the winner has to be better than the start, by the paired test at the 5 % level; no other "
        "trial is measured on it"
    )
    generations: int = Field(ge=1, le=1000, description="how often the optimizer learns from trials")
    population: int = Field(
        ge=4, le=1000, description="trials of a generation, which run independently of each other"
    )
    step: float = Field(
        0.2,
        gt=0,
        le=1,
        description="standard deviation of the first generation around the start, as a share of each range",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the trials")

    @model_validator(mode="after")
    def _few(self) -> Search:
        if self.trials > MOST_TRIALS:
            raise ValueError(
                f"generations x population are {self.trials - 1:,} trials, over the limit of {MOST_TRIALS:,}"
            )
        return self

    @property
    def trials(self) -> int:
        """The number of trials: the start, and those of all generations."""
        return 1 + self.generations * self.population

    @property
    def tasks(self) -> tuple[AskedTask, AskedTask]:
        """The tasks of validation and test."""
        first, second = (
            AskedTask(task=one) if isinstance(one, str) else one for one in (self.validation, self.test)
        )
        return first, second


class Space:
    """What is searched of one model.

    Attributes:
        start: The point of the entry as it is written.
        names: For each dimension, what it is a place of.

    Args:
        model: The model's entry, with its search.
        search: The search.

    Raises:
        ValueError: If something is not in the entry, or cannot be searched; each problem has a line.
    """

    def __init__(self, model: Section, search: Search) -> None:
        self._kind = type(model)
        self._entry = model.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"search"})
        self._dimensions: list[tuple[Searched, list[list[str | int]]]] = []
        start: list[float] = []
        names: list[str] = []
        problems: list[str] = []
        for index, item in enumerate(search.over):
            try:
                keys, places = self._found(item)
            except ValueError as error:
                problems.append(f"over.{index}: {error}")
                continue
            self._dimensions.append((item, keys))
            start += places
            text = [".".join(map(str, one)) for one in keys]
            names += (
                [f"{text[0]}[{place}]" for place in range(len(places))]
                if isinstance(item, SearchedOrder)
                else text
            )
        self.start: Point = tuple(round(place, PLACES) for place in start)
        self.names = tuple(names)
        problems += [f"over: {problem}" for problem in self._twice()]
        if len(names) > MOST:
            problems.append(f"over: has {len(names)} numbers, over the limit of {MOST}")
        problems = problems or list(self._limits())
        if problems:
            raise ValueError("\n".join(problems))

    def values(self, point: Sequence[float]) -> dict[str, JsonValue]:
        """Return what is searched, by its path, at a point."""
        if tuple(point) == self.start:  # as it is written, to the last digit
            return {name: value for name, (_, value) in self._written().items()}
        found: dict[str, JsonValue] = {}
        rest = list(point)
        for item, keys in self._dimensions:
            match item:
                case SearchedNumber():
                    for one in keys:
                        number = item.low + rest.pop(0) * (item.high - item.low)
                        found[_text(one)] = float(f"{number:.{DIGITS}g}")
                case SearchedChoice():
                    count = len(item.choices)
                    found[_text(keys[0])] = item.choices[min(int(rest.pop(0) * count), count - 1)]
                case SearchedOrder():
                    items = _at(self._entry, keys[0])
                    places, rest = rest[: len(items)], rest[len(items) :]
                    found[_text(keys[0])] = [
                        items[place] for place in sorted(range(len(items)), key=places.__getitem__)
                    ]
        return found

    def model(self, point: Sequence[float]) -> Section:
        """Return the model's entry at a point, without a search. Raises ValidationError if it is not one."""
        return self._kind.model_validate(self._entry_at(point))

    def refusal(self, point: Sequence[float]) -> str | None:
        """Return why the model's entry at a point is none, in a line; None if it is one."""
        entry = self._entry_at(point)
        try:
            self._kind.model_validate(entry)
        except ValidationError as error:
            return told(error, entry)[0]
        return None

    def _entry_at(self, point: Sequence[float]) -> Any:
        entry, written = deepcopy(self._entry), self._written()
        for name, value in self.values(point).items():
            keys = written[name][0]
            _at(entry, keys[:-1])[keys[-1]] = value
        return entry

    def others(self) -> Iterator[Point]:
        """Yield the points of each of the other choices."""
        at = 0
        for item, keys in self._dimensions:
            if isinstance(item, SearchedChoice):
                for place in range(len(item.choices)):
                    point = list(self.start)
                    point[at] = (place + 0.5) / len(item.choices)
                    yield tuple(point)
            at += len(_at(self._entry, keys[0])) if isinstance(item, SearchedOrder) else len(keys)

    def _written(self) -> dict[str, tuple[list[str | int], JsonValue]]:
        """Return the path and the written value of each thing that is searched, by its path as text."""
        return {_text(one): (one, _at(self._entry, one)) for _, keys in self._dimensions for one in keys}

    def _found(self, item: Searched) -> tuple[list[list[str | int]], list[float]]:
        """Return the paths of a thing that is searched, and the places of what is written there."""
        path = self._keys(item.order if isinstance(item, SearchedOrder) else item.path)
        value = _at(self._entry, path)
        if isinstance(item, SearchedOrder):
            if not isinstance(value, list) or len(value) < 2:
                raise ValueError(f"{_text(path)} is not a list of several items")
            return [path], [(place + 0.5) / len(value) for place in range(len(value))]
        if isinstance(item, SearchedChoice):
            if any(one in item.choices[:place] for place, one in enumerate(item.choices)):
                raise ValueError("a choice is given twice")
            if value not in item.choices:
                raise ValueError(f"{_text(path)} is {value!r} in the recipe, which is not one of the choices")
            return [path], [(item.choices.index(value) + 0.5) / len(item.choices)]
        if item.low >= item.high:
            raise ValueError(f"low ({item.low:g}) is not below high ({item.high:g})")
        leaves = list(_leaves(value, path))
        if not leaves:
            raise ValueError(f"{_text(path)} is no number, and has none")
        for keys, number in leaves:
            if not item.low <= number <= item.high:
                raise ValueError(
                    f"{_text(keys)} is {number:g} in the recipe, which is not between {item.low:g} and {item.high:g}"
                )
        return [keys for keys, _ in leaves], [
            (number - item.low) / (item.high - item.low) for _, number in leaves
        ]

    def _keys(self, path: str) -> list[str | int]:
        """Return the keys of a path. Raises ValueError if it leads nowhere."""
        keys: list[str | int] = []
        value: Any = self._entry
        for part in path.split("."):
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                keys.append(int(part))
            elif isinstance(value, dict) and part in value:
                keys.append(part)
            else:
                known = list(value) if isinstance(value, dict) else []
                hint = did_you_mean(part, known) or (
                    f"; it has {len(value)} items, from 0" if isinstance(value, list) else ""
                )
                where = f" in {_text(keys)}" if keys else ""
                raise ValueError(
                    f"{path}: what is searched must be written in the recipe, as the start, and the model's entry has no "
                    f"{part!r}{where}{hint}"
                )
            value = value[keys[-1]]
        return keys

    def _twice(self) -> Iterator[str]:
        """Yield what is searched twice: by itself, or as a part of something else that is searched."""
        paths = [one for _, keys in self._dimensions for one in keys]
        for place, one in enumerate(paths):
            others = [other for other in paths[:place] + paths[place + 1 :] if one[: len(other)] == other]
            if one in others and one not in paths[:place]:
                yield f"{_text(one)} is searched twice"
            elif others and one not in others:
                yield f"{_text(one)} is searched, and so is {_text(others[0])}, of which it is a part"

    def _limits(self) -> Iterator[str]:
        """Yield what of the ranges the model's entry does not take: at their ends, and between them."""
        low, high = (0.0,) * len(self.names), (1.0,) * len(self.names)
        between = tuple((place + 0.618) % 1 for place in self.start)
        for point, what in (
            (low, "the low ends"),
            (high, "the high ends"),
            (between, "numbers between them"),
        ):
            if refusal := self.refusal(point):
                yield f"over: the entry does not take {what} of what is searched: {refusal}"
                return


def search_problems(
    where: str, model: Section, search: Search, parents: Callable[[Section], Iterable[str]]
) -> Iterator[str]:
    """Yield what is wrong with a search.

    Args:
        where: Its key in the recipe.
        model: The model's entry.
        search: The search.
        parents: Returns the names of the models that a model is made from.
    """
    try:
        space = Space(model, search)
    except ValueError as error:
        yield from (f"{where}.{line}" for line in str(error).splitlines())
    else:
        others = list(space.others())
        if refusals := list(filter(None, map(space.refusal, others))):
            yield f"{where}.over: the entry does not take one of the choices: {refusals[0]}"
        elif any(set(parents(space.model(other))) != set(parents(model)) for other in others):
            yield f"{where}.over: with one of the choices, the model is made from other models than with what is written"
    validation, test = search.tasks
    if validation.task == test.task:
        yield f"{where}.test: is the task of `validation`. What trials are judged by cannot show that their winner is better"


def _leaves(value: Any, keys: list[str | int]) -> Iterator[tuple[list[str | int], float]]:
    """Yield the numbers at and below a place, each with its path."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield keys, float(value)
    elif isinstance(value, list | dict):
        items: Any = enumerate(value) if isinstance(value, list) else value.items()
        for key, inner in items:
            yield from _leaves(inner, [*keys, key])


def _at(value: Any, keys: Sequence[str | int]) -> Any:
    for key in keys:
        value = value[key]
    return value


def _text(keys: Sequence[str | int]) -> str:
    return ".".join(map(str, keys))
