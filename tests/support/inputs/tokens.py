"""Tokens that have other ids in another model, or ids that the embeddings have no row for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support import tiny
from support.inputs import Case
from support.inputs.meaning import MEAN, MIXTURE, SLERP, STACK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def rename(folder: Path, names: dict[str, str]) -> None:
    """Give ids to other tokens: of a tokenizer, each token that is a key becomes the token that is its value."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    model = tokenizer["model"]
    model["vocab"] = {names.get(token, token): number for token, number in model["vocab"].items()}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


LINEAR_OF_TWO = {"method": "linear", "models": [{"model": "a"}, {"model": "b"}]}


def add(folder: Path, token: str, number: int) -> None:
    """Add a token to a tokenizer."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "content": token, "id": number})
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def number(folder: Path, token: str, number: int) -> None:
    """Give a token of a tokenizer another id."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"][token] = number
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def settings(folder: Path, **changes: Any) -> None:
    """Change settings of a tokenizer."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


def pair(entry: dict[str, Any], change: Callable[[Path], None]) -> Callable[[Path], Path]:
    """Return a maker of two models, of which the second is changed, and a model made from both."""

    def make(folder: Path) -> Path:
        for seed, name in enumerate("ab"):
            tiny.write_model(folder / name, seed=seed)
        change(folder / "b")
        models = {**{name: {"folder": name} for name in "ab"}, "made": entry}
        return tiny.write_recipe(folder / "recipe.yaml", models)

    return make


def alone(change: Callable[[Path], None], **settings: Any) -> Callable[[Path], Path]:
    """Return a maker of one model that is changed."""

    def make(folder: Path) -> Path:
        change(tiny.write_model(folder / "a", **settings))
        return tiny.write_recipe(folder / "recipe.yaml", {"a": {"folder": "a"}})

    return make


def lined_up(change: Callable[[Path], None] = lambda _: None, **tokenizer: Any) -> Callable[[Path], Path]:
    """Return a maker of a mean of two models whose rows are lined up; ``b`` is changed."""
    section = {"source": "union", **tokenizer}
    return pair({"merge": {**MEAN["merge"], "tokenizer": section}}, change)


def odd_token(folder: Path) -> None:
    """Give an added token a setting that is not one."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["added_tokens"][0]["special"] = []
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def without_tokenizer(folder: Path) -> None:
    """Remove a tokenizer."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def with_a_gap(folder: Path) -> None:
    """Leave an id of both models without a token, and give the second a token of its own."""
    for name in "ab":
        path = folder.parent / name / "tokenizer.json"
        tokenizer = json.loads(path.read_text(encoding="utf-8"))
        del tokenizer["model"]["vocab"]["w48"]  # the last word
        tokenizer["model"]["merges"] = [
            pair for pair in tokenizer["model"]["merges"] if "".join(pair) != "w48"
        ]
        del tokenizer["model"]["vocab"]["w30"]
        tokenizer["model"]["merges"] = [
            pair for pair in tokenizer["model"]["merges"] if "".join(pair) != "w30"
        ]
        path.write_text(json.dumps(tokenizer), encoding="utf-8")
    add(folder, "<tool>", 63)


def swap(folder: Path) -> None:
    """Swap the ids of two tokens."""
    rename(folder, {"w1": "w2", "w2": "w1"})


def with_generation(folder: Path, content: str = '{"eos_token_id": [2, 64]}') -> None:
    """Write a generation config, by default that of a larger vocabulary."""
    (folder / "generation_config.json").write_text(content, encoding="utf-8")


CASES = [
    Case(
        "a mean of models of one vocabulary size in which the ids of two tokens are swapped",
        pair(MEAN, swap),
        "models.made.merge: 2 tokens have other ids in 'b' than in 'a' ('w1' is 17, not 16)",
    ),
    Case(
        "a stack of layers of two such models",
        pair(STACK, swap),
        "models.made.merge: 2 tokens have other ids in 'b' than in 'a' ('w1' is 17, not 16)",
    ),
    Case(
        "a mixture with such an expert",
        pair(MIXTURE, swap),
        "models.made.moe: 2 tokens have other ids in 'b' than in 'a' ('w1' is 17, not 16)",
    ),
    Case(
        "a mixture with the tokenizer of such an expert",
        pair({"moe": {**MIXTURE["moe"], "tokenizer": "b"}}, swap),
        "models.made.moe: 2 tokens have other ids in 'a' than in 'b' ('w1' is 16, not 17)",
    ),
    Case(
        "a slerp of models that use an id for different tokens, without saying whose count",
        pair(SLERP, lambda folder: rename(folder, {"w48": "<|im_start|>"})),
        "models.made.merge: an id stands for another token in 'b' than in 'a' (63 for '<|im_start|>', not for 'w48')",
    ),
    Case(
        "a tokenizer with a token beyond the embeddings",
        alone(lambda folder: add(folder, "<pad>", 64)),
        "models.a: its tokenizer has the token '<pad>' with id 64, and its embeddings have 64 rows",
    ),
    Case(
        "a padding token beyond the embeddings in `config.json`",
        alone(lambda _: None, pad_token_id=64),
        "models.a: config.json has pad_token_id 64, and its embeddings have 64 rows",
    ),
    Case(
        "a token that ends the text beyond the embeddings in `generation_config.json`",
        alone(with_generation),
        "models.a: generation_config.json has eos_token_id 64, and its embeddings have 64 rows",
    ),
    Case(
        "a tokenizer without a vocabulary",
        alone(lambda folder: (folder / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")),
        "folder: a: tokenizer.json is not of the form that transformers writes",
    ),
    *(
        Case(
            f"`{file}` {wrong}",
            alone(lambda folder, file=file, text=text: (folder / file).write_text(text, encoding="utf-8")),
            f"folder: a: {message}",
        )
        for file, wrong, text, message in (
            (
                "tokenizer_config.json",
                "with a byte order mark, which transformers does not read",
                "\ufeff{}",
                "its tokenizer_config.json: it is not JSON: line 1, column 1: a byte order mark",
            ),
            (
                "added_tokens.json",
                "that is nested too deeply to be read",
                "[" * 5000,
                "added_tokens.json is not of the form that transformers writes",
            ),
        )
    ),
    Case(
        "`generation_config.json` with a token that is a text",
        alone(lambda folder: with_generation(folder, '{"eos_token_id": "2"}')),
        "folder: a: generation_config.json: eos_token_id",
    ),
    Case(
        "a `tokenizer.json` in which two tokens have one id",
        alone(lambda folder: number(folder, "w2", 16)),
        "folder: a: tokenizer.json is not of the form that transformers writes (ValueError(\"tokens 'w1' and 'w2' both have id 16",
    ),
    Case(
        "a `tokenizer.json` that adds a token with the id of another one",
        alone(lambda folder: add(folder, "<x>", 20)),
        "folder: a: tokenizer.json is not of the form that transformers writes (ValueError(\"tokens 'w5' and '<x>' both have id 20",
    ),
    Case(
        "`tokenizer_config.json` with a token that is a number",
        alone(lambda folder: settings(folder, eos_token=2)),
        "folder: a: its tokenizer_config.json: eos_token",
    ),
    *(
        Case(
            f"a chat template {wrong}",
            alone(lambda folder, text=text: settings(folder, chat_template=text)),
            f"folder: a: its chat template is not one that transformers can use: {message}",
        )
        for wrong, text, message in (
            ("with a syntax error", "{% if a %}\n{{ messages }", "line 2: unexpected '}'"),
            (
                "with a filter that does not exist",
                "{{ messages | upcase }}",
                "line 1: No filter named 'upcase'",
            ),
        )
    ),
    Case(
        "a chat template in the recipe with a syntax error",
        lined_up(chat_template="{% for message in messages %}"),
        "models.made.merge.tokenizer.chat_template: is not one that transformers can use: line 1: Unexpected end of template",
    ),
    Case(
        "a token whose row is to come from a model that does not have it",
        lined_up(tokens={"<tool>": {"source": "b"}}),
        "models.made.merge.tokenizer.tokens.<tool>.source: 'b' has no token '<tool>'",
    ),
    Case(
        "a token whose row is to come from a token that does not exist",
        lined_up(tokens={"<tool>": {"source": {"kind": "model_token", "model": "b", "token": "w99"}}}),
        "models.made.merge.tokenizer.tokens.<tool>.source: 'b' has no token 'w99'",
    ),
    Case(
        "a token whose row is to come from a row that does not exist",
        lined_up(tokens={"<tool>": {"source": {"kind": "model_token", "model": "b", "token_id": 64}}}),
        "models.made.merge.tokenizer.tokens.<tool>.source: 'b' has 64 rows, and none with number 64",
    ),
    Case(
        "a chosen row of no token",
        lined_up(tokens={"<tool>": {"source": {"kind": "model_token", "model": "b"}}}),
        "models.made.merge.tokenizer.tokens.<tool>.source: give either `token` or `token_id`",
    ),
    Case(
        "rows that are lined up with a model that has no tokenizer",
        lined_up(without_tokenizer),
        "models.b: has no tokenizer that can be read, so its tokens cannot be lined up",
    ),
    Case(
        "tokens that are added to a tokenizer with an id of no token, since the library would give them other ids",
        lined_up(with_a_gap),
        "models.made.merge.tokenizer: of the ids of 'a', from 0 to 62, 62 are tokens, for 62 texts",
    ),
    Case(
        "a misspelt chat template",
        lined_up(chat_template="chat-ml"),
        "models.made.merge.tokenizer.chat_template: 'chat-ml' is neither a chat template nor the name of one; did you mean "
        "'chatml'?",
    ),
    Case(
        "the chat template of a model that has none",
        lined_up(chat_template="b"),
        "models.made.merge.tokenizer.chat_template: the tokenizer of 'b' has no chat template",
    ),
    Case(
        "a token to be added that contains half of a character",
        lined_up(lambda folder: rename(folder, {"w48": "\ud800"})),
        r"models.made.merge.tokenizer: '\ud800' contains half of a character, which UTF-8 cannot represent",
    ),
    Case(
        "a token to be added with a setting of another type",
        lined_up(odd_token),
        "models.b: the files of its tokenizer are not of the form that transformers writes (ValueError('an added token has "
        "special []'))",
    ),
    Case(
        "the most frequent chat template of models that have none",
        lined_up(chat_template="auto"),
        "models.made.merge.tokenizer.chat_template: none of the models has a chat template",
    ),
    Case(
        "a vocabulary that is both cropped and lined up",
        pair(
            {"merge": {**LINEAR_OF_TWO, "vocabulary": "crop", "tokenizer": {"source": "union"}}},
            lambda folder: tiny.write_model(folder, seed=1, vocab=65),
        ),
        "models.made.merge.vocabulary: rows are either cropped, or lined up by `tokenizer.source`",
    ),
    Case(
        "a vocabulary to crop that is the same in all models",
        pair({"merge": {**LINEAR_OF_TWO, "vocabulary": "crop"}}, lambda _: None),
        "models.made.merge.vocabulary: all models have 64 rows, so that nothing is cropped",
    ),
    Case(
        "a cropped vocabulary with a tokenizer that has tokens beyond it",
        pair(
            {"merge": {**LINEAR_OF_TWO, "vocabulary": "crop", "tokenizer": "b"}},
            lambda folder: tiny.write_model(folder, seed=1, vocab=65),
        ),
        "has the token 'w49' with id 64, and its embeddings have 64 rows",
    ),
]
