"""Keys: one text for one meaning; order counts; code counts."""

import hashlib
import math

import pytest

from herdbook.key import Code, canonical_json, digest, package_version


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


def test_code_is_source_and_versions(tmp_path, monkeypatch):
    module = tmp_path / "a_module_for_this_test.py"
    module.write_bytes(b"x = 1\r\n")
    monkeypatch.syspath_prepend(tmp_path)
    described = Code(("a_module_for_this_test",), ("pytest", "no-such-package")).describe()
    assert described == {
        "a_module_for_this_test": hashlib.sha256(b"x = 1\n").hexdigest(),  # line ends of Windows do not count
        "pytest": pytest.__version__,
        "no-such-package": "absent",
    }


def test_local_version_labels_do_not_count(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.13.0+cpu")
    package_version.cache_clear()
    assert package_version("torch") == "2.13.0"
    package_version.cache_clear()


def test_unknown_module_is_an_error():
    with pytest.raises(ModuleNotFoundError):
        Code(("herdbook.no_such_module",)).describe()
