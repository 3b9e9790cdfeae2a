from __future__ import annotations

import math
from collections import Counter

import pytest

from jaa_ext.recipes.schema import Stage
from jaa_ext.training.schedule import REPEATED, Batches, apportion, learning_rate, shares


def test_batches_are_reproducible_from_anywhere() -> None:
    batches = Batches(11, 4, seed=5)
    batches.epoch = 2
    whole = list(batches)
    assert [len(b) for b in whole] == [4, 4, 3]
    assert sorted(pair for b in whole for pair in b) == [(2, i) for i in range(11)]
    batches.start = 2
    assert list(batches) == whole[2:]
    others = [Batches(11, 4, seed=5), Batches(11, 4, seed=6)]
    others[1].epoch = 2
    assert all([i for b in o for _, i in b] != [i for b in whole for _, i in b] for o in others)


def test_a_last_batch_of_one_is_left_out() -> None:
    assert [len(b) for b in Batches(9, 4, seed=0)] == [4, 4] and len(Batches(9, 4, seed=0)) == 2
    assert [len(b) for b in Batches(8, 4, seed=0)] == [4, 4] and len(Batches(8, 4, seed=0)) == 2
    assert [len(b) for b in Batches(3, 4, seed=0)] == [3]
    with pytest.raises(ValueError, match="training needs at least 2 samples, got 1"):
        Batches(1, 4, seed=0)


def test_processes_divide_each_batch() -> None:
    whole = list(Batches(11, 5, seed=5))
    of_each = [Batches(11, 5, seed=5, processes=3, rank=rank) for rank in range(3)]
    assert [len(b) for b in whole] == [5, 5] and {len(b) for b in of_each} == {2}
    for number, (batch, parts) in enumerate(zip(whole, zip(*of_each, strict=True), strict=True)):
        assert [len(part) for part in parts] == [2, 2, 1] == of_each[0].sizes(number)
        assert [pair for part in parts for pair in part] == batch == of_each[2].whole(number)
    last = [Batches(12, 5, seed=0, processes=3, rank=rank) for rank in range(3)]
    assert [len(list(b)[2]) for b in last] == [1, 1, 0] == last[0].sizes(2)
    with pytest.raises(ValueError, match="batch_size, that of all processes together, must be at least"):
        Batches(12, 2, seed=0, processes=3)


def test_shares_are_contiguous_and_whole() -> None:
    for length in range(9):
        for processes in range(1, 5):
            parts = [range(length)[share] for share in shares(length, processes)]
            assert [i for part in parts for i in part] == list(range(length))
            assert len(parts) == processes and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_learning_rates() -> None:
    stage = Stage(name="s", epochs=6, lr=0.01)
    rates = [learning_rate(stage, i, 10) for i in (0, 19, 20, 39, 40, 59)]
    assert rates == pytest.approx([0.01, 0.01, 0.003, 0.003, 0.0009, 0.0009])
    cosine = Stage(name="s", epochs=2, lr=0.1, schedule="cosine")
    assert [learning_rate(cosine, i, 10) for i in (0, 5, 10, 15)] == pytest.approx(
        [0.1, 0.1 * (0.5 + math.sqrt(0.5) / 2), 0.05, 0.1 * (0.5 - math.sqrt(0.5) / 2)]
    )
    warm = Stage(name="s", epochs=6, lr=0.01, warmup=4)
    assert [learning_rate(warm, i, 10) for i in range(6)] == pytest.approx(
        [0.002, 0.004, 0.006, 0.008, 0.01, 0.01]
    )


def test_a_set_of_a_small_share_gives_some_of_its_samples_anew_in_each_epoch() -> None:
    batches = Batches(30, 4, seed=5, sets=[(10, 3), (20, 1)])
    seen = []
    for epoch in range(40):
        batches.epoch = epoch
        drawn = [pair for batch in batches for pair in batch]
        assert len(drawn) == 30 == len(set(drawn))  # as many as there are samples
        times = Counter(i for _, i in drawn)
        first, second = ({i: n for i, n in times.items() if (i < 10) == own} for own in (True, False))
        # 22.5 and 7.5 of 30: each of the ten twice, two or three a third time.
        assert (
            sum(first.values()) in (22, 23) and set(first) == set(range(10)) and set(first.values()) == {2, 3}
        )
        assert set(second.values()) == {1}
        seen.append((frozenset(i for i, n in first.items() if n == 3), frozenset(second)))
        assert {(e - epoch) // REPEATED for e, i in drawn if i >= 10} == {0}
        assert Counter((e - epoch) // REPEATED for e, i in drawn if i < 10) == {
            0: 10,
            1: 10,
            2: len(seen[-1][0]),
        }
    assert len(set(seen)) == 40
    assert frozenset.union(*(own for own, _ in seen)) == set(range(10))
    assert frozenset.union(*(others for _, others in seen)) == set(range(10, 30))


def test_shares_are_met_in_each_epoch_within_one_sample() -> None:
    for ratios in ((1, 1, 1), (0.2, 5, 1e-9), (1e308, 1e308, 1e308)):
        sizes = (7, 40, 3)
        batches = Batches(50, 8, seed=1, sets=list(zip(sizes, ratios, strict=True)))
        drawn = [i for batch in batches for _, i in batch]
        counts = [
            sum(first <= i < first + size for i in drawn)
            for first, size in zip((0, 7, 47), sizes, strict=True)
        ]
        parts = [ratio / max(ratios) for ratio in ratios]
        for count, part in zip(counts, parts, strict=True):
            assert abs(count - 50 * part / sum(parts)) < 1


def test_batches_mix_the_sets() -> None:
    batches = Batches(400, 40, seed=2, sets=[(200, 1), (200, 1)])
    for batch in batches:
        assert 8 < sum(i < 200 for _, i in batch) < 32


def test_batches_by_shares_are_reproducible_and_divided_among_processes() -> None:
    def made(seed: int = 3, **options: int) -> Batches:
        return Batches(11, 4, seed=seed, sets=[(8, 1), (3, 2)], **options)

    whole = list(made())
    assert [len(b) for b in whole] == [4, 4, 3] and list(made()) == whole != list(made(4))
    later = made()
    later.start = 1
    assert list(later) == whole[1:] and later.whole(2) == whole[2]
    of_each = [made(processes=2, rank=rank) for rank in range(2)]
    assert [[*one, *other] for one, other in zip(*of_each, strict=True)] == whole
    later.epoch = 1
    assert {i for _, i in later.whole(0)} != {i for _, i in whole[0]}


def test_sets_without_shares_are_one() -> None:
    assert list(Batches(11, 4, seed=3, sets=[(11, 0.5)])) == list(Batches(11, 4, seed=3))


def test_parts_of_a_number() -> None:
    assert apportion(10, (2, 1)) == [7, 3]
    assert apportion(10, (1, 1, 1)) == [4, 3, 3]
    assert apportion(3, (1, 100)) == [0, 3]
    assert apportion(7, (0.5,)) == [7]
