"""What some nodes of a graph lead to."""

from herdbook.graph import reachable


def test_each_is_found_once_and_the_nearest_first():
    leads_to = {"a": "cb", "b": "d", "c": "db", "d": "a", "e": "a"}
    assert reachable("a", leads_to.__getitem__) == ["a", "c", "b", "d"]
    assert reachable("ea", leads_to.__getitem__) == ["e", "a", "c", "b", "d"]
    assert reachable((), leads_to.__getitem__) == []


def test_an_end_is_found_as_well():
    assert reachable([3], range) == [3, 0, 1, 2]


def test_a_long_way_is_walked():
    assert reachable([0], lambda number: [number + 1] if number < 10**5 else []) == list(range(10**5 + 1))
