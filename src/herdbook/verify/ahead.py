"""Reading ahead: a few requests at once, their answers in order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 8


def in_order(
    call: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS
) -> Iterator[tuple[Item, Callable[[], Result]]]:
    """Call for each item, a few at once, and yield them in order.

    Results that are not taken yet are bounded: no more than twice as many calls as threads are ahead. When the consumer
    stops, what has not begun is never called.

    Args:
        call: What to do with an item.
        items: The items.
        threads: How many at once.

    Yields:
        An item, and a function that returns its result or raises what its call raised.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append((item, pool.submit(call, item)))
            if len(waiting) > 2 * threads:
                first, future = waiting.popleft()
                yield first, future.result
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result
    finally:
        pool.shutdown(cancel_futures=True)
