"""Whether an artifact is converted right: does rounding alone, as its scheme must, explain it?

When the model is converted, Keras itself runs with weights rounded as the scheme rounds them. Its
errors on the reference are in ``reference["rounding"]`` of the manifest, by the type of the
weights, output and metric. An artifact whose errors are at most :data:`FACTOR` times as large is
converted right. Whether it is also good enough is another question: the limits of its scheme, which
tell faults from rounding, give way to the widest limits of all schemes, unless the user sets them.
An error beyond those too, by at most :data:`COARSE`, is for the user to decide.

Rounding of activations is not part of it, so that the answer is often "unknown" for integer
activations. The errors of single outputs and maps can be explained nevertheless.

For float32, whose weights are not rounded, the costs are the errors of Keras after every operation
has rounded differently. They are measured only if an artifact misses a limit, and extend its limits
by as much, up to those of float16.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeattn.metrics.limits import LIMITS, Check, Limit, is_set
from edgeattn.metrics.lost_values import METRIC as LOST_VALUES
from edgeattn.metrics.running_attention import WORST_SAMPLE
from edgeattn.metrics.verdict import RIGHT, UNKNOWN, WRONG
from edgeattn.printable import enumerated

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact, Manifest

# The type in which each scheme stores weights.
WEIGHTS: Mapping[str, str] = {
    "float16": "float16",
    "dynamic_int8": "int8",
    "int8": "int8",
    "int16x8": "int8",
}
# The rounded weights of a file are not exactly those of Keras, because converters scale and merge
# weights before they round them. Errors of another draw of the same rounding are within twice.
FACTOR = 2.0
# By how much an explained error may exceed the widest limit of all schemes without failing.
COARSE = 3.0
# The metrics that rounding changes, by stage.
METRICS = {
    "numbers": ("snr_db",),
    "attention": ("max_abs_error", "jensen_shannon", "worst_jensen_shannon"),
}
# Those that rounding in float32 changes.
FLOAT32_METRICS = {
    "numbers": ("tolerance_ratio", "equal_values"),
    "attention": (*METRICS["attention"], "row_sum_error"),
}
# A failure that no rounding explains.
_NEVER_ROUNDING = {"missing", "wrong_shape", "non_finite", "repeat_error", "batch_error"}
# The limits that decide if rounding explains a missed one, by metric: the widest of all schemes.
_WIDEST = LIMITS["int8"]
_NAMES = {
    "snr_db": ("snr_db", _WIDEST.snr_db),
    "top1_agreement": ("top1_agreement", _WIDEST.top1_agreement),
    "equal_values": ("top1_agreement", _WIDEST.top1_agreement),
    "max_abs_error": ("attention_max_abs", _WIDEST.attention_max_abs),
    "jensen_shannon": ("attention_jsd", _WIDEST.attention_jsd),
    "worst_jensen_shannon": ("attention_jsd", WORST_SAMPLE * _WIDEST.attention_jsd),
    # A share: the largest of these errors has a limit of its own.
    "exceeding_maps": ("attention_max_abs", 1.0),
}
# The largest extended limits of float32: of maps, those of float16; of outputs, a multiple of the
# tolerance.
_LARGEST = {
    "tolerance_ratio": ("atol", 10.0),
    "exceeding_samples": ("atol", 1.0),
    "max_abs_error": ("attention_max_abs", LIMITS["float16"].attention_max_abs),
    "row_sum_error": ("attention_max_abs", LIMITS["float16"].attention_max_abs),
    "jensen_shannon": ("attention_jsd", LIMITS["float16"].attention_jsd),
    "worst_jensen_shannon": ("attention_jsd", WORST_SAMPLE * LIMITS["float16"].attention_jsd),
    "exceeding_maps": ("attention_max_abs", 1.0),
}

# Of outputs and maps in a reason.
_MOST_NAMES = 3

# Errors of Keras with rounded weights, by output and metric.
Costs = Mapping[str, Mapping[str, float]]


def rounding_costs(manifest: Manifest, artifact: Artifact) -> Costs:
    """What rounding the weights of ``artifact`` costs; {} if that is not known."""
    by_weights = manifest.reference.get("rounding")
    weights = WEIGHTS.get(artifact.scheme, artifact.scheme)
    outputs = by_weights.get(weights) if isinstance(by_weights, Mapping) else None
    if not isinstance(outputs, Mapping):
        return {}
    return {
        str(name): {str(metric): _number(value) for metric, value in values.items()}
        for name, values in outputs.items()
        if isinstance(values, Mapping)
    }


def _number(value: object) -> float:
    """A number of a manifest, which has infinities as strings; NaN if it is something else."""
    try:
        return float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def conversion_result(
    artifact: Artifact,
    checks: Sequence[Check],
    costs: Costs,
    unstable: frozenset[str] = frozenset(),
) -> str:
    """:data:`RIGHT`, :data:`WRONG` or :data:`UNKNOWN`.

    ``checks`` are those of the stages structure, numbers and attention on the reference, with the
    scheme's own limits. ``unstable`` are metrics whose limits a right float32 artifact may miss,
    because Keras itself is unstable on the reference.
    """
    checks = _without_lost_values(checks)
    missed = [check for check in checks if check.passed is False]
    if _has_other_faults(missed):
        return WRONG
    if artifact.scheme == "float32":
        unexplained = {check.metric for check in missed if not _is_float32_rounding(check, costs)}
        if not unexplained:
            return RIGHT
        return UNKNOWN if unexplained <= unstable else WRONG
    if not costs:
        return RIGHT if not missed and _are_exact(checks) else UNKNOWN
    if explained_outputs(checks, costs) >= {check.output for check in checks if check.output}:
        return RIGHT
    # Only a file that computes in float32 has no other rounding.
    return WRONG if missed and artifact.scheme == "float16" else UNKNOWN


def explained_outputs(checks: Sequence[Check], costs: Costs) -> frozenset[str]:
    """The outputs and maps whose errors are all explained by rounding.

    Empty if the costs are not known, or if the artifact has a fault that is no rounding.
    """
    checks = _without_lost_values(checks)
    if not costs or _has_other_faults([check for check in checks if check.passed is False]):
        return frozenset()
    outputs = {check.output for check in checks if check.output is not None}
    if any(check.artifact.endswith(" float32") for check in checks):
        unexplained = {
            check.output
            for check in checks
            if check.passed is False and not _is_float32_rounding(check, costs)
        }
        return frozenset(outputs - unexplained)
    by_output = {name: [check for check in checks if check.output == name] for name in outputs}
    return frozenset(
        name for name in outputs if _is_explained(by_output[name], costs.get(name, {}))
    )


def unknown_reason(
    artifact: Artifact, checks: Sequence[Check], costs: Costs, explained: Collection[str]
) -> str:
    """Why :func:`conversion_result` is :data:`UNKNOWN`, a clause without a full stop.

    ``explained`` are the outputs and maps whose errors rounding explains.
    """
    compared = [check for check in checks if check.data is None and check.output is not None]
    if not compared:
        return "the runtime could not load or run the file"
    if artifact.scheme == "float32":
        missed = [check for check in compared if check.passed is False]
        errors = f"the errors of {_names(missed or compared)}"
        return f"{errors} are on synthetic samples, on which Keras itself is unstable"
    if not costs:
        weights = WEIGHTS.get(artifact.scheme, artifact.scheme)
        return f"the bundle has no errors of Keras with weights rounded to {weights}"
    errors = f"the errors of {_names([x for x in compared if x.output not in explained])}"
    return (
        f"rounding of the weights alone does not explain {errors}; other rounding is not measured"
    )


def _names(checks: Sequence[Check]) -> str:
    """The first outputs and maps of checks, and how many more there are."""
    names = list(dict.fromkeys(str(check.output) for check in checks))
    more = len(names) - _MOST_NAMES
    return enumerated([*names[:_MOST_NAMES], *([f"{more} more"] if more > 0 else [])])


def _are_exact(checks: Sequence[Check]) -> bool:
    """Whether outputs were compared, and all are equal integers or within float32's tolerance."""
    names = {check.output for check in checks if check.output is not None}
    return bool(names) and all(
        _is_explained([check for check in checks if check.output == name], {}) for name in names
    )


def _without_lost_values(checks: Sequence[Check]) -> list[Check]:
    """The checks of whole outputs: rounding costs say nothing about single values of an output."""
    return [check for check in checks if check.metric != LOST_VALUES]


def may_be_float32_rounding(artifact: Artifact, failed: Sequence[Check]) -> bool:
    """Whether a float32 artifact failed, and only in metrics that rounding changes."""
    return (
        bool(failed)
        and artifact.scheme == "float32"
        and all(check.metric in FLOAT32_METRICS.get(check.stage, ()) for check in failed)
    )


def _has_other_faults(missed: Iterable[Check]) -> bool:
    return any(check.stage == "structure" or check.metric in _NEVER_ROUNDING for check in missed)


def excess(check: Check) -> float:
    """By what factor of an error the limit of ``check`` is missed; 1 or less if it is met."""
    assert check.limit is not None
    if check.metric == "snr_db":
        return float(10.0 ** ((check.limit - check.value) / 20.0))
    if check.metric in ("top1_agreement", "equal_values", "batch_equal_values"):
        return (1.0 - check.value) / (1.0 - check.limit) if check.limit < 1 else math.inf
    ratio = check.value / check.limit if check.limit > 0 else math.inf
    # A divergence grows with the square of the error.
    return math.sqrt(ratio) if "jensen_shannon" in check.metric else ratio


def limit_name(check: Check) -> str | None:
    """The name with which the user sets the limit of ``check``; None if there is none."""
    return {**_LARGEST, **_NAMES}.get(check.metric, (None, 0.0))[0]


def with_wider_limits(
    checks: Iterable[Check],
    outputs: Collection[str],
    overrides: Sequence[Limit],
    float32: Costs | None = None,
) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """``checks``, and those of ``outputs`` that missed the limit of the artifact's scheme.

    Rounding explains the errors of ``outputs``, so among the former, each of the latter has the
    widest limit of all schemes. Limits that the user set, ``overrides``, stay. The limits of a
    float32 artifact are extended by its costs, ``float32``.
    """
    results, missed = [], []
    for check in checks:
        limit = _wider_limit(check, overrides, float32)
        if check.passed is False and limit is not None and check.output in outputs:
            missed.append(check)
            check = replace(check, limit=limit)
        results.append(check)
    return tuple(results), tuple(missed)


def _wider_limit(check: Check, overrides: Sequence[Limit], float32: Costs | None) -> float | None:
    """The limit of ``check`` if rounding explains its output; None if it stays."""
    names = _NAMES if float32 is None else _LARGEST
    name, widest = names.get(check.metric, (None, 0.0))
    if name is None or is_set(name, check.output, overrides):
        return None
    if name == "atol" and is_set("rtol", check.output, overrides):
        return None
    if float32 is None or check.metric.startswith("exceeding"):
        return widest
    return min(_float32_limit(check, float32), max(widest, check.limit or 0.0))


def _float32_limit(check: Check, costs: Costs) -> float:
    """The limit of ``check`` plus the error of Keras; the limit if there is no such error."""
    cost = costs.get(check.output or "", {}).get(check.metric, 0.0)
    return (check.limit or 0.0) + (cost if cost > 0 else 0.0)


def _is_float32_rounding(check: Check, costs: Costs) -> bool:
    """Whether a missed limit is explained by what rounding in float32 does to Keras itself.

    Classes change with the noise of the scores, which the tolerance of the output limits.
    """
    if check.metric in ("equal_values", "batch_equal_values"):
        equal = costs.get(check.output or "", {}).get("equal_values", 1.0)
        return 1.0 - check.value <= FACTOR * (1.0 - equal)
    if check.relation == ">=":
        return True
    return check.value <= _float32_limit(check, costs)


def _is_explained(checks: Sequence[Check], costs: Mapping[str, float]) -> bool:
    """Whether all errors of one output are what rounding alone gives, up to :data:`FACTOR`."""
    by_metric = {check.metric: check for check in checks}
    ratio = by_metric.get("tolerance_ratio")
    if ratio is not None and ratio.value <= 1:
        return True
    if "equal_values" in by_metric:
        return by_metric["equal_values"].value == 1
    # Classes change with the noise of the scores, which the signal-to-noise ratio measures.
    others = [check for check in checks if check.metric not in (*costs, "top1_agreement")]
    if not costs or any(check.passed is False for check in others):
        return False
    return all(
        _is_within(metric, by_metric[metric].value, cost) if metric in by_metric else False
        for metric, cost in costs.items()
    )


def _is_within(metric: str, value: float, cost: float) -> bool:
    if metric == "snr_db":
        return value >= cost - 20 * math.log10(FACTOR)
    if metric == "max_abs_error":
        return value <= FACTOR * cost + LIMITS["float32"].attention_max_abs
    # A divergence grows with the square of the error.
    return value <= FACTOR**2 * cost + LIMITS["float32"].attention_jsd
