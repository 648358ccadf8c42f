"""Making vocabularies of those of several models, as mergekit does: the tokens, and which rows belong to them.

Ids are given in the order of the models and of their ids; in mergekit, those of tokens that the base does not have depend on
the order of hash tables. Source: mergekit, ``tokenizer/build.py`` and ``merge.py``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from herdbook import limits
from herdbook import recipe as recipes
from herdbook.errors import RecipeError, SourceError
from herdbook.key import digest
from herdbook.lock.asked import request
from herdbook.lock.tokens import describe
from herdbook.lock.vocabulary import LockedChoice, LockedToken, LockedVocabulary
from herdbook.recipe import Merge, ModelToken, Moe
from herdbook.recipe.tokenizer import AUTO, UNION
from herdbook.sources.chat_templates import CHAT_TEMPLATES
from herdbook.sources.template_syntax import wrong_template
from herdbook.sources.tokenizer_file import AddedToken, read_added, tokenizer_files
from herdbook.sources.tokenizer_settings import DEFAULT, read_templates
from herdbook.sources.vocabulary import SENTENCEPIECE, SETTINGS, TOKENIZER, WORDS, read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from herdbook.recipe import Recipe, Section, Tokenizer
    from herdbook.sources.vocabulary import Vocabulary

    Run = tuple[int, int, int]

FORMATS = {TOKENIZER, SENTENCEPIECE, WORDS}


@dataclass(frozen=True)
class SideFilesOf:
    """The files of a source besides its weights.

    Args:
        names: Their names.
        read: Returns the content of one of them.
        rows: How many rows its embeddings have; None if that is not known.
    """

    names: Collection[str]
    read: Callable[[str], bytes]
    rows: int | None = None


def make_vocabularies(recipe: Recipe, sources: Mapping[str, SideFilesOf]) -> dict[str, LockedVocabulary]:
    """Return the vocabulary of each merge and mixture of a recipe that has one of its own, by name.

    Raises:
        RecipeError: If a tokenizer cannot be read, or tokens cannot be added to it.
        SourceError: If a file is not of its format.
    """
    return _Vocabularies(recipe, sources).made


@dataclass(frozen=True)
class _Tokenizer:
    """The tokenizer of a model, and how many rows its embeddings have.

    Args:
        origin: The source whose files it starts from.
        tokens: Its tokens.
        added: Those that were added.
        template: Its chat template.
        rows: How many rows the model has; None if it has one for each token.
    """

    origin: str
    tokens: Vocabulary
    added: dict[int, AddedToken]
    template: str | None
    rows: int | None = None

    def has_row(self, number: int) -> bool:
        """Return whether the model has a row for an id. Tokens that were added to a tokenizer alone have none."""
        return self.rows is None or number < self.rows

    @cached_property
    def by_id(self) -> dict[int, str]:
        return {number: token for token, number in self.tokens.items()}


class _Vocabularies:
    def __init__(self, recipe: Recipe, sources: Mapping[str, SideFilesOf]) -> None:
        self._recipe, self._sources = recipe, sources
        self._known: dict[str, _Tokenizer] = {}
        self.made: dict[str, LockedVocabulary] = {}
        for name, model in recipe.models.items():
            if recipes.tokenizer_of(model):
                self._of(name)

    def _of(self, name: str) -> _Tokenizer:
        """Return a model's tokenizer."""
        if name not in self._known:
            model = self._recipe.models[name]
            section, keeper = recipes.tokenizer_of(model), recipes.keeper_of(model)
            if section:
                self._known[name] = self._make(name, model, section)
            elif keeper:
                rows = self._of((_inputs(model) or (keeper,))[0]).rows
                self._known[name] = replace(self._of(keeper), rows=rows)
            else:
                self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> _Tokenizer:
        """Return the tokenizer of a source."""
        source = self._sources[name]
        tokens = read_vocabulary(source.names, source.read, name)
        if not tokens:
            raise RecipeError(
                f"models.{name}: has no tokenizer that can be read, so its tokens cannot be lined up with those of other models"
            )
        ordinary = read_vocabulary(FORMATS & set(source.names), source.read, name) or {}
        added = {
            number: AddedToken(token, special=True, normalized=False)  # named only: transformers adds these
            for token, number in tokens.items()
            if token not in ordinary
        }
        try:
            added |= read_added(source.names, source.read)
            template = read_templates(source.names, source.read).get(DEFAULT)
            return _Tokenizer(name, tokens, added, template, source.rows)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(
                f"models.{name}: the files of its tokenizer are not of the form that transformers writes ({error!r})"
            ) from error

    def _make(self, name: str, model: Section, section: Tokenizer) -> _Tokenizer:
        """Return the tokenizer of a merge or a mixture, and add it to those that were made."""
        where = f"models.{name}.{'moe' if isinstance(model, Moe) else 'merge'}.tokenizer"
        start = self._of(str(recipes.keeper_of(model)))
        joined = {input_: self._of(input_) for input_ in _inputs(model)} if section.source else {}
        added = self._added(where, start, section, joined.values())
        tokens = start.tokens | {token.content: number for number, token in added.items()}
        template = self._template(where, section.chat_template, model)
        for text in (*(token.content for token in added.values()), template or ""):
            _check_text(where, text)
        rows_of_all = None if joined else self._of(_inputs(model)[0]).rows
        made = _Tokenizer(start.origin, tokens, start.added | added, template or start.template, rows_of_all)
        source = self._sources[start.origin]
        beyond = self._beyond(made)
        files = tokenizer_files(source.names, source.read, beyond, template)
        if template is not None and not files.keys() - {TOKENIZER}:
            raise RecipeError(
                f"{where}.chat_template: {start.origin!r} has no {SETTINGS}, in which it could be written"
            )
        described = describe(tokens)
        assert described  # noqa: S101 - a tokenizer without tokens was refused
        rows = {input_: tuple(_runs(made, one)) for input_, one in joined.items()}
        if (count := sum(map(len, rows.values()))) > limits.TOKEN_RUNS:
            raise RecipeError(
                f"{where}: the models' tokens differ so much that equal ones are in {count:,} runs of rows, over the limit of "
                f"{limits.TOKEN_RUNS:,}"
            )
        self.made[name] = LockedVocabulary(
            asked=request(section),
            origin=start.origin,
            models={input_: digest(one.tokens) for input_, one in joined.items()},
            tokens=described,
            added=tuple(LockedToken(id=number, **asdict(token)) for number, token in beyond.items()),
            rows=rows,
            choices=dict(self._choices(where, section, tokens)),
            chat_template=template,
            files={file: hashlib.sha256(content).hexdigest() for file, content in sorted(files.items())},
        )
        return made

    def _added(
        self, where: str, start: _Tokenizer, section: Tokenizer, joined: Iterable[_Tokenizer]
    ) -> dict[int, AddedToken]:
        """Return the tokens that are added to a tokenizer, by id."""
        tokens: dict[str, AddedToken] = {}
        if section.source == UNION:
            every = list(joined)
            was_added = {token.content for token in start.added.values()}
            more: dict[str, AddedToken] = {}
            for one in every:
                for number, token in one.added.items():
                    if token.content not in was_added and one.has_row(number):
                        more.setdefault(token.content, token)
            known = start.tokens.keys() | more.keys() | was_added
            ordinary = (
                token for one in every for number, token in sorted(one.by_id.items()) if one.has_row(number)
            )
            tokens = {token: AddedToken(token) for token in ordinary if token not in known} | more
        tokens |= {
            token: AddedToken(token)
            for token in section.tokens
            if token not in start.tokens and token not in tokens
        }
        following = max(start.tokens.values()) + 1
        added: dict[int, AddedToken] = {}
        for content, token in tokens.items():
            if content not in start.tokens:
                following += 1
            added[start.tokens.get(content, following - 1)] = token
        if added:
            self._check_addition(where, start)
        return added

    def _check_addition(self, where: str, start: _Tokenizer) -> None:
        """Check that tokens can be added to a tokenizer, with the ids that follow."""
        if TOKENIZER not in self._sources[start.origin].names:
            raise RecipeError(
                f"{where}: {start.origin!r} has no {TOKENIZER}, to which tokens can be added. Load its tokenizer with "
                "transformers, and save it"
            )
        if len(start.by_id) != max(start.by_id) + 1 or len(start.by_id) != len(start.tokens):
            raise RecipeError(
                f"{where}: of the ids of {start.origin!r}, from 0 to {max(start.by_id)}, {len(start.by_id)} are tokens, for "
                f"{len(start.tokens)} texts: the library tokenizers would give other ids to the tokens that are added"
            )

    def _beyond(self, made: _Tokenizer) -> dict[int, AddedToken]:
        """Return the added tokens of a tokenizer that the ``tokenizer.json`` of its source does not have."""
        if made.added == self._of(made.origin).added:
            return {}
        source = self._sources[made.origin]
        held = read_added({TOKENIZER}, source.read)
        return {number: token for number, token in sorted(made.added.items()) if held.get(number) != token}

    def _choices(
        self, where: str, section: Tokenizer, tokens: Vocabulary
    ) -> Iterator[tuple[str, LockedChoice]]:
        for token, entry in section.tokens.items():
            row, given = None, entry.source
            if isinstance(given, ModelToken):
                row = given.token_id
                if given.token is not None:
                    row = self._of(given.model).tokens.get(given.token)
                if row is None:
                    raise RecipeError(
                        f"{where}.tokens.{token}.source: {given.model!r} has no token {given.token!r}"
                    )
            yield token, LockedChoice(id=tokens[token], row=row)

    def _template(self, where: str, named: str | None, model: Section) -> str | None:
        """Return the text of a chat template that the recipe names; None to keep the existing one."""
        if named is None:
            return None
        if named == AUTO:
            found = [(self._of(name).template or "").strip() for name in _inputs(model)]
            if not any(found):
                raise RecipeError(f"{where}.chat_template: none of the models has a chat template")
            return Counter(filter(None, found)).most_common(1)[0][0]
        if named in CHAT_TEMPLATES:
            return CHAT_TEMPLATES[named]
        if named not in self._recipe.models:
            if problem := wrong_template([named]):
                raise RecipeError(f"{where}.chat_template: is not one that transformers can use: {problem}")
            return named
        template = self._of(named).template
        if template is None:
            raise RecipeError(f"{where}.chat_template: the tokenizer of {named!r} has no chat template")
        return template


def _check_text(where: str, text: str) -> None:
    """Check that a lock can store a text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecipeError(
            f"{where}: {text[:40]!r} contains half of a character, which UTF-8 cannot represent"
        ) from error


def _inputs(model: Section) -> tuple[str, ...]:
    """Return the models that a merge or a mixture joins, each once; the base comes first."""
    match model:
        case Merge(merge=merge):
            return tuple(dict.fromkeys(merge.inputs))
        case Moe(moe=moe):
            return tuple(dict.fromkeys((moe.base, *(expert.model for expert in moe.all_experts))))
        case _:
            return ()


def _runs(made: _Tokenizer, one: _Tokenizer) -> Iterator[Run]:
    """Yield which rows of a model belong to the tokens of a vocabulary, as runs: first id, first row, how many."""
    start = row = count = 0
    for number in sorted(made.by_id):
        own = one.tokens.get(made.by_id[number])
        if own is None or not one.has_row(own):
            continue
        if count and (number, own) == (start + count, row + count):
            count += 1
            continue
        if count:
            yield start, row, count
        start, row, count = number, own, 1
    if count:
        yield start, row, count
