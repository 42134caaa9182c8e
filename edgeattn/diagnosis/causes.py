"""Noise of operators, and its causes beyond the rounding of their dtypes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeattn.diagnosis.graph import FIXED_SCALES, Constant, Encoding, Graph, Operator
from edgeattn.diagnosis.locate import readable_name
from edgeattn.diagnosis.matching import GraphPair
from edgeattn.tensors import Array

# An operator is faulty if its noise power exceeds that of rounding by this factor.
NOISE_FACTOR = 4.0
# Smallest constant offset of a result that is reported, in integer steps.
MIN_OFFSET_STEPS = 0.7
# Fewer integer steps than this for the values of a tensor are reported as coarse.
MIN_STEPS = 64
# Operators above this SNR differ in the order of summation only.
EQUAL_DB = 90.0
# Noise power below which an all-zero signal counts as equal.
ZERO_POWER = 1e-9
# Differences of a bias that do not matter, as a share of a typical result: a step of the products
# that it is added to may be larger than a small bias.
LEAST_BIAS = 1e-3
OPERANDS = "operands"
WEIGHTS, ATTRIBUTES, OFFSET, CLIPPING = "weights", "attributes", "offset", "clipping"
COARSE, UNEXPLAINED, ROUNDING = "coarse", "unexplained", "rounding"


@dataclass
class TensorNoise:
    """Sums over all samples for one tensor of the artifact.

    ``signal`` is the power of the reference's values; ``accumulated``, ``isolated`` and
    ``explained`` are powers of differences from them, see :mod:`edgeattn.diagnosis.comparison`.
    ``offset`` is the sum of the isolated differences, ``largest`` the largest of them, and ``low``
    and ``high`` the range of the reference's values.
    """

    tensor: str
    count: int = 0
    signal: float = 0.0
    accumulated: float = 0.0
    isolated: float = 0.0
    explained: float = 0.0
    offset: float = 0.0
    largest: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(
        self, reference: Array, accumulated: Array, isolated: Array, explained: Array | None
    ) -> None:
        if reference.size:
            self.low = min(self.low, float(reference.min()))
            self.high = max(self.high, float(reference.max()))
        expected = np.asarray(reference, np.float64).ravel()
        # Axes of size 1 may differ; values of another count cannot be compared.
        incomparable = np.full_like(expected, np.nan)
        values = [
            np.ravel(array).astype(np.float64) if np.size(array) == expected.size else incomparable
            for array in (accumulated, isolated, reference if explained is None else explained)
        ]
        # Equal infinities, such as those of a mask, do not differ.
        finite = np.where(np.isfinite(expected), expected, 0.0)
        with np.errstate(all="ignore"):
            differences = [
                np.where(
                    (array == expected) | (np.isnan(array) & np.isnan(expected)),
                    0.0,
                    array - finite,
                )
                for array in values
            ]
            self.count += expected.size
            self.signal += float(np.sum(finite**2))
            self.accumulated += float(np.sum(differences[0] ** 2))
            self.isolated += float(np.sum(differences[1] ** 2))
            self.explained += float(np.sum(differences[2] ** 2))
            self.offset += float(np.sum(differences[1]))
            largest = np.max(np.abs(differences[1]), initial=0.0)
            self.largest = float(np.maximum(self.largest, largest))


def find_cause(
    operator: Operator, noise: Sequence[TensorNoise], pair: GraphPair, limit_db: float
) -> tuple[str | None, dict[str, float]]:
    """Return a cause other than rounding, and the figures that its message contains.

    ``noise`` is that of the operator's outputs, ``limit_db`` the SNR that outputs of the artifact
    must reach.
    """
    least = LEAST_BIAS * _typical_value(noise)
    for stored, expected in pair.constant_pairs(operator):
        difference = _weight_difference(stored, expected, least)
        if difference is None or _is_rounded_table(operator, pair.artifact, stored, expected):
            continue
        clipped = _clipped_table(operator, pair.artifact, stored, expected)
        return (WEIGHTS, difference) if clipped is None else (CLIPPING, clipped)
    for sums in noise:
        encoding = _stored_encoding(operator, pair.artifact, sums.tensor)
        limits = encoding.limits
        if encoding.scale is None or limits is None or not sums.count:
            continue
        mean = sums.offset / sums.count / encoding.scale
        variance = sums.isolated / sums.count / encoding.scale**2 - mean**2
        if abs(mean) > MIN_OFFSET_STEPS and math.sqrt(max(0.0, variance)) < MIN_OFFSET_STEPS:
            return OFFSET, {"steps": mean}
        isolated_db = decibels(sums.signal, sums.isolated)
        stored_range = {"kept_low": limits[0], "kept_high": limits[1]}
        beyond = max(limits[0] - sums.low, sums.high - limits[1])
        exceeds = beyond > encoding.scale and sums.largest > encoding.scale
        if exceeds and isolated_db < limit_db + 10:
            return CLIPPING, {"low": sums.low, "high": sums.high, **stored_range}
        steps = (max(sums.high, 0.0) - min(sums.low, 0.0)) / encoding.scale
        if isolated_db < limit_db and steps < MIN_STEPS:
            return COARSE, {"steps": steps, **stored_range}
    return None, {}


def _typical_value(noise: Sequence[TensorNoise]) -> float:
    """The root mean square of the values of the reference."""
    count = sum(sums.count for sums in noise)
    return math.sqrt(sum(sums.signal for sums in noise) / count) if count else 0.0


def wrong_weights_in_loop(body: GraphPair | None) -> tuple[str, dict[str, float]] | None:
    """Return the first operator of a loop's ``body`` with wrong weights, and by how much."""
    for operator in body.artifact.operators if body is not None else ():
        assert body is not None
        for stored, expected in body.constant_pairs(operator):
            difference = _weight_difference(stored, expected)
            if difference is not None:
                return f"{operator.kind} {readable_name(operator, body)}", difference
    return None


def attribute_differences(operator: Operator, pair: GraphPair) -> dict[str, tuple[str, str]]:
    """Return the attributes that differ from the counterpart: own value, reference's value."""
    partner = pair.counterpart(operator)
    if partner is None or partner.kind != operator.kind:
        return {}
    if operator.quantizes_input or partner.quantizes_input:
        return {}
    own, expected = operator.attributes, partner.attributes
    values = {name: (own.get(name, "-"), expected.get(name, "-")) for name in {*own, *expected}}
    return {name: values[name] for name in sorted(values) if len(set(values[name])) > 1}


def stored_rounding_power(operator: Operator, graph: Graph, sums: TensorNoise) -> float:
    """The power of rounding values to the scale that the artifact stores, which may be coarse."""
    scale = _stored_encoding(operator, graph, sums.tensor).scale
    return 0.0 if scale is None else sums.count * scale**2 / 12


def rounding_power(operator: Operator, graph: Graph, sums: TensorNoise) -> float:
    """The power of rounding values to the best scale of their dtype: step^2 / 12 per value."""
    return sums.count * _best_step(operator, graph, sums) ** 2 / 12


def _best_step(operator: Operator, graph: Graph, sums: TensorNoise) -> float:
    encoding = _stored_encoding(operator, graph, sums.tensor)
    if encoding.scale is None:
        return 0.0
    if graph.encoding(sums.tensor).scale is None:
        return encoding.scale  # a decoded tensor: its integers have this scale already
    if operator.kind in FIXED_SCALES and encoding.dtype == "int8":
        return FIXED_SCALES[operator.kind]
    low, high = min(sums.low, 0.0), max(sums.high, 0.0)
    if encoding.dtype == "int16":
        return max(high, -low) / np.iinfo(np.int16).max
    return (high - low) / 255


def _stored_encoding(operator: Operator, graph: Graph, tensor: str) -> Encoding:
    """Return the encoding of ``tensor``; of a decoded tensor, that of its integers."""
    encoding = graph.encoding(tensor)
    if operator.recodes and not encoding.scale:
        return graph.encoding(operator.inputs[0])
    return encoding


def _is_rounded_table(
    operator: Operator, graph: Graph, stored: Constant, expected: Constant
) -> bool:
    """Whether ``stored`` is ``expected`` in the scale of the output, see :func:`_clipped_table`."""
    encoding, limits = stored.encoding, stored.encoding.limits
    if encoding.scale is None or limits is None or stored.values.size != expected.values.size:
        return False
    if all(graph.encoding(name) != encoding for name in operator.outputs):
        return False
    wanted = expected.values.astype(np.float64).reshape(stored.values.shape)
    # float32 rounds the ends of a step.
    return bool((np.abs(stored.values - wanted) <= 0.501 * encoding.scale).all())


def _clipped_table(
    operator: Operator, graph: Graph, stored: Constant, expected: Constant
) -> dict[str, float] | None:
    """Return the ranges if ``stored`` differs from ``expected`` only because values are clipped.

    A table, from which an operator such as GATHER selects rows, has the scale of the output, which
    comes from calibration.
    """
    encoding, limits = stored.encoding, stored.encoding.limits
    if limits is None or expected.values.size != stored.values.size:
        return None
    if all(graph.encoding(name) != encoding for name in operator.outputs):
        return None
    wanted = expected.values.astype(np.float64)
    clipped = Constant(np.clip(wanted, *limits), expected.encoding)
    if _weight_difference(stored, clipped) is not None:
        return None
    ranges = {"low": float(wanted.min()), "high": float(wanted.max())}
    return {**ranges, "kept_low": limits[0], "kept_high": limits[1], "table": 1.0}


def _weight_difference(
    stored: Constant, expected: Constant, least: float = 0.0
) -> dict[str, float] | None:
    """Return how far ``stored`` is from ``expected`` if its dtype's rounding cannot explain it.

    Smaller differences of a bias than ``least`` do not matter.
    """
    if stored.values.size != expected.values.size:
        return None
    values = stored.values.astype(np.float64)
    # Axes of size 1 may differ.
    wanted = expected.values.astype(np.float64).reshape(values.shape)
    if stored.encoding.dtype == "int32":
        # A bias has a finer scale than the products that it is added to.
        allowed = np.full_like(wanted, 0.02 * float(np.abs(wanted).max(initial=0.0)) + 1e-6 + least)
    else:
        allowed = np.maximum(_largest_rounding(wanted, stored.encoding), 1e-9)
        if expected.encoding.dtype != "float32":
            own = _largest_rounding(expected.values.astype(np.float64), expected.encoding)
            allowed = allowed + np.broadcast_to(own, expected.values.shape).reshape(values.shape)
    with np.errstate(invalid="ignore"):
        difference = np.abs(values - wanted)
        share = float(np.mean(~(difference <= allowed)))
    if not share:
        return None
    return {"share": share, "largest": float(np.max(difference)), "count": float(wanted.size)}


def _largest_rounding(values: Array, encoding: Encoding) -> Array:
    """Return a step of ``encoding`` for each value, along axes that broadcast."""
    axis = encoding.channel_axis
    other_axes = tuple(k for k in range(values.ndim) if k != axis)
    largest = np.abs(values).max(other_axes if axis is not None else None, keepdims=True)
    step = {"float32": 1e-5, "float16": 2.0**-10, "int4": 1 / 7}.get(encoding.dtype, 1 / 127)
    return np.asarray(largest * step)


def decibels(signal: float, noise: float) -> float:
    """Return ``10 log10(signal / noise)``: infinite without noise, -inf if nothing is right."""
    if math.isnan(noise) or math.isinf(noise):
        return -math.inf
    if noise == 0.0:
        return math.inf
    if signal == 0.0:
        return math.inf if noise < ZERO_POWER else -math.inf
    return 10.0 * math.log10(signal / noise)
