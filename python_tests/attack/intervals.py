"""How often the 95 % intervals of `bootstrap_intervals` hold the true score, on simulated people.

A person has a habit of showing an AU (a random effect on its log odds) and a look that the model reads better
or worse (a random effect on its scores); frames of one person resemble each other in both. The true score is
that of so many people that chance no longer matters.

    python python_tests/attack/intervals.py --tests 400
"""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from jaa_ext.evaluation import Predictions, bootstrap_intervals, score

RATE, SEPARATION, FRAMES = 0.25, 1.5, 60
"""How often the AU is present, how far present and absent frames lie apart for the model, frames a person."""
HABIT, LOOK = 1.0, 0.7
"""Standard deviations of what people differ in."""


def simulate(people: int, random: np.random.Generator) -> Predictions:
    """A test set of one AU, as a model sees it."""
    habit, look = random.normal(0, HABIT, (people, 1)), random.normal(0, LOOK, (people, 1))
    odds = np.log(RATE / (1 - RATE)) + habit
    labels = random.random((people, FRAMES)) < 1 / (1 + np.exp(-odds))
    said = SEPARATION * (labels - 0.5) + look + random.normal(0, 1, labels.shape)
    probabilities = 1 / (1 + np.exp(-said))
    ids = tuple(f"P{person}/{frame}" for person in range(people) for frame in range(FRAMES))
    return Predictions(
        aus=(12,),
        labels=labels.reshape(-1, 1).astype(np.int64),
        probabilities=probabilities.reshape(-1, 1).astype(np.float32),
        landmarks=None,
        errors=None,
        ids=ids,
    )


def coverage(people: int, tests: int, seed: int = 0) -> NDArray[np.float64]:
    """Share of so many test sets whose intervals hold the truth: of F1, accuracy and AUC."""
    random = np.random.default_rng((seed, people))
    truth = score(simulate(20_000, np.random.default_rng(seed)))
    held = np.zeros((tests, 3))
    for test in range(tests):
        intervals = bootstrap_intervals(simulate(people, random), 1000, seed=test)
        for place, name in enumerate(("f1", "accuracy", "auc")):
            (low, high), (true,) = getattr(intervals, name)[0], getattr(truth, name)
            held[test, place] = low <= true <= high
    return held.mean(0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tests", type=int, default=400)
    tests = parser.parse_args().tests
    print(f"| people | F1 | accuracy | AUC |   ({tests} test sets each)\n|--:|--:|--:|--:|")
    for people in (9, 14, 27, 41, 100):
        print(
            f"| {people} | " + " | ".join(f"{100 * share:.1f} %" for share in coverage(people, tests)) + " |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
