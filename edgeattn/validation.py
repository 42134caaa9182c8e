"""The verdict: does an artifact compute what the Keras original computed?

Stages: structure, numbers, attention, task, device. A stage that did not run says "not run". What
is expected comes out of the bundle alone (``reference.npz``), so a device without TensorFlow can
judge for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn import metrics
from edgeattn.bundle import Artifact, Bundle
from edgeattn.errors import ArtifactError, BundleError, RuntimeUnavailableError
from edgeattn.runners import Runner
from edgeattn.tensors import Array, Tensors

PASS, FAIL, INCONCLUSIVE, NOT_RUN = "pass", "fail", "inconclusive", "not run"
STAGES = ("structure", "numbers", "attention", "task", "device")


@dataclass(frozen=True)
class Limits:
    """What an artifact of a scheme may differ by; see "The verdict" in the documentation.

    Outputs pass that are within ``atol + rtol |expected|`` or reach ``snr_db``.
    """

    snr_db: float
    top1_agreement: float
    attention_max_abs: float
    attention_jsd: float
    atol: float = 1e-5
    rtol: float = 1e-4


LIMITS: Mapping[str, Limits] = {
    "float32": Limits(math.inf, 1.0, 1e-5, 1e-8),
    "float16": Limits(50.0, 0.999, 2e-3, 1e-5),
    "int16x8": Limits(40.0, 0.995, 5e-3, 1e-4),
    "dynamic_int8": Limits(30.0, 0.99, 0.03, 1e-3),
    "int8": Limits(20.0, 0.98, 0.05, 5e-3),
}


@dataclass(frozen=True)
class Check:
    """One number held against its limit.

    ``better`` says on which side of the limit it must lie, ``"<="`` or ``">="``. Without a limit
    the number is told and judges nothing. NaN never passes.
    """

    artifact: str
    stage: str
    metric: str
    value: float
    limit: float | None = None
    better: str = "<="
    output: str | None = None

    @property
    def passed(self) -> bool | None:
        if self.limit is None:
            return None
        if self.better == "<=":
            return self.value <= self.limit
        return self.value >= self.limit

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "output": self.output,
            "metric": self.metric,
            "value": _json_number(self.value),
            "limit": None if self.limit is None else _json_number(self.limit),
            "passed": self.passed,
        }


@dataclass(frozen=True)
class ArtifactReport:
    """What was found about one artifact; ``reason`` says why it did not run, or could not."""

    artifact: Artifact
    runtime: str | None
    checks: tuple[Check, ...]
    reason: str | None = None
    broken: bool = False

    @property
    def verdict(self) -> str:
        if self.broken or self.failed:
            return FAIL
        # Whole files alone prove nothing: an output must have been held to Keras' numbers.
        return PASS if self.stages["numbers"] == PASS else NOT_RUN

    @property
    def stages(self) -> dict[str, str]:
        found = dict.fromkeys(STAGES, NOT_RUN)
        for check in self.checks:
            if check.passed is not None and found[check.stage] != FAIL:
                found[check.stage] = PASS if check.passed else FAIL
        return found

    @property
    def max_abs_error(self) -> float | None:
        """The largest error of a main output, or None where nothing was run."""
        errors = [
            c.value for c in self.checks if (c.stage, c.metric) == ("numbers", "max_abs_error")
        ]
        return float(np.max(errors)) if errors else None

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": self.artifact.format,
            "scheme": self.artifact.scheme,
            "runtime": self.runtime,
            "verdict": self.verdict,
            "stages": self.stages,
            "reason": self.reason,
            "checks": [check.to_json() for check in self.checks],
            "task": None,
        }


@dataclass(frozen=True)
class Report:
    """The verdict on a bundle: a failure anywhere fails it."""

    artifacts: tuple[ArtifactReport, ...]

    @property
    def verdict(self) -> str:
        verdicts = {report.verdict for report in self.artifacts}
        for worst in (FAIL, INCONCLUSIVE, PASS):
            if worst in verdicts:
                return worst
        return NOT_RUN

    @property
    def exit_code(self) -> int:
        return {PASS: 0, FAIL: 1, INCONCLUSIVE: 6, NOT_RUN: 5}[self.verdict]

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "artifacts": [report.to_json() for report in self.artifacts],
        }


def validate(
    bundle: Bundle, artifacts: tuple[Artifact, ...], open_judged: Callable[[Artifact], Runner]
) -> Report:
    """Run ``artifacts`` on the bundle's reference, each sequence after the last without a reset.

    ``open_judged`` gives the runner for an artifact. Raises :class:`BundleError` where the
    bundle's files are not those it was made with.
    """
    bundle.verify()
    reference = bundle.reference()
    return Report(tuple(judge(bundle, item, reference, open_judged) for item in artifacts))


def judge(
    bundle: Bundle,
    artifact: Artifact,
    reference: Tensors,
    open_judged: Callable[[Artifact], Runner],
) -> ArtifactReport:
    """One artifact against the reference arrays."""
    inputs, expected = _expected(bundle, artifact, reference)
    structure = Check(artifact.label, "structure", "changed_files", 0.0, 0.0)
    runtime = None
    try:
        runner = open_judged(artifact)
        runtime = runner.runtime
        try:
            actual = runner.run(inputs)
            first = {name: array[:1] for name, array in inputs.items()}
            again = runner.run(first)
        finally:
            runner.close()
    except RuntimeUnavailableError as error:
        return ArtifactReport(artifact, None, (), reason=error.message)
    except ArtifactError as error:
        return ArtifactReport(artifact, runtime, (structure,), reason=error.message, broken=True)
    checks = (structure, *compare(artifact, expected, actual, again))
    return ArtifactReport(artifact, runtime, checks)


def compare(
    artifact: Artifact, expected: Tensors, actual: Tensors, again: Tensors
) -> Iterator[Check]:
    """The numbers and attention checks of one artifact.

    ``expected`` and ``actual`` hold every output for all sequences, ``again`` the outputs for the
    first sequence run once more after the last one: it must come out as it did at first.
    """
    limits = LIMITS[artifact.scheme]
    for spec in artifact.outputs:
        stage = "attention" if spec.name in artifact.attention else "numbers"
        want = expected[spec.name]

        def check(
            metric: str,
            value: float,
            limit: float | None = None,
            better: str = "<=",
            *,
            stage: str = stage,
            output: str = spec.name,
        ) -> Check:
            return Check(artifact.label, stage, metric, value, limit, better, output)

        if spec.name not in actual or spec.name not in again:
            yield check("missing", 1.0, 0.0)
            continue
        got, repeated = actual[spec.name], again[spec.name]
        if want.shape != got.shape or repeated.shape != got[:1].shape:
            yield check("wrong_shape", 1.0, 0.0)
            continue
        yield check("non_finite", _new_non_finite(want, got), 0.0)
        first, repeated = _without_agreed(got[:1], repeated)
        yield check("repeat_error", metrics.max_abs_error(first, repeated), 0.0)
        want, got = _without_agreed(want, got)
        if stage == "attention":
            yield check("max_abs_error", metrics.max_abs_error(want, got), limits.attention_max_abs)
            yield check("jensen_shannon", metrics.jensen_shannon(want, got), limits.attention_jsd)
        else:
            yield from _numbers(check, want, got, limits)


def _numbers(
    check: Callable[..., Check], want: Array, got: Array, limits: Limits
) -> Iterator[Check]:
    yield check("max_abs_error", metrics.max_abs_error(want, got))
    ratio = metrics.tolerance_ratio(want, got, atol=limits.atol, rtol=limits.rtol)
    snr = metrics.snr_db(want, got)
    if ratio <= 1 or math.isinf(limits.snr_db):
        yield check("tolerance_ratio", ratio, 1.0)
    else:
        yield check("snr_db", snr, limits.snr_db, ">=")
    if _is_distribution(want):
        yield check(
            "top1_agreement", metrics.top1_agreement(want, got), limits.top1_agreement, ">="
        )


def _is_distribution(scores: Array) -> bool:
    """Whether rows are class probabilities: two columns or more, none negative, sums of one."""
    return (
        scores.ndim >= 2
        and scores.shape[-1] > 1
        and bool((scores >= 0).all())
        and bool(np.allclose(scores.sum(-1), 1.0, atol=1e-3))
    )


def _new_non_finite(expected: Array, actual: Array) -> float:
    return float(np.sum(~np.isfinite(actual) & np.isfinite(expected)))


def _without_agreed(expected: Array, actual: Array) -> tuple[Array, Array]:
    """Both, with 0 where they hold the same infinity or NaN: that is no difference."""
    same = (expected == actual) | (np.isnan(expected) & np.isnan(actual))
    agreed = ~np.isfinite(expected) & same
    if not agreed.any():
        return expected, actual
    return np.where(agreed, 0.0, expected), np.where(agreed, 0.0, actual)


def _expected(bundle: Bundle, artifact: Artifact, reference: Tensors) -> tuple[Tensors, Tensors]:
    inputs, expected = {}, {}
    try:
        for spec in artifact.inputs:
            inputs[spec.name] = reference[f"input/{spec.name}"]
        for spec in artifact.outputs:
            # A map's name says "attention/" itself.
            key = spec.name if spec.name in artifact.attention else f"output/{spec.name}"
            expected[spec.name] = reference[key]
    except KeyError as error:
        raise BundleError(
            f"The reference of {bundle.path} has no array {error} for {artifact.path}.",
            hint="Convert the model again.",
        ) from error
    counts = {len(array) if array.ndim else 0 for array in [*inputs.values(), *expected.values()]}
    if len(counts) != 1 or 0 in counts:
        raise BundleError(
            f"The reference of {bundle.path} must hold as many rows of every array, at least one; "
            f"it holds {' and '.join(map(str, sorted(counts)))}.",
            hint="Convert the model again.",
        )
    return inputs, expected


def _json_number(value: float) -> float | str:
    """JSON has no infinity and no NaN: they are told as text."""
    return value if math.isfinite(value) else str(value)


def validate_isolated(bundle: Bundle, artifacts: tuple[Artifact, ...]) -> Report:
    """As :func:`validate`, every artifact in its runtime in a child process of its own."""
    from edgeattn.child import Child
    from edgeattn.runners.isolated import IsolatedRunner

    with Child() as child:
        return validate(
            bundle, artifacts, lambda item: IsolatedRunner(bundle.path, item, child, judged=True)
        )
