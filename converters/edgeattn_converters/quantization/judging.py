"""Which of several ways to make a file of one scheme is the right one for this model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn import metrics
from edgeattn.errors import ConversionError
from edgeattn.tensors import Tensors, TensorSpec
from edgeattn.validation import LIMITS

# Samples that a choice is made on: enough to tell files apart, and quick.
JUDGED = 64


@dataclass(frozen=True)
class Ends:
    """What a file takes and gives: all outputs, and which of them are attention maps."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    maps: tuple[str, ...]
    recurrent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What stays float32 beyond what has no integer operator."""

    attention: bool
    recurrence: bool


@dataclass(frozen=True)
class Tried:
    """A file that was made after a plan: ``made`` is whatever its format calls one."""

    plan: Plan
    size: int
    made: Any


def chosen(
    tried: Sequence[Tried],
    run: Callable[[Any, Tensors], Tensors],
    ends: Ends,
    scheme: str,
    samples: Tensors,
) -> tuple[Any, tuple[str, ...]]:
    """The smallest file within the scheme's limits, and why; else the one that comes nearest.

    ``run`` gives the outputs of a file, and those of the float32 model for ``None``.
    """
    judged = {name: array[:JUDGED] for name, array in samples.items()}
    expected = run(None, judged)
    scored = []
    reasons = []
    for item in tried:
        try:
            actual = run(item.made, judged)
        except Exception as error:  # runtimes refuse in classes of their own
            reasons.append(str(error) or type(error).__name__)
            continue
        scored.append((max(1.0, excess(expected, actual, ends, scheme)), item.size, item))
    if not scored:
        raise ConversionError(f"The runtime refuses every {scheme} file: {reasons[0]}")
    score, _, best = min(scored, key=lambda entry: entry[:2])
    others = [(s, item) for s, _, item in scored if item is not best]
    return best.made, _told(best, score, others, scheme)


def excess(expected: Tensors, actual: Tensors, ends: Ends, scheme: str) -> float:
    """How many times its limit the worst figure is: at most 1 where all are within."""
    limits = LIMITS[scheme]
    worst = 0.0
    for spec in ends.outputs:
        want, got = expected[spec.name], actual[spec.name]
        if spec.name in ends.maps:
            worst = max(worst, metrics.max_abs_error(want, got) / limits.attention_max_abs)
            worst = max(worst, metrics.jensen_shannon(want, got) / limits.attention_jsd)
        elif want.dtype.kind == "f":
            # Noise is an amplitude: 20 dB are a factor of ten.
            worst = max(worst, 10 ** ((limits.snr_db - metrics.snr_db(want, got)) / 20))
    return worst


def _told(
    best: Tried, score: float, others: list[tuple[float, Tried]], scheme: str
) -> tuple[str, ...]:
    kept = [
        name
        for name, is_kept in (
            ("attention's softmax, scores and context", best.plan.attention),
            ("recurrent steps, over int8 weights", best.plan.recurrence),
        )
        if is_kept
    ]
    if not kept:
        return ()
    what = f"kept float32 on purpose: {' and '.join(kept)}"
    if not others:
        return (f"{what} (as asked)",)
    worse = max((s for s, _ in others), default=1.0)
    all_integer = next(
        (item for _, item in others if not any((item.plan.attention, item.plan.recurrence))),
        others[0][1],
    )
    cost = f"{best.size - all_integer.size:+,} bytes"
    if worse > score:
        return (f"{what} (in {scheme}, the limits would be exceeded {worse:.1f} times; {cost})",)
    return (f"{what} (it makes the smaller file: {cost})",)
