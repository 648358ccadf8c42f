"""Keys: one text for one meaning; order counts."""

import hashlib
import math

import pytest

from herdbook.key import canonical_json, digest


def test_canonical_json_is_one_text():
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"\\u00e9","b":[1,2.5,null]}'
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


def test_digest_is_sha256_of_it():
    assert digest({"a": [1, 2]}) == hashlib.sha256(b'{"a":[1,2]}').hexdigest()


def test_order_of_lists_counts():
    assert digest(["x", "y"]) != digest(["y", "x"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": value})
