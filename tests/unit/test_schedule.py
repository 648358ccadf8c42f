"""Simulated schedules, against times that can be said without simulating."""

import itertools
import math

import pytest
import schedule
from schedule import Machine, Task, simulate


def machines(count, **has):
    return [Machine({"cores": 1, **has})] * count


def after(*names):
    return frozenset(names)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("order", ["ready", "longest"])
def test_a_chain_takes_its_sum_on_any_number_of_machines(count, order):
    chain = [Task("a", 3), Task("b", 5, after("a")), Task("c", 7, after("b"))]
    found = simulate(chain, machines(count), order)
    assert found.seconds == 15
    assert found.last_chain() == [task.name for task in schedule.critical_path(chain)] == ["a", "b", "c"]
    assert found.utilisation("cores") == pytest.approx(1 / count)


@pytest.mark.parametrize(("jobs", "count"), itertools.product((1, 5, 12), (1, 2, 5, 20)))
def test_equal_jobs_that_wait_for_nothing_take_rounds(jobs, count):
    found = simulate([Task(str(n), 2.5) for n in range(jobs)], machines(count))
    assert found.seconds == 2.5 * math.ceil(jobs / count)
    assert found.utilisation("cores") == pytest.approx(jobs / (count * math.ceil(jobs / count)))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_a_fork_and_join_takes_the_ends_and_the_rounds_between(count):
    middle = [Task(f"m{n}", 4, after("fork")) for n in range(8)]
    tasks = [Task("join", 2, frozenset(task.name for task in middle)), *middle, Task("fork", 1)]
    assert simulate(tasks, machines(count)).seconds == 1 + 4 * math.ceil(8 / count) + 2


def test_the_longest_first_is_optimal_for_trees_of_equal_jobs():
    """Hu 1961: whatever the number of machines. Checked against all orders there are."""
    parent = {"a": "e", "b": "e", "c": "f", "d": "f", "e": "g", "f": "g", "h": "g", "i": "h"}
    children = {}
    for child, over in parent.items():
        children.setdefault(over, set()).add(child)
    for count in (1, 2, 3, 4):
        tasks = [Task(name, 1, frozenset(children.get(name, ()))) for name in "abcdefghi"]
        found = simulate(tasks, machines(count), "longest").seconds
        assert found == shortest_rounds(children, frozenset("abcdefghi"), count)


def shortest_rounds(children, left, count):
    """Rounds of unit jobs, by trying every choice of each round."""
    if not left:
        return 0
    ready = [name for name in left if not children.get(name, set()) & left]
    chosen = itertools.combinations(ready, min(count, len(ready)))
    return 1 + min(shortest_rounds(children, left - set(some), count) for some in chosen)


def test_the_order_is_the_one_asked_for():
    """Graham's: the longest job last costs most; the longest first is a third of the optimum off at the most."""
    jobs = [Task(str(n), seconds) for n, seconds in enumerate((2, 2, 2, 3, 3, 4))]
    assert (
        simulate(jobs, machines(2), "ready").seconds == 2 + 3 + 4
    )  # 2 2 4 beside 2 3 3, by hand: 2|2, 2|3, 3|4
    assert simulate(jobs, machines(2), "longest").seconds == 8  # 4 2 2 beside 3 3 2, the optimum: 16 / 2


def test_jobs_share_a_machine_as_far_as_each_resource_reaches():
    big = {"cores": 4, "mem_mb": 100}

    def seconds(**needs):
        return simulate([Task(str(n), 1, needs=needs) for n in range(4)], [Machine(big)]).seconds

    assert seconds(cores=1, mem_mb=25) == 1
    assert seconds(cores=1, mem_mb=50) == 2
    assert seconds(cores=3, mem_mb=1) == 4
    with pytest.raises(ValueError, match="0 requests more than a machine has"):
        seconds(cores=5)


def test_a_job_that_fits_goes_ahead_of_one_that_does_not():
    jobs = [Task("first", 4, needs={"cores": 1}), Task("wide", 1, needs={"cores": 2}), Task("thin", 3)]
    found = simulate(jobs, [Machine({"cores": 2})])
    assert found.runs["thin"].begin == 0
    assert found.runs["wide"].begin == 4
    assert found.last_chain() == ["first", "wide"]


def test_what_waits_for_a_job_waits_for_the_news_of_its_end_too_and_machines_do_not():
    jobs = [Task("a", 3, lag=2), Task("b", 4, after("a"), lag=2), Task("c", 1)]
    found = simulate(jobs, machines(1))
    assert found.runs["c"].begin == 3
    assert found.runs["b"].begin == 5
    assert found.seconds == 9
    assert schedule.remaining(jobs) == {"a": 9, "b": 4, "c": 1}


def test_kinds_of_machines_are_kept_apart():
    jobs = [Task("here", 2, kind="host"), Task("there", 2), Task("here too", 2, kind="host")]
    found = simulate(jobs, [Machine({"cores": 1}, "host"), *machines(5)])
    assert found.seconds == 4
    assert found.runs["there"].begin == 0


def test_no_schedule_is_shorter_than_the_critical_path_or_the_work_or_longer_than_graham_s_bound():
    jobs = [
        Task(str(n), 1 + n * n % 7, frozenset(str(m) for m in range(n) if (n + m) % 3 == 0 and m > n - 5))
        for n in range(40)
    ]
    path = sum(task.seconds for task in schedule.critical_path(jobs))
    work = sum(task.seconds for task in jobs)
    for count, order in itertools.product((1, 2, 3, 8, 64), ("ready", "longest")):
        seconds = simulate(jobs, machines(count), order).seconds
        assert max(path, work / count) <= seconds <= work / count + (1 - 1 / count) * path
    assert seconds == path
