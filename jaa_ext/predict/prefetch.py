"""Iterators whose items other threads make before they are needed, in order and within bounds of memory."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_NICENESS = 5


def prefetch(items: Iterator[Out], depth: int) -> Generator[Out, None, None]:
    """Yield the items of an iterator, which a thread takes from it up to `depth` items ahead.

    An exception of the iterator is raised in place of its next item. Closing this generator ends the thread.

    Example:
        >>> list(prefetch(iter("abc"), 2))
        ['a', 'b', 'c']
    """
    ready: queue.Queue[tuple[bool, Out | BaseException | None]] = queue.Queue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def work() -> None:
        lower_priority()
        try:
            while room.acquire() and not stopped.is_set():
                ready.put((True, next(items)))
        except StopIteration:
            ready.put((False, None))
        except BaseException as error:
            ready.put((False, error))
        finally:
            with contextlib.suppress(Exception):
                getattr(items, "close", lambda: None)()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            more, item = ready.get()
            room.release()
            if not more:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # type: ignore[misc]
            del item
    finally:
        stopped.set()
        room.release()
        thread.join()


def parallel_map(
    function: Callable[[In], Out],
    items: Iterable[In],
    executor: Executor,
    depth: int,
    cost: Callable[[In], int] = lambda item: 0,
    max_cost: int = 0,
) -> Generator[Out, None, None]:
    """Yield ``map(function, items)`` in order, computed by an executor.

    Args:
        function: what the executor calls.
        items: its arguments.
        executor: of threads or processes.
        depth: most items submitted whose results were not yielded yet.
        cost: of an item, such as its memory.
        max_cost: most that these items cost together; an item that costs more is computed alone.
    """
    waiting: deque[tuple[Future[Out], int]] = deque()
    try:
        for item in items:
            own_cost = cost(item)
            while waiting and own_cost + sum(other for _, other in waiting) > max_cost:
                yield waiting.popleft()[0].result()
            waiting.append((executor.submit(function, item), own_cost))
            if len(waiting) == depth:
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        for future, _ in waiting:
            future.cancel()


def lower_priority() -> None:
    """Lower the priority of this thread, so that it does not take processors from the network.

    On Linux alone: there each thread has a priority of its own.
    """
    if sys.platform != "linux":
        return  # elsewhere the number of a thread may be that of another process
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):
        # Root could raise the priority of a process that was started with a low one.
        os.setpriority(os.PRIO_PROCESS, thread, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
