import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaa_ext.predict import prefetch as module
from jaa_ext.predict.prefetch import lower_priority, parallel_map, prefetch

SOON = 10
"""Seconds; what has not come by then does not come."""


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def until(condition):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + SOON
        time.sleep(0.001)


class Counted:
    """0, 1, 2 ...; fails at a number, and knows how many were taken and that it was closed."""

    def __init__(self, end=1000, failure=None):
        self.end, self.failure, self.taken, self.closed, self.threads = end, failure, 0, False, set()

    def __iter__(self):
        return self

    def __next__(self):
        self.threads.add(threading.current_thread())
        if self.taken == self.end:
            raise self.failure or StopIteration
        self.taken += 1
        return self.taken - 1

    def close(self):
        self.closed = True


class TestPrefetch:
    @pytest.mark.parametrize("depth", [1, 4, 100])
    def test_items_come_in_order(self, depth):
        items = Counted(50)
        assert list(prefetch(items, depth)) == list(range(50))
        assert items.closed and threading.current_thread() not in items.threads and len(items.threads) == 1
        assert list(prefetch(iter(()), depth)) == []

    def test_no_more_than_that_many_are_held(self):
        items = Counted()
        coming = prefetch(items, 3)
        for i in range(5):
            assert next(coming) == i
            until(lambda wanted=i + 4: items.taken >= wanted)
            time.sleep(0.01)
            assert items.taken == i + 4  # the one in use, and three before they are needed
        coming.close()
        assert items.closed

    def test_an_exception_comes_in_its_place(self):
        coming = prefetch(Counted(3, OSError("the disk is gone")), 10)
        assert [next(coming) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="the disk is gone"):
            next(coming)
        with pytest.raises(StopIteration):
            next(coming)

    def test_even_one_that_is_no_error_of_the_program(self):
        with pytest.raises(KeyboardInterrupt):
            next(prefetch(Counted(0, KeyboardInterrupt()), 1))

    def test_closing_before_the_first_item(self):
        coming = prefetch(Counted(), 2)
        coming.close()

    def test_the_iterator_is_closed_by_the_thread_that_runs_it(self):
        """A generator that another thread runs cannot be closed."""
        closed_by = []

        def items():
            try:
                while True:
                    yield 1
            finally:
                closed_by.append(threading.current_thread())

        coming = prefetch(items(), 2)
        next(coming)
        coming.close()
        assert len(closed_by) == 1 and closed_by[0] is not threading.current_thread()

    def test_closing_waits_for_the_item_under_way_only(self):
        go = threading.Event()
        begun = threading.Event()

        class Slow(Counted):
            def __next__(self):
                if self.taken == 1:
                    begun.set()
                    assert go.wait(SOON)
                return super().__next__()

        items = Slow()
        coming = prefetch(items, 5)
        next(coming)
        assert begun.wait(SOON)
        closing = threading.Thread(target=coming.close)
        closing.start()
        time.sleep(0.02)
        assert closing.is_alive()
        go.set()
        closing.join(SOON)
        assert not closing.is_alive() and items.taken == 2 and items.closed


class TestParallelMap:
    def test_in_order_whatever_takes_longer(self):
        with ThreadPoolExecutor(4) as executor:

            def slow_if_even(i):
                time.sleep(0.004 * (i % 2 == 0))
                return i * i

            for depth in (1, 3, 8, 50):
                assert list(parallel_map(slow_if_even, range(20), executor, depth)) == [
                    i * i for i in range(20)
                ]
            assert list(parallel_map(slow_if_even, [], executor, 3)) == []

    def test_no_more_than_cost_so_much_are_under_way(self):
        weights = [3, 3, 3, 3, 20, 1, 9, 10, 0, 0]
        now, most, lock = [], [], threading.Lock()

        def busy(weight):
            with lock:
                now.append(weight)
                most.append(sum(now))
            time.sleep(0.05)
            with lock:
                now.remove(weight)
            return weight

        with ThreadPoolExecutor(8) as executor:
            results = parallel_map(busy, iter(weights), executor, 8, lambda weight: weight, 10)
            assert list(results) == weights
        assert max(most) == 20 and sorted(most)[-2] <= 10 and most.count(9) >= 1

    def test_no_more_than_that_many_are_under_way(self):
        items = Counted()
        with ThreadPoolExecutor(2) as executor:
            results = parallel_map(lambda i: i, items, executor, 5)
            for i in range(4):
                assert next(results) == i
                assert items.taken == i + 5
            results.close()

    def test_an_exception_comes_in_its_place_and_ends_the_work(self):
        called = []
        going = threading.Event()

        def work(i):
            called.append(i)
            if i == 1:
                raise ZeroDivisionError
            if i == 2:
                assert going.wait(SOON)
            return i

        with ThreadPoolExecutor(1) as executor:
            results = parallel_map(work, range(100), executor, 6)
            assert next(results) == 0
            with pytest.raises(ZeroDivisionError):
                next(results)
            going.set()
        assert called in ([0, 1], [0, 1, 2])


@pytest.mark.skipif(sys.platform != "linux", reason="priority is a thread's own on Linux only")
def test_a_thread_of_lower_priority_leaves_the_others_alone():
    def nicenesses():
        lower_priority()
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(nicenesses).result() == max(before, 5)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_elsewhere_no_priority_is_touched(monkeypatch):
    """There the number of a thread may be that of a process of somebody else."""
    monkeypatch.setattr(module.sys, "platform", "darwin")
    monkeypatch.setattr(os, "setpriority", lambda *_: pytest.fail("a priority was set"))
    lower_priority()
