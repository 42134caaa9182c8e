"""How often the task passes by chance although the true drop equals the largest accepted one.

Each cell of the table is the share of simulated datasets that pass. It may be 2.5% at most, because
the intervals have 95% confidence, and it is smaller if the true drop is larger.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgeattn.metrics.bounded_mean import Histogram, refuted, rounded_up
from edgeattn.metrics.statistics import drop_limits, share_limits

EXPERIMENTS = 2_000
SIZES = (20, 60, 200, 500, 1_000, 3_000)
MARGINS = (0.02, 0.01, 0.001)
# 2.5%, and three times the standard error of a share of 2.5% of the experiments.
NOMINAL = 0.025
TOLERATED = NOMINAL + 3 * math.sqrt(NOMINAL * (1 - NOMINAL) / EXPERIMENTS)

# The share of datasets of a size that pass, given a generator of random numbers.
Simulation = Callable[[np.random.Generator, int], float]


@dataclass(frozen=True)
class Setting:
    """A question, a kind of fault whose true drop is ``margin``, and its simulation."""

    question: str
    fault: str
    margin: float
    simulate: Simulation

    @functools.cache  # noqa: B019  settings are few
    def passed(self, size: int) -> float:
        """The share of simulated datasets of ``size`` samples that pass; always the same."""
        seed = [size, round(1e6 * self.margin), *f"{self.question}, {self.fault}".encode()]
        return self.simulate(np.random.default_rng(seed), size)


def settings() -> Iterator[Setting]:
    for margin in MARGINS:
        yield Setting("changed answers", "any", margin, _changed(margin))
    for gained in (0.0, 0.003, 0.02, 0.1):
        fault = f"{100 * gained:g}% of samples gained" if gained else "losses only"
        for margin in MARGINS:
            yield Setting("accuracy", fault, margin, _accuracy(margin, gained))
    for fault, lost, gained in (
        ("whole sequences wrong", 1.0, 0.0),
        ("1 of 20 steps wrong", 0.05, 0.0),
        ("whole sequences wrong, 2% right", 1.0, 0.02),
    ):
        for margin in MARGINS:
            yield Setting("accuracy of steps", fault, margin, _steps(margin, lost, gained))
    for share in (1.0, 0.1, 0.01, 0.001):
        for margin in (0.2, *MARGINS):
            # The variance of labels that are uniform within 0 and 1 is 1/12.
            if margin / 12 / share <= 1.0:
                fault = f"{100 * share:g}% of samples off"
                yield Setting("R²", fault, margin, _amounts(margin, share))


def _changed(margin: float) -> Simulation:
    def simulate(generator: np.random.Generator, size: int) -> float:
        counts, times = np.unique(generator.binomial(size, margin, EXPERIMENTS), return_counts=True)
        passed = [share_limits(int(count), size)[1] <= margin for count in counts]
        return float(times @ passed) / EXPERIMENTS

    return simulate


def _accuracy(margin: float, gained: float) -> Simulation:
    def simulate(generator: np.random.Generator, size: int) -> float:
        shares = [margin + gained, gained, 1 - margin - 2 * gained]
        lost, won, _ = generator.multinomial(size, shares, EXPERIMENTS).T
        return float((drop_limits(lost, won, size)[1] <= margin).mean())

    return simulate


def _steps(margin: float, lost: float, gained: float) -> Simulation:
    """Some samples lose the share ``lost`` of their steps, others win all of them."""

    def simulate(generator: np.random.Generator, size: int) -> float:
        losing = (margin + gained) / lost
        counts = generator.multinomial(size, [losing, gained, 1 - losing - gained], EXPERIMENTS)
        return float(refuted(margin, np.array([lost, -1.0, 0.0]), counts).mean())

    return simulate


def _amounts(margin: float, share: float) -> Simulation:
    """Labels uniform within 0 and 1; an artifact that is off for a share of the samples."""

    def simulate(generator: np.random.Generator, size: int) -> float:
        labels = generator.random((EXPERIMENTS, size))
        before = 0.02 * generator.standard_normal(labels.shape)
        faulty = generator.random(labels.shape) < share
        sign = generator.choice([-1.0, 1.0], labels.shape)
        after = before + faulty * sign * math.sqrt(margin / 12 / share)
        passed = 0
        for y, increases in zip(labels, after**2 - before**2, strict=True):
            histogram = Histogram()
            histogram.add(increases)
            largest = rounded_up(np.ptp(y) ** 2)
            values, counts = histogram.upper()
            if (values <= largest).all():
                passed += refuted(margin * y.var() / largest, values / largest, counts)
        return passed / EXPERIMENTS

    return simulate
