"""Work done ahead by other threads, in order and with a bound on what is held."""

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


def ahead(items: Iterator[Out], depth: int) -> Generator[Out, None, None]:
    """The items of an iterator, taken from it by a thread of its own, at most `depth` before they are needed.

    An exception of the iterator is raised in its place. Closing this generator ends the thread.
    """
    ready: queue.Queue[tuple[bool, Out | BaseException | None]] = queue.Queue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def work() -> None:
        step_back()
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


def mapped(
    function: Callable[[In], Out],
    items: Iterable[In],
    executor: Executor,
    depth: int,
    weigh: Callable[[In], int] = lambda item: 0,
    heaviest: int = 0,
) -> Generator[Out, None, None]:
    """``map(function, items)`` by an executor, in order.

    At most `depth` of them are under way or waiting, and no more than weigh `heaviest` together, unless one
    does alone.
    """
    waiting: deque[tuple[Future[Out], int]] = deque()
    try:
        for item in items:
            weight = weigh(item)
            while waiting and weight + sum(others for _, others in waiting) > heaviest:
                yield waiting.popleft()[0].result()
            waiting.append((executor.submit(function, item), weight))
            if len(waiting) == depth:
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        for future, _ in waiting:
            future.cancel()


def step_back() -> None:
    """Let this thread run where the network leaves processors idle: on Linux priority is a thread's own."""
    if sys.platform != "linux":
        return  # elsewhere a thread's number may be that of another process
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
