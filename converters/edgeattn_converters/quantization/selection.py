"""Selecting the best of several candidates for a file of one scheme."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np

from edgeattn.errors import SchemeError, UsageError, first_line
from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import LIMITS, Check, checks_of
from edgeattn.tensors import Tensors
from edgeattn.validation.artifact import is_by_chance
from edgeattn.validation.comparison import attention_checks, lost_checks, output_checks
from edgeattn.validation.rounding import excess
from edgeattn_converters.quantization.candidates import DEFAULT, TARGET, Candidate, Stage
from edgeattn_converters.quantization.quantized_model import (
    ModelIO,
    OpenModel,
    QuantizationSamples,
    QuantizedModel,
    RunFunction,
)
from edgeattn_converters.quantization.summary import IN_FLOAT32

# Ranges are measured on all calibration samples, or an extreme in one that was left out would be
# clipped. What clips unseen values is found on the reference, on which no range is measured.
SELECTION_SAMPLES = 128
# If no candidate reaches the target, what one with one more float part must gain.
GAIN = 1.1
# Files are timed alternately; the best round of each counts.
ROUNDS, TIMED_SAMPLES = 5, 8


@dataclass(frozen=True)
class _Attempt:
    """A candidate's model, its ratio of an error to its limit, and whether it is what the scheme
    requests.

    ``expense`` is lower for a faster model.
    """

    model: QuantizedModel
    ratio: float
    achieved: bool = True
    expense: float = 0.0

    @property
    def candidate(self) -> Candidate:
        return self.model.candidate


def selected_rows(samples: Tensors) -> Tensors:
    """At most :data:`SELECTION_SAMPLES` samples, evenly spaced, because a file may be sorted."""
    count = len(next(iter(samples.values())))
    rows = np.linspace(0, count - 1, min(count, SELECTION_SAMPLES)).astype(int)
    return {name: array[rows] for name, array in samples.items()}


def select_candidate(
    stages: Iterable[Stage],
    quantize: Callable[[Candidate], QuantizedModel],
    open_model: OpenModel,
    io: ModelIO,
    scheme: str,
    samples: Tensors | QuantizationSamples | None,
    achieves: Callable[[QuantizedModel], bool] = lambda model: True,
    expense: Callable[[QuantizedModel], float] = lambda model: model.size,
) -> QuantizedModel:
    """Quantize by stages and return the fastest model near the scheme's limits, or the closest.

    Without ``samples``, the first candidate is returned. ``expense`` is lower for a faster model.
    A model that the verdict on the reference would reject exceeds the limits, whatever its errors
    on the samples are. Models that do not achieve the scheme are returned only if all others exceed
    its limits, and those with blockers only if all have some. Raises :class:`SchemeError` if no
    candidate gives a file that its runtime can run.
    """
    stages = list(stages)
    if samples is None:
        return quantize(stages[0].candidates[0])
    comparison = _Comparison(QuantizationSamples.of(samples), io, scheme)
    with open_model(None) as run:
        expected = comparison.run(run)
    attempts: list[_Attempt] = []
    reasons: list[str] = []
    for stage in stages:
        if min((item.ratio for item in attempts if item.achieved), default=np.inf) <= (
            stage.threshold
        ):
            break
        models = [(expense(model), model) for model in _quantized(stage, quantize, reasons)]
        # From the fastest, so that the others need not run if it suffices.
        for cost, model in sorted(models, key=itemgetter(0)):
            try:
                with open_model(model) as run:
                    ratio = comparison.ratio(expected, comparison.run(run))
            except Exception as error:  # runtimes raise errors of their own classes
                reasons.append(first_line(error) or type(error).__name__)
                continue
            attempts.append(_Attempt(model, ratio, achieves(model), cost))
            if attempts[-1].achieved and ratio <= TARGET:
                break
    if not attempts:
        raise SchemeError(f"The model cannot be converted to {scheme}: {reasons[0]}")
    # A file that must have integers only cannot be written otherwise.
    possible = [item for item in attempts if item.achieved or not item.model.blockers] or attempts
    best = _best([item for item in attempts if item.achieved and item.ratio <= 1] or possible)
    price = _cost(best, attempts, open_model, comparison.samples)
    is_requested = len(stages[0].candidates) == 1
    notes = _notes(best, attempts, scheme, price, is_requested=is_requested)
    return replace(best.model, notes=notes, cost=price)


def _quantized(
    stage: Stage, quantize: Callable[[Candidate], QuantizedModel], reasons: list[str]
) -> Iterator[QuantizedModel]:
    """The models of a stage; appends to ``reasons`` why one cannot be made."""
    for candidate in stage.candidates:
        try:
            yield quantize(candidate)
        except UsageError:
            raise
        except Exception as error:  # quantizers raise errors of their own classes
            reasons.append(first_line(error) or type(error).__name__)


class _Comparison:
    """The comparison of candidates with the float32 model on samples and on the reference."""

    def __init__(self, samples: QuantizationSamples, io: ModelIO, scheme: str) -> None:
        self.samples = selected_rows(samples.inputs)
        self._reference, self._ordinary = samples.reference, samples.ordinary
        self._io, self._scheme = io, scheme

    def run(self, run: RunFunction) -> tuple[Tensors, Tensors]:
        """Outputs for the samples and for the reference."""
        return run(self.samples), {} if self._reference is None else run(self._reference)

    def ratio(self, expected: tuple[Tensors, Tensors], actual: tuple[Tensors, Tensors]) -> float:
        """The largest ratio of an error to its limit; that on the reference counts if it misses
        one."""
        ratio = limit_ratio(expected[0], actual[0], self._io, self._scheme)
        if self._reference is None:
            return ratio
        missed = missed_limits(expected[1], actual[1], self._ordinary, self._io, self._scheme)
        return max(ratio, missed)


def _best(attempts: Sequence[_Attempt]) -> _Attempt:
    within = [attempt for attempt in attempts if attempt.ratio <= TARGET]
    if within:
        return min(within, key=lambda attempt: (attempt.expense, attempt.model.size))
    return min(
        attempts, key=lambda item: max(TARGET, item.ratio) * GAIN**item.candidate.float_parts
    )


def _cost(
    best: _Attempt, attempts: Sequence[_Attempt], open_model: OpenModel, samples: Tensors
) -> Mapping[str, float]:
    """What ``best`` costs compared with the default candidate, if that gave a file."""
    default = next((item.model for item in attempts if item.candidate == DEFAULT), None)
    if default is None or default is best.model or best.candidate.float_activations:
        return {}
    rows = {name: array[:TIMED_SAMPLES] for name, array in samples.items()}
    seconds = [np.inf, np.inf]
    with open_model(default) as run_default, open_model(best.model) as run_best:
        for _ in range(ROUNDS):
            for key, run in enumerate((run_default, run_best)):
                start = time.perf_counter()
                run(rows)
                seconds[key] = min(seconds[key], time.perf_counter() - start)
    return {
        "bytes": best.model.size - default.size,
        "time": round(seconds[1] / seconds[0], 2),
    }


def within_target(
    open_model: OpenModel,
    io: ModelIO,
    scheme: str,
    model: QuantizedModel,
    samples: Tensors | QuantizationSamples,
) -> bool:
    """Whether all errors of a model are within the target for a candidate."""
    comparison = _Comparison(QuantizationSamples.of(samples), io, scheme)
    with open_model(None) as run_float, open_model(model) as run:
        expected = comparison.run(run_float)
        return comparison.ratio(expected, comparison.run(run)) <= TARGET


def limit_ratio(expected: Tensors, actual: Tensors, io: ModelIO, scheme: str) -> float:
    """The largest ratio of an error to its limit; at most 1 if all errors are within them.

    It is infinite if a value is not finite, unlike in ``expected``. If values of an output or heads
    of a map are lost, it is larger by 1, so that candidates that all lose them remain in order.
    """
    limits = LIMITS[scheme]
    worst = 0.0
    lost = False
    states = {spec.state for spec in io.inputs}
    for spec in io.outputs:
        want, got = metrics.mask_equal_non_finite(expected[spec.name], actual[spec.name])
        if got.dtype.kind == "f" and not np.isfinite(got).all():
            return np.inf
        if spec.name not in states:
            stage = "attention" if spec.name in io.maps else "numbers"
            found = lost_checks(checks_of("", stage, spec.name), stage, want, got, limits)
            lost |= any(check.passed is False for check in found)
        if spec.name in io.maps:
            worst = max(worst, metrics.max_abs_error(want, got) / limits.attention_max_abs)
            worst = max(worst, metrics.jensen_shannon(want, got) / limits.attention_jsd)
        elif want.dtype.kind == "f":
            # The ratio is one of amplitudes: 20 dB are a factor of ten.
            worst = max(worst, 10 ** ((limits.snr_db - metrics.snr_db(want, got)) / 20))
    return float(worst) + lost


def missed_limits(
    expected: Tensors, actual: Tensors, ordinary: int, io: ModelIO, scheme: str
) -> float:
    """By what factor rows of the reference miss a limit of the verdict; 0 if they meet all.

    The first ``ordinary`` rows are those before the extremes.
    """
    limits, missed = LIMITS[scheme], [0.0]
    for spec in io.outputs:
        want, got = expected[spec.name], actual[spec.name]
        if metrics.new_non_finite(want, got):
            return np.inf
        want, got = metrics.mask_equal_non_finite(want, got)
        if not limits.extremes:
            want, got = want[:ordinary], got[:ordinary]
        is_map = spec.name in io.maps
        check = checks_of("", "attention" if is_map else "numbers", spec.name)
        checks: Iterable[Check] = (
            attention_checks(check, want, got, limits)
            if is_map
            else output_checks(check, want, got, limits, ordinary)
        )
        missed += [excess(c) for c in checks if c.passed is False and not is_by_chance(c)]
    return float(np.nan_to_num(np.max(missed), nan=np.inf, posinf=np.inf))


def _notes(
    best: _Attempt,
    attempts: Sequence[_Attempt],
    scheme: str,
    cost: Mapping[str, float],
    *,
    is_requested: bool,
) -> tuple[str, ...]:
    """What is float in the best candidate, and why; ``is_requested`` if there was no choice."""
    candidate = best.candidate
    if candidate == DEFAULT:
        return ()
    others = [attempt for attempt in attempts if attempt is not best]
    ratio = max((attempt.ratio for attempt in others), default=0.0)
    kind = {"": "", "recurrent": "recurrent weights", "all": "weights"}[candidate.float16]
    float16 = (f"the {kind} that attention depends on are float16",) if kind else ()
    if candidate.float_activations:
        reason = f"in int8, an error would be {ratio:.2g} times its limit"
        if ratio <= TARGET:
            reason = "its products are too small to be faster in int8"
        elif ratio <= 1:
            reason += f", above the target of {TARGET}"
        return (f"activations stay float32 ({reason})", *float16)
    parts = (
        ("softmax, scores and context of attention", candidate.attention),
        ("projections of attention (int8 weights)", candidate.projections),
        ("recurrent steps (int8 weights)", candidate.recurrence and not candidate.step_products),
        ("recurrent steps except their products", candidate.step_products),
        ("updates of the states of recurrent steps", candidate.states),
        ("functions of these updates", candidate.functions),
        ("all operators that attention depends on", candidate.upstream),
    )
    if not others and is_requested:
        reason = "as requested"
    elif ratio <= max(best.ratio, TARGET):
        reason = "the fastest file near the limits"
    else:
        reason = f"in {scheme}, an error would be {_factor(ratio)} times its limit"
    price = f"; size {cost['bytes']:+,} bytes, latency x {cost['time']:.2f}" if cost else ""
    names = ", ".join(name for name, is_float in parts if is_float)
    return (f"{IN_FLOAT32}{names} ({reason}{price})", *float16)


def _factor(ratio: float) -> str:
    """A ratio with enough digits to tell it from 1."""
    return f"{ratio:.1f}" if f"{ratio:.1f}" != "1.0" else f"{ratio:.3f}"
