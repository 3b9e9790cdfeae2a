"""A small attack, and that an attack finds what is planted."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import damage
import planted
import pytest
import workers

RUN = Path(__file__).with_name("run.py")


def attack(*options: object) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", RUN, *map(str, options)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"


def test_damaged_inputs_are_read_or_refused() -> None:
    attack("--inputs", 400)


def test_disturbed_runs_end_like_undisturbed_ones() -> None:
    attack("--kills", 6)


@pytest.fixture(scope="module")
def endings() -> Iterator[dict[str, workers.Result]]:
    """What is said of each planted ending, by one worker after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "SECONDS", 0.5)
        tasks = [workers.Task(kind, 0, 0) for kind in ("read", *planted.ENDINGS, "read")]
        results = list(workers.run(tasks, planted.Planted, 1, []))
        assert [result.task for result in results] == tasks  # none is lost, none stops the others
        yield {result.task.kind: result for result in results}


@pytest.mark.parametrize("ending", planted.ENDINGS)
def test_planted_endings_are_told_apart(endings: dict[str, workers.Result], ending: str) -> None:
    result = endings[ending]
    assert result.outcome == (ending if ending in workers.OUTCOMES else "traceback")
    match ending:
        case "died":
            assert "SIGSEGV" in result.reason and "planted.py" in result.reason
        case "hang":
            assert "planted.py" in result.reason
        case "refused" | "nonsense":
            assert result.reason == planted.ENDINGS[ending]
        case "traceback":
            assert result.reason.startswith("KeyError: 'x'")
        case "names no file":
            assert result.reason.startswith("names no file: ValueError: wanted a number")


@pytest.mark.parametrize("way", damage.BYTES)
def test_damage_is_seeded_and_does_damage(way: damage.Way) -> None:
    data = bytes(range(256)) * 20
    damaged = [way(data, Random(seed)) for seed in range(20)]
    assert damaged == [way(data, Random(seed)) for seed in range(20)]
    assert sum(one != data for one in damaged) >= 18 and len(set(damaged)) >= 10


def test_tables_and_trees_are_damaged_in_many_ways() -> None:
    table = b"a,b,c\n1,2,3\n4,5,6\n"
    assert len({damage.damage_table(table, Random(seed)) for seed in range(300)}) > 200
    tree = {"a": [1, 2, {"b": "x"}], "c": 0.5}
    assert (
        len({damage.to_json(damage.damage_tree(tree, Random(seed)), Random(seed)) for seed in range(300)})
        > 150
    )
    assert tree == {"a": [1, 2, {"b": "x"}], "c": 0.5}
