"""Which of several ways to make a file of one scheme is the right one for this model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError, UsageError, first_line
from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import LIMITS
from edgeattn.tensors import Tensors, TensorSpec
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.candidates import MARGIN, PLAIN, Candidate, Stage
from edgeattn_converters.quantization.layer_weights import (
    LayerWeights,
    PrecisionOf,
    precisions,
    under,
)
from edgeattn_converters.quantization.summary import SchemeSummary
from edgeattn_converters.recipes import Recipe

# Every so many samples one is not measured on: choices are made on those, since a file that cuts
# off what it has not seen must not look good. So few samples are used for both.
APART = 4
FEW = 32
JUDGED = 128
# Where none is within: what a plan that keeps more in float32 must gain over the one before it.
GAIN = 1.1
# Files are timed in turns, the best of each counts.
TURNS, TIMED = 5, 8


@dataclass(frozen=True)
class ModelIO:
    """What a file takes and gives: all outputs, and which of them are attention maps."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    maps: tuple[str, ...]
    tokens: tuple[str, ...] = ()  # inputs that an embedding looks up
    recurrent: tuple[str, ...] = ()
    layers: tuple[LayerWeights, ...] = ()

    @property
    def main(self) -> tuple[TensorSpec, ...]:
        """The outputs that are not attention maps."""
        return tuple(spec for spec in self.outputs if spec.name not in self.maps)

    @property
    def recurs(self) -> bool:
        return any(layer.recurrent for layer in self.layers)


@dataclass(frozen=True)
class QuantizedModel:
    """A file of either format: ``content`` is the bytes of a ``.tflite``, or an ONNX model.

    ``told`` says why it became this and not something else, for people; ``cost`` what that costs
    beside the file with integers throughout: ``bytes`` more, and ``time`` as a ratio.
    """

    content: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    plan: Candidate = PLAIN
    told: tuple[str, ...] = ()
    achieved: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.ByteSize()


RunFunction = Callable[[Tensors], Tensors]
# A file opened in its runtime; ``None`` is the float32 one.
OpenModel = Callable[[QuantizedModel | None], AbstractContextManager[RunFunction]]


@dataclass(frozen=True)
class _Tried:
    item: QuantizedModel
    score: float


def with_summary(
    made: QuantizedModel, found: SchemeSummary, recipe: Recipe, options: QuantizationOptions
) -> QuantizedModel:
    """``made`` with what ``found`` says of it; :class:`ConversionError` where that is not what was
    asked for, and nobody said that it might be."""
    achieved: dict[str, Any] = found.to_json()
    try:
        found.check(recipe, weights_kept=bool(made.plan.half))
    except ConversionError:
        if not (options.allow_float_fallback or options.precision):
            raise
        achieved["fallback"] = True
    if recipe.scheme != "float32":
        achieved["summary"] = found.sentence(recipe, made.told)
    if made.plan.half and recipe.weights != "float16":
        achieved["kept_weights"] = {"float16": found.stored.get("float16", 0)}
    if made.cost:
        achieved["cost"] = dict(made.cost)
    return replace(made, achieved=achieved)


def candidate_precision(
    plan: Candidate, ends: ModelIO, options: QuantizationOptions, usual: str, upstream: set[bytes]
) -> PrecisionOf:
    """What a constant is stored in under ``plan``: as asked for its layer, or the ``usual``."""
    own = precisions(options.precision, ends.layers, usual)
    return under(plan, own, upstream, ends.layers)


def split_samples(samples: Tensors) -> tuple[Tensors, Tensors]:
    """Samples to measure on, and samples to judge on: first those that are not measured on.

    The worst of a map's weights is found in many samples only, so the others follow.
    """
    rows = np.arange(len(next(iter(samples.values()))))
    if len(rows) < FEW:
        return samples, samples
    apart = rows % APART == 0
    order = np.concatenate([rows[apart], rows[~apart]])
    measured = {name: array[~apart] for name, array in samples.items()}
    return measured, {name: array[order] for name, array in samples.items()}


def select_candidate(
    steps: Iterable[Stage],
    make: Callable[[Candidate], QuantizedModel],
    opened: OpenModel,
    ends: ModelIO,
    scheme: str,
    samples: Tensors | None,
) -> QuantizedModel:
    """The smallest file within the scheme's limits, and why; else the one that comes nearest.

    ``samples`` are those that nothing was measured on; without any, the first plan is followed.
    Raises :class:`ConversionError` where no plan gives a file that its runtime takes.
    """
    listed = list(steps)
    if samples is None:
        return make(listed[0].plans[0])
    judged = {name: array[:JUDGED] for name, array in samples.items()}
    with opened(None) as run:
        expected = run(judged)
    tried: list[_Tried] = []
    reasons: list[str] = []
    for step in listed:
        if tried and min(item.score for item in tried) <= step.above:
            break
        for plan in step.plans:
            try:
                made = make(plan)
                with opened(made) as run:
                    score = excess(expected, run(judged), ends, scheme)
            except UsageError:
                raise
            except Exception as error:  # quantizers and runtimes refuse in classes of their own
                reasons.append(first_line(error) or type(error).__name__)
                continue
            tried.append(_Tried(made, score))
    if not tried:
        raise ConversionError(f"No {scheme} file can be made of this model: {reasons[0]}")
    best = _best(tried)
    cost = _cost(best, tried, opened, judged)
    return replace(best.item, told=_told(best, tried, scheme, cost), cost=cost)


def _best(tried: Sequence[_Tried]) -> _Tried:
    within = [entry for entry in tried if entry.score <= MARGIN]
    if within:
        return min(within, key=lambda entry: entry.item.size)
    return min(tried, key=lambda entry: max(MARGIN, entry.score) * GAIN**entry.item.plan.kept)


def _cost(
    best: _Tried, tried: Sequence[_Tried], opened: OpenModel, judged: Tensors
) -> Mapping[str, float]:
    """What ``best`` costs beside the plain plan, where that gave a file."""
    plain = next((entry.item for entry in tried if entry.item.plan.plain), None)
    if plain is None or plain is best.item or best.item.plan.careful:
        return {}
    few = {name: array[:TIMED] for name, array in judged.items()}
    took: dict[int, float] = {}
    with opened(plain) as one, opened(best.item) as other:
        for _ in range(TURNS):
            for key, run in enumerate((one, other)):
                start = time.perf_counter()
                run(few)
                took[key] = min(took.get(key, np.inf), time.perf_counter() - start)
    return {"bytes": best.item.size - plain.size, "time": round(took[1] / took[0], 2)}


def excess(expected: Tensors, actual: Tensors, ends: ModelIO, scheme: str) -> float:
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
    return float(worst)


def _told(
    best: _Tried, tried: Sequence[_Tried], scheme: str, cost: Mapping[str, float]
) -> tuple[str, ...]:
    plan = best.item.plan
    if plan.plain:
        return ()
    others = [entry for entry in tried if entry is not best]
    worse = max((entry.score for entry in others), default=0.0)
    halved = {"": "", "recurrent": "recurrent weights", "all": "weights"}[plan.half]
    weights = f"; {halved} of what attention's scores are made of are float16" if halved else ""
    if plan.careful:
        aim = "" if worse > 1 else f"; no more than {MARGIN} is aimed for"
        return (
            "activations kept float32 on purpose "
            f"(scaled to int8, an error would be {worse:.2g} times its limit{aim}){weights}",
        )
    names = (
        ("attention's softmax, scores and context", plan.attention),
        ("its projections, over int8 weights", plan.deep),
        ("recurrent steps, over int8 weights", plan.recurrence),
        ("all that its scores are made of", plan.upstream),
    )
    what = f"kept float32 on purpose: {', '.join(name for name, kept in names if kept)}"
    price = f"{cost['bytes']:+,} bytes, {cost['time']:.2f} times the time" if cost else ""
    why = "as asked"
    if others:
        why = f"in {scheme}, an error would be {worse:.1f} times its limit"
        if worse <= best.score:
            why = "it makes the smaller file"
    return (f"{what} ({'; '.join(filter(None, (why, price)))}){weights}",)
