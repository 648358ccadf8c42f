"""Read ahead: a few calls run at once, and their results come in order."""

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

    The number of pending results is bounded: at most twice ``threads`` calls are ahead of the consumer. When the consumer
    stops, calls that have not started are cancelled.

    Args:
        call: The function to call with an item.
        items: The items.
        threads: How many calls run at once.

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
