"""Chooses which candidates to evaluate next, from the results so far, and which one is best.

First every scheme is evaluated as a whole, the smallest ones of every format first, and then the
other lowerings of those that pass. If the smallest schemes do not pass, mixtures of two schemes
follow: each layer is quantized alone to measure its cost, layers are raised to the larger
scheme in the order of that cost until the file passes, and raised layers that turn out not to
matter are lowered again. The search assumes on the way that a passing file still passes with one
more layer raised, but the final choice has always been converted and validated itself.

This module handles no files and no models.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgeattn.metrics.medians import FASTEST, NO_DIFFERENCE, SLOWER, fastest_indices
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, NOT_RUN, PASS

NOT_CONVERTED = "not made"
# Schemes whose weights can be mixed in one file, by size.
LEVELS = ("int4", "dynamic_int8", "float16", "float32")
# Schemes and lowerings by the size of their files, as expected before any is converted.
BY_SIZE = ("int4", "dynamic_int8", "int8", "int16x8", "float16", "float32")
LOWERINGS = ("auto", "fused", "chunked", "unrolled")


@dataclass(frozen=True)
class Layer:
    """A layer with weights worth quantizing; ``bytes`` is their size in float32."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Candidate:
    """A file to evaluate: one scheme, except for the layers in ``precision``."""

    format: str
    scheme: str
    lowering: str = "auto"
    precision: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """For example ``tflite dynamic_int8, chunked, float16 in dense``."""
        parts = [f"{self.format} {self.scheme}"]
        if self.lowering != "auto":
            parts.append(self.lowering)
        for level in dict.fromkeys(scheme for _, scheme in self.precision):
            names = [name for name, scheme in self.precision if scheme == level]
            parts.append(f"{level} in {', '.join(names)}")
        return ", ".join(parts)

    def with_precision(self, precision: Mapping[str, str]) -> Candidate:
        return replace(self, precision=tuple(sorted(precision.items())))


@dataclass(frozen=True)
class Result:
    """The evaluation of a candidate.

    Attributes:
        excess: The worst check of outputs and attention maps as a multiple of its limit.
        output: The output whose task lost most.
        score: The score of its task, at most 1.
        drop: The loss of that score and its 95% interval.
        scores: The score of every output with labels.
        shortfall: Why the candidate does not pass.
        artifact: The entry of the file in a manifest; empty if it could not be converted.
        p50_ms: The median latency in milliseconds, if it was measured.
        interval_ms: The 95% interval of that median.
        unmeasured: Why the latency could not be measured.
    """

    candidate: Candidate
    verdict: str
    bytes: int | None = None
    excess: float = math.inf
    output: str | None = None
    score: float | None = None
    drop: tuple[float, float, float] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    shortfall: str = ""
    artifact: Mapping[str, Any] = field(default_factory=dict)
    p50_ms: float | None = None
    interval_ms: tuple[float, float] | None = None
    unmeasured: str = ""

    @property
    def passed(self) -> bool:
        return self.verdict == PASS


@dataclass(frozen=True)
class Space:
    """Candidates with one scheme, layers that may differ, and the schemes these may have."""

    uniform: tuple[Candidate, ...]
    layers: tuple[Layer, ...] = ()
    levels: tuple[str, ...] = LEVELS


@dataclass(frozen=True)
class SearchResult:
    """All results in the order of their evaluation, and what was not evaluated.

    Attributes:
        results: At least one.
        untried: Candidates of the space that the number of candidates left out.
        mixtures: Whether every mixture that could be smaller was evaluated.
    """

    results: tuple[Result, ...]
    untried: tuple[Candidate, ...] = ()
    mixtures: bool = True


# Evaluates a candidate; the flag says whether to evaluate the task too.
Evaluate = Callable[[Candidate, bool], Result]


class _BudgetSpentError(Exception):
    """The largest number of candidates has been evaluated."""


def search(space: Space, evaluate: Evaluate, *, max_candidates: int) -> SearchResult:
    """Evaluate at most ``max_candidates`` candidates, the most promising ones first."""
    results: dict[Candidate, Result] = {}
    with_task: set[Candidate] = set()

    def evaluate_once(candidate: Candidate, task: bool = True) -> Result:
        if candidate not in results and len(results) >= max(1, max_candidates):
            raise _BudgetSpentError
        if candidate not in results or (task and candidate not in with_task):
            results[candidate] = evaluate(candidate, task)
            if task:
                with_task.add(candidate)
        return results[candidate]

    mixtures = False
    with contextlib.suppress(_BudgetSpentError):
        usual = [candidate for candidate in space.uniform if candidate.lowering == "auto"]
        for candidate in sorted(usual, key=_expected_size):
            evaluate_once(candidate)
        others = [candidate for candidate in space.uniform if candidate.lowering != "auto"]
        for candidate in sorted(others, key=lambda item: _promise(item, results)):
            evaluate_once(candidate)
        for start, above in _mixable(space, tuple(results.values())):
            _mix(evaluate_once, start, above, space.layers)
        mixtures = True
    # A mixture whose numbers alone were compared has not passed: smaller ones are completed.
    for candidate in sorted(results, key=lambda item: results[item].bytes or 0):
        if not results[candidate].passed:
            continue
        if candidate in with_task:
            break
        results[candidate] = evaluate(candidate, True)
        with_task.add(candidate)
    results = {
        candidate: result
        for candidate, result in results.items()
        if candidate in with_task or not result.passed
    }
    untried = tuple(candidate for candidate in space.uniform if candidate not in results)
    return SearchResult(tuple(results.values()), untried, mixtures)


def _expected_size(candidate: Candidate) -> tuple[int, int]:
    """Sorts by size; candidates of one scheme, such as two formats, keep their order."""
    return BY_SIZE.index(candidate.scheme), LOWERINGS.index(candidate.lowering)


def _promise(candidate: Candidate, results: Mapping[Candidate, Result]) -> tuple[float, ...]:
    """Sorts other lowerings: a lowering changes the size, and hardly the numbers."""
    usual = results.get(replace(candidate, lowering="auto"))
    passed = usual is not None and usual.passed
    size = math.inf if usual is None or usual.bytes is None else usual.bytes
    return (not passed, size, *_expected_size(candidate))


def _mixable(space: Space, results: Sequence[Result]) -> list[tuple[Candidate, str]]:
    """Failing candidates for which a larger scheme of the same format passes, with that scheme."""
    pairs = []
    for format in dict.fromkeys(result.candidate.format for result in results):
        smallest: dict[str, Result] = {}
        for level in space.levels:
            files = [
                r
                for r in results
                if (r.candidate.format, r.candidate.scheme) == (format, level) and r.bytes
            ]
            if files:
                passing = [r for r in files if r.passed]
                smallest[level] = min(passing or files, key=lambda r: r.bytes or 0)
        levels = [level for level in space.levels if level in smallest]
        for k, level in enumerate(levels):
            if smallest[level].passed:
                break
            above = next((u for u in levels[k + 1 :] if smallest[u].passed), None)
            if above is not None:
                pairs.append((smallest[level].candidate, above))
    return pairs


def _mix(
    evaluate: Callable[..., Result], start: Candidate, above: str, layers: Sequence[Layer]
) -> None:
    """Raise layers of ``start`` to the scheme ``above`` until it passes, and as few as possible."""
    if len(layers) < 2:
        return

    def raised(names: Sequence[str]) -> Candidate:
        return start.with_precision(dict.fromkeys(names, above))

    # With all other layers raised, the excess is due to this layer.
    cost = {
        layer.name: evaluate(raised([other.name for other in layers if other is not layer]), False)
        for layer in layers
    }
    order = sorted(layers, key=lambda layer: (-cost[layer.name].excess, layer.bytes))
    names = [layer.name for layer in order]
    low, high = 1, len(names)  # with all layers raised, it is the larger scheme, which passes
    while low < high:
        middle = (low + high) // 2
        if evaluate(raised(names[:middle])).passed:
            high = middle
        else:
            low = middle + 1
    needed = names[:low]
    if len(needed) < len(names) and not evaluate(raised(needed)).passed:
        return
    for layer in sorted(order[:low], key=lambda layer: -layer.bytes):
        fewer = [name for name in needed if name != layer.name]
        if fewer and evaluate(raised(fewer)).passed:
            needed = fewer


def best(results: Sequence[Result], aim: str) -> Result | None:
    """The smallest or fastest result that passes, or else the one closest to passing.

    ``None`` if no candidate could be converted.
    """
    converted = [result for result in results if result.bytes is not None]
    passing = [result for result in converted if result.passed]
    if not passing:
        return min(converted, key=_distance, default=None)
    if aim == "latency":
        passing = list(fastest_group(passing)) or passing
    return min(passing, key=lambda r: (r.bytes or 0, r.excess))


def fastest_group(results: Sequence[Result]) -> tuple[Result, ...]:
    """The results that pass and from which no measured result is shown to be faster.

    These are the one with the lowest median and all whose intervals overlap with its interval.
    """
    timed = [result for result in results if result.passed and result.p50_ms is not None]
    estimates = [(result.p50_ms or 0.0, *_limits(result)) for result in timed]
    return tuple(timed[k] for k in fastest_indices(estimates))


def compare_with_fastest(result: Result, results: Sequence[Result]) -> str | None:
    """:data:`FASTEST`, :data:`NO_DIFFERENCE` or :data:`SLOWER`; None if it was not measured."""
    if result.p50_ms is None:
        return None
    group = fastest_group(results)
    if all(other.candidate != result.candidate for other in group):
        return SLOWER if any(_is_faster(other, result) for other in group) else None
    return FASTEST if len(group) == 1 else NO_DIFFERENCE


def _is_faster(result: Result, other: Result) -> bool:
    """Whether the whole interval of ``result`` lies below that of ``other``."""
    return _limits(result)[1] < _limits(other)[0]


def _limits(result: Result) -> tuple[float, float]:
    """The interval of the latency; infinite if it was not measured."""
    p50 = math.inf if result.p50_ms is None else result.p50_ms
    return result.interval_ms or (p50, p50)


def _distance(result: Result) -> tuple[Any, ...]:
    """Sorts by distance from passing: an inconclusive verdict is closer than a failed one."""
    rank = (INCONCLUSIVE, FAIL, NOT_RUN).index(result.verdict)
    high = math.inf if result.drop is None else result.drop[2]
    return (rank, max(result.excess, 1.0), high, result.bytes)


def frontier(results: Sequence[Result], aim: str = "size") -> tuple[Result, ...]:
    """Results that no other beats in size, score and latency (if measured) at once.

    A latency is better only if the intervals do not overlap.
    """

    def figures(result: Result) -> tuple[float, float]:
        score = -math.inf if result.score is None else result.score
        return (float(result.bytes or 0), -score)

    def beats(result: Result, other: Result) -> bool:
        own, others = figures(result), figures(other)
        if any(a > b for a, b in zip(own, others, strict=True)) or _is_faster(other, result):
            return False
        return own != others or _is_faster(result, other)

    scored = [result for result in results if result.bytes is not None and result.score is not None]
    optimal: list[Result] = []
    for result in scored:
        equal = any(
            figures(other) == figures(result)
            and not _is_faster(result, other)
            and not _is_faster(other, result)
            for other in optimal
        )
        if not equal and not any(beats(other, result) for other in scored):
            optimal.append(result)
    key = (lambda r: r.p50_ms or math.inf) if aim == "latency" else (lambda r: r.bytes or 0)
    return tuple(sorted(optimal, key=key))
