"""Vocabularies that are made of those of several models: which tokens are added, with which ids, and chat templates."""

import json

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

from herdbook import recipe as recipes
from herdbook.lock.union import SideFilesOf, make_vocabularies
from herdbook.sources.chat_templates import CHAT_TEMPLATES
from herdbook.sources.tokenizer_file import AddedToken, tokenizer_files

RECIPE = """
models:
  a: {{folder: a}}
  b: {{folder: b}}
  c: {{folder: c}}
  made: {{merge: {{method: linear, models: [{{model: a}}, {{model: b}}, {{model: c}}], tokenizer: {tokenizer}}}}}
release: {{model: made, name: T, license: mit}}
"""


def source(ordinary, added=(), named=None, template=None):
    """Return the files of a tokenizer: ordinary tokens in order, added ones (name: settings), and settings."""
    tokens = {token: number for number, token in enumerate(ordinary)}
    following, entries = len(tokens), []
    for name, settings in dict(added).items():
        number = tokens.get(name, following)
        following += number == following
        plain = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
        entries.append({"id": number, "content": name, **plain, **settings})
    files = {
        "tokenizer.json": {"added_tokens": entries, "model": {"type": "BPE", "vocab": tokens, "merges": []}},
        "tokenizer_config.json": {
            **(named or {}),
            **({"chat_template": template} if template else {}),
        },
    }
    return {name: json.dumps(content).encode() for name, content in files.items()}


def made(tokenizer, **models):
    recipe = recipes.parse(RECIPE.format(tokenizer=json.dumps(tokenizer)))
    sources = {name: SideFilesOf(list(files), files.__getitem__) for name, files in models.items()}
    return make_vocabularies(recipe, sources)["made"]


def test_ordinary_tokens_come_before_added_ones_in_the_order_of_models_and_ids():
    found = made(
        {"source": "union"},
        a=source(["x", "y"], {"<s>": {}}),
        b=source(["y", "u", "x"], {"<t>": {"lstrip": True}, "<s>": {}}),
        c=source(["v", "y", "u"], {"<p>": {"special": False}, "<t>": {"rstrip": True}}),
    )
    added = [(token.id, token.content, token.special, token.normalized) for token in found.added]
    assert added == [
        (3, "u", False, True),
        (4, "v", False, True),
        (5, "<t>", True, False),
        (6, "<p>", False, False),
    ]
    assert [token.lstrip for token in found.added if token.content == "<t>"] == [
        True
    ]  # the first model's settings
    assert found.rows == {
        "a": ((0, 0, 3),),
        "b": ((0, 2, 1), (1, 0, 1), (2, 4, 1), (3, 1, 1), (5, 3, 1)),
        "c": ((1, 1, 1), (3, 2, 1), (4, 0, 1), (5, 4, 1), (6, 3, 1)),
    }


def test_an_ordinary_token_that_another_model_added_becomes_an_added_one():
    b = source(["x"], {"<s>": {}})
    found = made({"source": "union"}, a=source(["x", "<s>"]), b=b, c=b)
    assert [(token.id, token.content, token.special) for token in found.added] == [(1, "<s>", True)]
    assert found.tokens.count == 2


def test_tokens_that_are_only_named_get_their_ids_in_the_file():
    """transformers adds them when it loads a tokenizer; tokens that are added must come after them."""
    a = source(["x"], named={"bos_token": "<s>"})
    found = made({"source": "union"}, a=a, b=source(["x", "z"]), c=a)
    assert [(token.id, token.content, token.special) for token in found.added] == [
        (1, "<s>", True),
        (2, "z", False),
    ]


def test_the_files_have_the_tokens_in_both_places():
    a = source(["x"], {"<s>": {}})
    b = source(["x"], {"<s>": {}, "<t>": {}})
    found = made({"source": "union"}, a=a, b=b, c=a)
    files = tokenizer_files(
        list(a), a.__getitem__, {2: AddedToken("<t>", special=True, normalized=False)}, found.chat_template
    )
    tokens = json.loads(files["tokenizer.json"])["added_tokens"]
    assert [(token["id"], token["content"]) for token in tokens] == [(1, "<s>"), (2, "<t>")]
    decoder = json.loads(files["tokenizer_config.json"])["added_tokens_decoder"]
    assert {number: token["content"] for number, token in decoder.items()} == {"1": "<s>", "2": "<t>"}
    assert found.files.keys() == files.keys()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("auto", "{{ 'the one that two have' }}"),
        ("a", "{{ 'the one of the first' }}"),
        ("{{ 'a text of the recipe' }}", "{{ 'a text of the recipe' }}"),
        ("chatml", CHAT_TEMPLATES["chatml"]),
    ],
)
def test_chat_templates_by_frequency_model_text_and_name(asked, expected):
    models = {
        name: source(["x"], template=f"{{{{ '{text}' }}}}")
        for name, text in zip("abc", ("the one of the first", *["the one that two have"] * 2), strict=True)
    }
    found = made({"chat_template": asked}, **models)
    assert found.chat_template == expected
    assert list(found.files) == ["tokenizer_config.json"]
    assert found.rows == {}
    assert found.added == ()


TALK = [
    {"role": "user", "content": " one "},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]
SYSTEM = {"role": "system", "content": "be brief"}
# As the authors of the models print them.
RENDERED = {
    "chatml": "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n one <|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n"
    "<|im_start|>user\nthree<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\none<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\ntwo<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nthree<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s> [INST] be brief\n\n one  [/INST] two</s> [INST] three [/INST]",
    "alpaca": "be brief\n\n### Instruction:\none\n\n### Response:\ntwo\n\n### Instruction:\nthree\n\n### Response:\n",
    "exaone": "[|system|]be brief[|endofturn|]\n[|user|] one \n[|assistant|]two[|endofturn|]\n[|user|]three\n[|assistant|]",
}


def render(name, messages):
    compiled = _compile_jinja_template(CHAT_TEMPLATES[name])
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    return compiled.render(messages=messages, add_generation_prompt=True, **special)


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_chat_templates_by_name(name):
    assert render(name, [SYSTEM, *TALK]) == RENDERED[name]


def test_mistral_s_conversations_alternate():
    with pytest.raises(TemplateError, match="must alternate"):
        render("mistral", [TALK[0], TALK[0]])
    with pytest.raises(TemplateError, match="must alternate"):
        render("mistral", TALK[1:])
