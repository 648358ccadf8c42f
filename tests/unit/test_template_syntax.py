"""Which chat templates can be used, beside transformers' own compiler of them."""

import pytest

from herdbook import limits
from herdbook.sources import template_syntax
from herdbook.sources.chat_templates import CHAT_TEMPLATES
from herdbook.sources.template_syntax import reply, wrong_template

TEMPLATES = {
    **CHAT_TEMPLATES,
    "the tag of what a model writes": "{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}{% endfor %}",
    "ends of loops": "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{% continue %}{% endfor %}",
    "tools": "{{ tools | tojson(indent=2) }}{{ strftime_now('%d') }}{{ raise_exception('no') }}",
    "a macro": "{%- macro one(x, y=1) -%}{{ x ~ y }}{%- endmacro -%}{{ one(messages[0]) }}",
    "an error that only a use shows": "{{ 1 / 0 }}{{ messages.__class__ }}",
    "a test in a condition, which only a use shows": "{% if messages is of_next_year %}{% endif %}",
    "an assignment to an attribute, which only a use shows": "{% set a.b = 1 %}",
}
WRONG = {
    "no end": "{% for m in messages %}{{ m }}",
    "a brace": "{{ messages }",
    "a filter": "{{ messages | upcase }}",
    "a tag": "{% trans %}a{% endtrans %}",
    "loops in loops": "{% for a in b %}" * 30 + "{% endfor %}" * 30,
    "brackets": "{{ " + "(" * 2000 + "a" + ")" * 2000 + " }}",
    "two of one parameter": "{% macro one(x, x) %}{% endmacro %}",
}


@pytest.mark.parametrize("name", [*TEMPLATES, *WRONG])
def test_a_template_is_wrong_if_transformers_does_not_compile_it(name):
    from transformers.utils.chat_template_utils import _compile_jinja_template

    text = {**TEMPLATES, **WRONG}[name]
    try:
        _compile_jinja_template(text)
    except Exception:  # noqa: BLE001 - of Jinja, or of Python
        compiles = False
    else:
        compiles = True
    assert (reply([TEMPLATES["a macro"], text])["problem"] is None) == compiles == (name in TEMPLATES)


@pytest.mark.slow
def test_a_template_that_takes_too_long_or_is_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(limits, "TEMPLATE_SECONDS", 0)
    template_syntax._wrong.cache_clear()
    assert wrong_template(["{{ 7 ** (9 ** 9) }}"]) == "it takes more than 0 seconds, or too much memory"
    assert wrong_template(["{{ a }}"]) is None
    assert "over the limit of 200,000" in wrong_template(["{{ a }}", "x" * 200_001])
    assert wrong_template([]) is None
