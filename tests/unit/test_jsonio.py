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
        ("{", "it is not JSON: line 1, column 2: expected a key in double quotes"),
        ('{"a": 1,\n "b" 2}', "it is not JSON: line 2, column 6: expected a colon"),
        ('{"a": 1\n "b": 2}', "it is not JSON: line 2, column 2: expected a comma or a closing bracket"),
        ('{"a": }', "it is not JSON: line 1, column 7: expected a value"),
        ("{} x", "it is not JSON: line 1, column 4: expected the end of the file"),
        ('{"a": "b}', "it is not JSON: line 1, column 7: a text without a closing quote"),
        ('{"a": "\n"}', "it is not JSON: line 1, column 8: a control character in a text"),
        ('{"a": "\\x"}', "it is not JSON: line 1, column 8: an escape that JSON does not have"),
        (b'{"a": "\xff"}', "it is not UTF-8 .byte 8"),
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
