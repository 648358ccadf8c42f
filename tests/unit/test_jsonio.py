"""JSON of strangers: what Python's reader accepts beyond it is one error."""

import json

import pytest

from herdbook import jsonio


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1, "b": {"c": [], "c": []}}', "it has the key 'c' twice in one object"),
        ('{"a": 1, "a": 1}', "it has the key 'a' twice in one object"),
        (r'{"é": 1, "\u00e9": 2}', "it has the key 'é' twice in one object"),
        ("[NaN]", "NaN is not a number in JSON"),
        ("[1e999]", "too large"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "it is not JSON"),
    ],
)
def test_what_is_not_json_is_told(text, problem):
    with pytest.raises(jsonio.JsonError, match=problem):
        jsonio.load(text)


def test_a_key_that_is_listed_twice_is_found_in_a_large_object():
    pairs = ", ".join(f'"{number}": 0' for number in range(200_000))
    with pytest.raises(jsonio.JsonError, match="'199999' twice"):
        jsonio.load(f'{{{pairs}, "199999": 0}}')


def test_other_objects_may_have_the_same_keys():
    text = '[{"a": {"a": 1}}, {"a": 2}]'
    assert jsonio.load(text) == json.loads(text)
