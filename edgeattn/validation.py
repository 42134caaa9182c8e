"""The verdict: does an artifact compute what the Keras original computed?

Stages: structure, numbers, attention, task, device. A stage that did not run says "not run". What
is expected comes out of the bundle alone (``reference.npz``), so a device without TensorFlow can
judge for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from edgeattn import metrics
from edgeattn.bundle import Artifact, Bundle
from edgeattn.errors import ArtifactError, BundleError, RuntimeUnavailableError, UsageError
from edgeattn.runners import Runner
from edgeattn.task import FAIL, INCONCLUSIVE, NOT_RUN, PASS, TaskReport
from edgeattn.tensors import Array, Tensors
from edgeattn.trial import Trial

STAGES = ("structure", "numbers", "attention", "task", "device")


@dataclass(frozen=True)
class Limits:
    """What an artifact of a scheme may differ by; see "The verdict" in the documentation.

    Outputs pass that are within ``atol + rtol |expected|`` or reach ``snr_db``. ``retention`` is
    the share of the task's score that must be kept. ``extremes`` says whether numbers are held to
    Keras' on inputs far beyond the samples too: integers saturate there by design, and must only
    stay finite.
    """

    snr_db: float
    top1_agreement: float
    attention_max_abs: float
    attention_jsd: float
    retention: float = 0.999
    atol: float = 1e-5
    rtol: float = 1e-4
    extremes: bool = True

    @property
    def near_tie(self) -> float:
        """Classes this close, as a share of the larger, the noise that is allowed may swap."""
        return max(metrics.NEAR_TIE, math.pow(10.0, -self.snr_db / 20.0))


LIMITS: Mapping[str, Limits] = {
    "float32": Limits(math.inf, 1.0, 1e-5, 1e-8),
    "float16": Limits(50.0, 0.999, 2e-3, 1e-5),
    "int16x8": Limits(40.0, 0.995, 5e-3, 1e-4, extremes=False),
    "dynamic_int8": Limits(30.0, 0.99, 0.03, 1e-3, retention=0.99, extremes=False),
    "int8": Limits(20.0, 0.98, 0.05, 5e-3, retention=0.99, extremes=False),
}
# The limits that can be set by name, for all outputs or for one.
SETTABLE = tuple(spec.name for spec in fields(Limits) if spec.name != "extremes")


@dataclass(frozen=True)
class Limit:
    """A limit set by the user: for every output, or for one."""

    name: str
    value: float
    output: str | None = None

    @classmethod
    def parse(cls, text: str) -> Limit:
        """``[OUTPUT:]NAME=NUMBER``; :class:`UsageError` for anything else."""
        left, _, number = text.partition("=")
        output, _, name = left.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if name not in SETTABLE or math.isnan(value):
            raise UsageError(
                f"A limit is [OUTPUT:]NAME=NUMBER, not {text!r}.",
                hint=f"Names are {', '.join(SETTABLE)}.",
            )
        return cls(name, value, output or None)


def limits_for(scheme: str, output: str, changes: Sequence[Limit] = ()) -> Limits:
    """The limits of an output: the scheme's, changed for all outputs, then for this one."""
    ordered = sorted(changes, key=lambda change: change.output is not None)
    chosen = {c.name: c.value for c in ordered if c.output in (None, output)}
    return replace(LIMITS[scheme], **chosen)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Check:
    """One number held against its limit.

    ``better`` says on which side of the limit it must lie, ``"<="`` or ``">="``. Without a limit
    the number is told and judges nothing. NaN never passes. Where an attention layer has several
    heads, ``heads`` are theirs, and ``value`` is the worst of them.
    """

    artifact: str
    stage: str
    metric: str
    value: float
    limit: float | None = None
    better: str = "<="
    output: str | None = None
    heads: tuple[float, ...] = ()

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
            **({"heads": [_json_number(value) for value in self.heads]} if self.heads else {}),
        }


@dataclass(frozen=True)
class ArtifactReport:
    """What was found about one artifact; ``reason`` says why it did not run, or could not."""

    artifact: Artifact
    runtime: str | None
    checks: tuple[Check, ...]
    reason: str | None = None
    broken: bool = False
    task: TaskReport | None = None
    # What the artifact answered to the reference's inputs, for those who draw it.
    answers: Tensors = field(default_factory=dict, compare=False, repr=False)

    @property
    def verdict(self) -> str:
        if self.broken or FAIL in self.stages.values():
            return FAIL
        # Whole files alone prove nothing: an output must have been held to Keras' numbers.
        if self.stages["numbers"] != PASS:
            return NOT_RUN
        return INCONCLUSIVE if self.stages["task"] == INCONCLUSIVE else PASS

    @property
    def stages(self) -> dict[str, str]:
        found = dict.fromkeys(STAGES, NOT_RUN)
        for check in self.checks:
            if check.passed is not None and found[check.stage] != FAIL:
                found[check.stage] = PASS if check.passed else FAIL
        if self.task is not None:
            found["task"] = self.task.verdict
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
            "task": None if self.task is None else self.task.to_json(),
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
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    open_judged: Callable[[Artifact], Runner],
    *,
    trial: Trial | None = None,
    limits: Sequence[Limit] = (),
    on_progress: Callable[[str], None] | None = None,
) -> Report:
    """Run ``artifacts`` on the bundle's reference, each sequence after the last without a reset.

    ``open_judged`` gives the runner for an artifact. With a ``trial``, each that matches the
    reference does its task on samples with labels too; ``limits`` replace the scheme's. Raises
    :class:`BundleError` where the bundle's files are not those it was made with.
    """
    bundle.verify()
    reference = bundle.reference()
    if trial is not None and not trial.answers:
        trial = _with_stand_in(bundle, trial, reference, open_judged, limits)
    reports = []
    for item in artifacts:
        if on_progress is not None:
            on_progress(f"running {item.label}")
        reports.append(judge(bundle, item, reference, open_judged, trial=trial, limits=limits))
    return Report(tuple(reports))


def judge(
    bundle: Bundle,
    artifact: Artifact,
    reference: Tensors,
    open_judged: Callable[[Artifact], Runner],
    *,
    trial: Trial | None = None,
    limits: Sequence[Limit] = (),
) -> ArtifactReport:
    """One artifact against the reference arrays."""
    inputs, expected = _expected(bundle, artifact, reference)
    structure = tuple(audit(artifact))
    runtime, task = None, None
    try:
        runner = open_judged(artifact)
        runtime = runner.runtime
        try:
            actual = runner.run(inputs)
            first = {name: array[:1] for name, array in inputs.items()}
            again = runner.run(first)
            if trial is not None:
                task = trial.judge(
                    artifact, runner, lambda name: limits_for(artifact.scheme, name, limits)
                )
        finally:
            runner.close()
    except RuntimeUnavailableError as error:
        return ArtifactReport(artifact, None, (), reason=error.message)
    except ArtifactError as error:
        return ArtifactReport(artifact, runtime, structure, reason=error.message, broken=True)
    rows = _ordinary_rows(bundle)
    checks = (*structure, *compare(artifact, expected, actual, again, rows, limits=limits))
    return ArtifactReport(artifact, runtime, checks, task=task, answers=actual)


def _ordinary_rows(bundle: Bundle) -> int | None:
    """How many rows of the reference are samples or as ordinary as those; extremes come after."""
    told = bundle.manifest.reference
    return (
        int(told["samples"]) + int(told.get("ordinary_edge_cases", 0))
        if told["edge_cases"]
        else None
    )


def _with_stand_in(
    bundle: Bundle,
    trial: Trial,
    reference: Tensors,
    open_judged: Callable[[Artifact], Runner],
    limits: Sequence[Limit],
) -> Trial:
    """``trial`` with the answers of a float32 artifact that was found to be as Keras is."""
    for item in bundle.manifest.artifacts:
        if item.scheme != "float32":
            continue
        found = judge(bundle, item, reference, open_judged, limits=limits)
        if found.verdict == PASS:
            runner = open_judged(item)
            try:
                return trial.answered_by(item, runner)
            finally:
                runner.close()
    return trial


def audit(artifact: Artifact) -> Iterator[Check]:
    """What can be said of the file without running it: is it what was asked for?

    The account of its operators, weights and variables was taken from the file when it was made,
    and the file is that one, by its hash.
    """

    def check(metric: str, value: float, limit: float | None, better: str = "<=") -> Check:
        return Check(artifact.label, "structure", metric, value, limit, better)

    achieved = artifact.achieved
    yield check("changed_files", 0.0, 0.0)
    operators = achieved.get("operators", {})
    if operators:
        foreign = [name for name in operators if name.upper().startswith(("CUSTOM", "FLEX"))]
        yield check("custom_operators", float(len(foreign)), 0.0)
    clips = achieved.get("cell_clips", ())
    if "variables" in achieved:
        # A fused LSTM has two, and clears them itself.
        yield check("state_variables", float(achieved["variables"] - 2 * len(clips)), 0.0)
    if clips:
        yield check("cell_clip", float(max(clips)), 0.0)
    if artifact.scheme != "float32":
        yield from _scheme_reached(check, artifact.scheme, achieved)


# What a scheme stores weights in, and what it computes with where that is not float32.
_STORED = {"float16": "float16", "dynamic_int8": "int8", "int8": "int8", "int16x8": "int8"}
_COMPUTED = {"int8": "int8", "int16x8": "int16"}
# Smaller models gain nothing by a scheme, and converters leave their weights alone.
_WORTHWHILE = 10_000


def _scheme_reached(
    check: Callable[..., Check], scheme: str, achieved: Mapping[str, Any]
) -> Iterator[Check]:
    weights = achieved.get("weights")
    if weights:
        total = sum(weights.values())
        share = weights.get(_STORED[scheme], 0) / total if total else 0.0
        limit = 0.5 if total >= _WORTHWHILE and not achieved.get("fallback") else None
        yield check("weights_in_scheme", share, limit, ">=")
    computed = achieved.get("computes_in")
    if computed and scheme in _COMPUTED:
        count = sum(computed.get(_COMPUTED[scheme], {}).values())
        yield check("operators_in_scheme", float(count), 1.0, ">=")


def compare(
    artifact: Artifact,
    expected: Tensors,
    actual: Tensors,
    again: Tensors,
    ordinary: int | None = None,
    *,
    limits: Sequence[Limit] = (),
) -> Iterator[Check]:
    """The numbers and attention checks of one artifact.

    ``expected`` and ``actual`` hold every output for all sequences, ``again`` the outputs for the
    first sequence run once more after the last one: it must come out as it did at first. Rows from
    ``ordinary`` on are far beyond the samples; without it, none is.
    """
    for spec in artifact.outputs:
        stage = "attention" if spec.name in artifact.attention else "numbers"
        chosen = limits_for(artifact.scheme, spec.name, limits)
        want = expected[spec.name]

        def check(
            metric: str,
            value: float,
            limit: float | None = None,
            better: str = "<=",
            *,
            heads: tuple[float, ...] = (),
            stage: str = stage,
            output: str = spec.name,
        ) -> Check:
            return Check(artifact.label, stage, metric, value, limit, better, output, heads)

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
        if not chosen.extremes:
            want, got = want[:ordinary], got[:ordinary]
        if stage == "attention":
            yield from _attention(check, want, got, chosen)
        else:
            yield from _numbers(check, want, got, chosen, ordinary)


def _numbers(
    check: Callable[..., Check], want: Array, got: Array, limits: Limits, ordinary: int | None
) -> Iterator[Check]:
    yield check("max_abs_error", metrics.max_abs_error(want, got))
    yield check("mean_abs_error", metrics.mean_abs_error(want, got))
    yield check("cosine", metrics.cosine(want, got))
    yield check("minimal_atol", metrics.minimal_atol(want, got, rtol=limits.rtol))
    ratio = metrics.tolerance_ratio(want, got, atol=limits.atol, rtol=limits.rtol)
    # Extremes would drown the noise of the samples: each part must be clean by itself.
    parts = [slice(0, ordinary)]
    if ordinary is not None and len(want) > ordinary:
        parts.append(slice(ordinary, None))
    snr = float(np.min([metrics.snr_db(want[part], got[part]) for part in parts]))
    if ratio <= 1 or math.isinf(limits.snr_db):
        yield check("tolerance_ratio", ratio, 1.0)
        yield check("snr_db", snr, None, ">=")
    else:
        yield check("tolerance_ratio", ratio)
        yield check("snr_db", snr, limits.snr_db, ">=")
    if _is_distribution(want):
        agreed = metrics.top1_agreement(want, got, near_tie=limits.near_tie)
        yield check("top1_agreement", agreed, limits.top1_agreement, ">=")
        if want.shape[-1] > TOP:
            several = metrics.topk_agreement(want, got, k=TOP, near_tie=limits.near_tie)
            yield check(f"top{TOP}_agreement", several, None, ">=")


# How many of the largest scores are told to agree.
TOP = 3


def _attention(
    check: Callable[..., Check], want: Array, got: Array, limits: Limits
) -> Iterator[Check]:
    """Maps ``(samples, [heads,] [queries,] keys)``, each head by itself: one may be lost."""
    axis = want.ndim == 4
    heads = [(want[:, h], got[:, h]) for h in range(want.shape[1])] if axis else [(want, got)]
    most = limits.attention_max_abs
    judged: tuple[tuple[str, Callable[[Array, Array], float], float | None, str], ...] = (
        ("max_abs_error", metrics.max_abs_error, most, "<="),
        ("jensen_shannon", metrics.jensen_shannon, limits.attention_jsd, "<="),
        ("row_sum_error", metrics.row_sum_error, most, "<="),
        ("masked_mass", metrics.masked_mass, most, "<="),
        ("entropy_shift", metrics.entropy_shift, None, "<="),
        ("topk_overlap", metrics.topk_overlap, None, ">="),
        ("argmax_stability", metrics.argmax_stability, None, ">="),
    )
    for name, metric, limit, better in judged:
        values = tuple(metric(*head) for head in heads)
        worst = float(np.max(values) if better == "<=" else np.min(values))
        yield check(name, worst, limit, better, heads=values if axis else ())


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


def validate_isolated(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    *,
    trial: Trial | None = None,
    limits: Sequence[Limit] = (),
    on_progress: Callable[[str], None] | None = None,
) -> Report:
    """As :func:`validate`, every artifact in its runtime in a child process of its own."""
    from edgeattn.child import Child
    from edgeattn.runners.isolated import IsolatedRunner

    with Child() as child:
        return validate(
            bundle,
            artifacts,
            lambda item: IsolatedRunner(bundle.path, item, child, judged=True),
            trial=trial,
            limits=limits,
            on_progress=on_progress,
        )
