"""Which of several ways to make a file of one scheme is the right one for this model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn import metrics
from edgeattn.errors import ConversionError
from edgeattn.tensors import Tensors, TensorSpec
from edgeattn.validation import LIMITS

# Every so many samples one is not measured on: choices are made on those, since a file that cuts
# off what it has not seen must not look good. So few samples are used for both.
APART = 4
FEW = 32
JUDGED = 128
# Of its limits a file must keep so far away here: the verdict is passed on other samples.
MARGIN = 0.5
# Where none is within: what a plan that keeps more in float32 must gain over the one before it.
GAIN = 1.1
NO_INT16 = (
    "An int8 file has one integer type for its activations: attention can be int8 or float32 in "
    "it. For int16, ask for the scheme int16x8."
)


@dataclass(frozen=True)
class Ends:
    """What a file takes and gives: all outputs, and which of them are attention maps."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    maps: tuple[str, ...]
    tokens: tuple[str, ...] = ()  # inputs that an embedding looks up
    recurrent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What stays float32 beyond what has no integer operator."""

    attention: bool
    recurrence: bool
    deep: bool = False  # the projections that make queries and keys too

    @property
    def kept(self) -> int:
        return self.attention + self.recurrence + self.deep


@dataclass(frozen=True)
class Tried:
    """A file that was made after a plan: ``made`` is whatever its format calls one."""

    plan: Plan
    size: int
    made: Any


def split(samples: Tensors) -> tuple[Tensors, Tensors]:
    """Samples to measure on, and others to judge on."""
    if len(next(iter(samples.values()))) < FEW:
        return samples, samples
    measured = {name: array[np.arange(len(array)) % APART != 0] for name, array in samples.items()}
    return measured, {name: array[::APART] for name, array in samples.items()}


def chosen(
    tried: Sequence[Tried],
    run: Callable[[Any, Tensors], Tensors],
    ends: Ends,
    scheme: str,
    samples: Tensors,
) -> tuple[Any, tuple[str, ...]]:
    """The smallest file within the scheme's limits, and why; else the one that comes nearest.

    ``run`` gives the outputs of a file, and those of the float32 model for ``None``; ``samples``
    are those that nothing was measured on.
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
        scored.append((max(MARGIN, excess(expected, actual, ends, scheme)), item.size, item))
    if not scored:
        raise ConversionError(f"The runtime refuses every {scheme} file: {reasons[0]}")
    within = [entry for entry in scored if entry[0] <= MARGIN]
    if within:
        score, _, best = min(within, key=lambda entry: entry[1])
    else:
        score, _, best = min(scored, key=lambda entry: entry[0] * GAIN ** entry[2].plan.kept)
    others = [(s, item) for s, _, item in scored if item is not best]
    return best.made, _told(best, score, others, scheme)


def dynamic(
    computing: Callable[[], Any],
    only: Callable[[], Any],
    run: Callable[[Any, Tensors], Tensors],
    ends: Ends,
    scheme: str,
    samples: Tensors | None,
) -> tuple[Any, tuple[str, ...]]:
    """The file that computes over int8 weights with int8 activations, or with float32 ones.

    The former is the faster and is taken where it keeps the scheme's limits on ``samples``, or
    where there are none to see it on; the latter where that one does not and it does better.
    """
    fast = computing()
    if samples is None:
        return fast, ()
    judged = {name: array[:JUDGED] for name, array in samples.items()}
    expected = run(None, judged)
    score = excess(expected, run(fast, judged), ends, scheme)
    if score <= MARGIN:
        return fast, ()
    careful = only()
    better = excess(expected, run(careful, judged), ends, scheme)
    if not better < score:
        return fast, ()
    return careful, (
        "activations kept float32 on purpose "
        f"(scaled to int8, an error would be {score:.1f} times its limit)",
    )


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
            ("its projections, over int8 weights", best.plan.deep),
            ("recurrent steps, over int8 weights", best.plan.recurrence),
        )
        if is_kept
    ]
    if not kept:
        return ()
    what = f"kept float32 on purpose: {', '.join(kept)}"
    if not others:
        return (f"{what} (as asked)",)
    worse = max((s for s, _ in others), default=1.0)
    all_integer = next(
        (item for _, item in others if not any((item.plan.attention, item.plan.recurrence))),
        others[0][1],
    )
    cost = f"{best.size - all_integer.size:+,} bytes"
    if worse > score:
        return (f"{what} (in {scheme}, an error would be {worse:.1f} times its limit; {cost})",)
    return (f"{what} (it makes the smaller file: {cost})",)
