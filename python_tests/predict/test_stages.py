"""Time of stages: summed over threads, and counted for what fails, too."""

import threading

import pytest

from jaa_ext.predict import stages
from jaa_ext.predict.stages import STAGES, Stages


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which the tests move on."""
    now = [0.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: now[0])
    return now


def test_times_add_up(clock):
    counted = Stages()
    for seconds in (1.5, 2.0):
        with counted.busy("network"):
            clock[0] += seconds
    with pytest.raises(ValueError), counted.busy("writing"):
        clock[0] += 4
        raise ValueError
    assert counted.seconds == dict.fromkeys(STAGES, 0.0) | {"network": 3.5, "writing": 4.0}


def test_threads_work_at_once(clock):
    counted, together = Stages(), threading.Barrier(3)

    def work():
        with counted.busy("reading"):
            together.wait()
            together.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    together.wait()
    clock[0] = 5.0
    together.wait()
    for thread in threads:
        thread.join()
    assert counted.seconds["reading"] == 10
