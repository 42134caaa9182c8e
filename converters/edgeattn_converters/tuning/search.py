"""Which candidates to try, given what became of the ones before: no file and no model in here.

First every scheme as a whole. Then, where the smallest do not pass, mixtures of two schemes: each
layer is lowered alone to see what it costs, layers are raised in the order of that cost until the
file passes, and those that were raised in vain are lowered again. That a file which passes still
does with one layer more raised is assumed in between and never in the end: what is chosen was made
and judged itself.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgeattn.metrics.statistics import FAIL, INCONCLUSIVE, NOT_RUN, PASS

NOT_MADE = "not made"
# From the fewest bytes to the most: those of which weights may be mixed in one file.
LEVELS = ("int4", "dynamic_int8", "float16", "float32")
# Medians closer than this are the same speed: the smaller file is better then.
SAME_SPEED = 1.03


@dataclass(frozen=True)
class Layer:
    """A layer with weights worth quantizing, and their bytes in float32."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Candidate:
    """A file to try: a scheme, but for the layers in ``precision``, which have their own."""

    format: str
    scheme: str
    lowering: str = "auto"
    precision: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """``tflite dynamic_int8, chunked, float16 in dense``."""
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
    """What became of a candidate.

    ``excess`` is how many times its limit the worst figure of numbers and attention is: at most 1
    where all are within. ``drop`` is what the task lost, of the output that lost most: the drop and
    its 95% interval, in points of the ``score`` from 0 to 1. ``shortfall`` says what kept it from
    passing.
    """

    candidate: Candidate
    verdict: str
    bytes: int | None = None
    excess: float = math.inf
    score: float | None = None
    drop: tuple[float, float, float] | None = None
    shortfall: str = ""
    artifact: Mapping[str, Any] = field(default_factory=dict)
    p50_ms: float | None = None

    @property
    def passed(self) -> bool:
        return self.verdict == PASS


@dataclass(frozen=True)
class Space:
    """The whole schemes to try, the layers that may differ, and the schemes they may have."""

    singles: tuple[Candidate, ...]
    layers: tuple[Layer, ...] = ()
    levels: tuple[str, ...] = LEVELS


# A candidate, and whether its task is asked for too: without it a result says "not run" of it.
Evaluate = Callable[[Candidate, bool], Result]


class _Spent(Exception):
    """As many candidates were tried as were allowed."""


def search(space: Space, evaluate: Evaluate, *, most: int) -> tuple[Result, ...]:
    """Every result, in the order of trying: ``most`` candidates at most, one at least."""
    tried: dict[Candidate, Result] = {}
    judged: set[Candidate] = set()

    def ask(candidate: Candidate, task: bool = True) -> Result:
        if candidate not in tried and len(tried) >= max(1, most):
            raise _Spent
        if candidate not in tried or (task and candidate not in judged):
            tried[candidate] = evaluate(candidate, task)
            if task:
                judged.add(candidate)
        return tried[candidate]

    with contextlib.suppress(_Spent):
        for single in space.singles:
            ask(single)
        for start, above in _mixable(space, tuple(tried.values())):
            _mix(ask, start, above, space.layers)
    return tuple(tried.values())


def _mixable(space: Space, results: Sequence[Result]) -> list[tuple[Candidate, str]]:
    """For each format the schemes that fail though a larger one passes, each with that one."""
    found = []
    for format in dict.fromkeys(result.candidate.format for result in results):
        smallest: dict[str, Result] = {}
        for level in space.levels:
            there = [
                r
                for r in results
                if (r.candidate.format, r.candidate.scheme) == (format, level) and r.bytes
            ]
            if there:
                passing = [r for r in there if r.passed]
                smallest[level] = min(passing or there, key=lambda r: r.bytes or 0)
        levels = [level for level in space.levels if level in smallest]
        for k, level in enumerate(levels):
            if smallest[level].passed:
                break
            above = next((u for u in levels[k + 1 :] if smallest[u].passed), None)
            if above is not None:
                found.append((smallest[level].candidate, above))
    return found


def _mix(ask: Callable[..., Result], start: Candidate, above: str, layers: Sequence[Layer]) -> None:
    """Raise layers of ``start`` to the scheme ``above`` until it passes, and no more of them."""
    if len(layers) < 2:
        return

    def raised(names: Sequence[str]) -> Candidate:
        return start.with_precision(dict.fromkeys(names, above))

    # Alone among layers of the better scheme: what is seen is this layer's doing.
    cost = {
        layer.name: ask(raised([other.name for other in layers if other is not layer]), False)
        for layer in layers
    }
    order = sorted(layers, key=lambda layer: (-cost[layer.name].excess, layer.bytes))
    names = [layer.name for layer in order]
    low, high = 1, len(names)  # all of them raised is the scheme above, and passes
    while low < high:
        middle = (low + high) // 2
        if ask(raised(names[:middle])).passed:
            high = middle
        else:
            low = middle + 1
    kept = names[:low]
    if len(kept) < len(names) and not ask(raised(kept)).passed:
        return
    for layer in sorted(order[:low], key=lambda layer: -layer.bytes):
        fewer = [name for name in kept if name != layer.name]
        if fewer and ask(raised(fewer)).passed:
            kept = fewer


# Which is best


def best(results: Sequence[Result], aim: str) -> Result | None:
    """The smallest or fastest that passes; where none does, the one that comes nearest.

    None only where nothing could be made.
    """
    made = [result for result in results if result.bytes is not None]
    passing = [result for result in made if result.passed]
    if not passing:
        return min(made, key=_away, default=None)
    if aim == "latency" and (timed := [r for r in passing if r.p50_ms is not None]):
        fastest = min(r.p50_ms or math.inf for r in timed)
        passing = [r for r in timed if (r.p50_ms or math.inf) <= SAME_SPEED * fastest]
    return min(passing, key=lambda r: (r.bytes or 0, r.excess))


def _away(result: Result) -> tuple[Any, ...]:
    """How far from passing: an open verdict is nearer than a failed one."""
    rank = (INCONCLUSIVE, FAIL, NOT_RUN).index(result.verdict)
    high = math.inf if result.drop is None else result.drop[2]
    return (rank, max(result.excess, 1.0), high, result.bytes)


def frontier(results: Sequence[Result], aim: str = "size") -> tuple[Result, ...]:
    """The results that no other beats in bytes, in the task's score and, where timed, in speed."""

    def figures(result: Result) -> tuple[float, ...]:
        time = math.inf if result.p50_ms is None else result.p50_ms
        score = -math.inf if result.score is None else result.score
        return (float(result.bytes or 0), -score, time)

    made = [result for result in results if result.bytes is not None and result.score is not None]
    kept: list[Result] = []
    for result in made:
        own = figures(result)
        beaten = any(
            all(a <= b for a, b in zip(figures(other), own, strict=True)) and figures(other) != own
            for other in made
        )
        if not beaten and own not in [figures(other) for other in kept]:
            kept.append(result)
    by = (lambda r: r.p50_ms or math.inf) if aim == "latency" else (lambda r: r.bytes or 0)
    return tuple(sorted(kept, key=by))
