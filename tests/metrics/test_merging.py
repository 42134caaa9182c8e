"""Accumulators of parts of the data, merged: bit for bit that of all data, for any division."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgeattn.evaluation.accumulators import TaskAccumulator
from edgeattn.metrics.constant_outputs import ConstancyCheck
from edgeattn.metrics.limits import LIMITS
from edgeattn.metrics.lost_values import ConstantHeads, LostValues
from edgeattn.metrics.running_attention import RunningAttention
from edgeattn.metrics.running_metrics import RunningMetrics
from edgeattn.samples.labels import LabelSummary

BATCHES, SIZE = 12, 5
# Numbers of batches by shard, and the order in which shards end.
DIVISIONS = [([12], [0]), ([1] * 12, [3, 11, 0, 7, 1, 2, 10, 4, 5, 6, 8, 9]), ([5, 7], [1, 0])]
LIMIT = LIMITS["int8"]


def noise(*shape: int) -> np.ndarray:
    """Numbers of many magnitudes, so that the order of an ordinary sum shows."""
    generator = np.random.default_rng(sum(shape))
    return generator.standard_normal(shape) * 10.0 ** generator.integers(-6, 6, shape)


def metrics() -> tuple[Callable[[], Any], list[tuple[Any, ...]]]:
    expected = noise(BATCHES, SIZE, 3)
    actual = expected + 0.01 * noise(BATCHES, SIZE, 3)[::-1]
    actual[4, 1, 0] = np.nan
    return lambda: RunningMetrics(LIMIT), list(zip(expected, actual, strict=True))


def probabilities() -> tuple[Callable[[], Any], list[tuple[Any, ...]]]:
    generator = np.random.default_rng(2)
    expected = generator.dirichlet(np.ones(6), (BATCHES, SIZE))
    actual = generator.dirichlet(np.ones(6), (BATCHES, SIZE))
    return lambda: RunningMetrics(LIMIT), list(zip(expected, actual, strict=True))


def attention() -> tuple[Callable[[], Any], list[tuple[Any, ...]]]:
    generator = np.random.default_rng(3)
    maps = generator.dirichlet(np.ones(4), (2, BATCHES, SIZE, 2, 3))
    return lambda: RunningAttention(LIMIT), list(zip(*maps, strict=True))


def constancy() -> tuple[Callable[[], Any], list[tuple[Any, ...]]]:
    values = np.full((BATCHES, SIZE, 2), 0.3)
    values[7, 2, 1] = 0.4
    return ConstancyCheck, [(part,) for part in values]


def lost_values() -> tuple[Callable[[], Any], list[tuple[Any, ...]]]:
    """Noise of many magnitudes: the first value is lost, the others are not."""
    expected, errors = noise(BATCHES, SIZE, 3), noise(BATCHES, SIZE, 3)[::-1]
    batches = zip(expected, expected + [2.0, 0.01, 0.0] * errors, strict=True)
    return lambda: LostValues(LIMIT), list(batches)


def constant_heads() -> tuple[Callable[[], Any], list[tuple[Any, ...]]]:
    maps = np.random.default_rng(4).dirichlet(np.ones(4), (2, BATCHES, SIZE, 2, 3))
    maps[1, :, :, 0] = 0.25
    return lambda: ConstantHeads(LIMIT), list(zip(*maps, strict=True))


def task(labels: np.ndarray, scores: np.ndarray) -> tuple[Callable[[], Any], list[tuple[Any, ...]]]:
    """The accumulator of a task with these labels and scores ``(2, batches, samples, ...)``."""
    facts = LabelSummary.of(labels.reshape(-1, *labels.shape[2:]))
    return lambda: TaskAccumulator("y", facts), list(zip(labels, *scores, strict=True))


def amounts() -> tuple[Callable[[], Any], list[tuple[Any, ...]]]:
    labels = noise(BATCHES, SIZE, 2) + 1e6
    return task(labels, np.stack([labels + noise(BATCHES, SIZE, 2), labels + 1.0]))


def classes() -> tuple[Callable[[], Any], list[tuple[Any, ...]]]:
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 3, (BATCHES, SIZE))
    return task(labels, generator.random((2, BATCHES, SIZE, 3)))


def decisions() -> tuple[Callable[[], Any], list[tuple[Any, ...]]]:
    generator = np.random.default_rng(6)
    labels = generator.integers(0, 2, (BATCHES, SIZE, 1))
    scores = generator.random((2, BATCHES, SIZE, 1))
    # In one batch only, these are logits.
    scores[0, 9, 0] = -3.0
    return task(labels, scores)


def results(accumulator: Any) -> Any:
    """What the accumulator reports, with NaN equal to itself."""
    if isinstance(accumulator, ConstancyCheck):
        return accumulator.constant
    if isinstance(accumulator, TaskAccumulator):
        result = accumulator.result(LIMIT)
        assert result is not None
        return repr({**result.to_json(), "errors": result.errors})
    return repr(list(accumulator.checks(lambda *values, **named: (values, named))))


def parts(batches: list[Any], sizes: list[int]) -> Iterator[list[Any]]:
    for end, size in zip(np.cumsum(sizes), sizes, strict=True):
        yield batches[end - size : end]


@pytest.mark.parametrize(
    "kind",
    [
        *(metrics, probabilities, attention, constancy, lost_values, constant_heads),
        *(amounts, classes, decisions),
    ],
)
@pytest.mark.parametrize(("sizes", "order"), DIVISIONS)
def test_any_division_gives_the_same_result(
    kind: Callable[[], tuple[Callable[[], Any], list[Any]]], sizes: list[int], order: list[int]
) -> None:
    create, batches = kind()
    whole = create()
    for batch in batches:
        whole.add(*batch)
    states = []
    for part in parts(batches, sizes):
        shard = create()
        for batch in part:
            shard.add(*batch)
        states.append(pickle.loads(pickle.dumps(shard.state)))
    merged = create()
    # A shard whose samples were all left out has accumulated nothing.
    merged.merge(create().state)
    for number in order:
        merged.merge(states[number])
    merged.merge(create().state)
    assert results(merged) == results(whole)


def test_labels_far_from_zero_have_their_variance() -> None:
    """R2 of the labels 1e9 + (0, 1, 2, 3), predicted as 1e9 + (0, 1, 2, 4), is 1 - 1/5."""
    labels = 1e9 + np.arange(4.0)
    predicted = labels + np.array([0.0, 0.0, 0.0, 1.0])
    accumulator = TaskAccumulator("y", LabelSummary.of(labels[:, None]))
    for row in range(4):
        accumulator.add(
            labels[row : row + 1, None], labels[row : row + 1, None], predicted[row : row + 1, None]
        )
    result = accumulator.result(LIMIT)
    assert result is not None
    assert (result.reference_score, result.artifact_score) == (1.0, pytest.approx(0.8, abs=1e-15))
