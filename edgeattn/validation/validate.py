"""The verdict: does an artifact compute what the Keras original computed?

Stages: structure, numbers, attention, task, device. A stage that did not run says "not run". What
is expected comes out of the bundle alone (``reference.npz``), so a device without TensorFlow can
judge for itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import ArtifactError, BundleError, RuntimeUnavailableError, UsageError
from edgeattn.metrics.limits import LIMITS, SETTABLE, Check, Limit, Limits, limits_for
from edgeattn.metrics.statistics import FAIL, INCONCLUSIVE, NOT_RUN, PASS
from edgeattn.process.pool import RunnerPool
from edgeattn.runners import Runner
from edgeattn.tensors import Tensors
from edgeattn.validation.comparison import compare
from edgeattn.validation.report import STAGES, ArtifactReport, Report
from edgeattn.validation.structure import audit

if TYPE_CHECKING:
    from edgeattn.evaluation.checkpoint import Partial
    from edgeattn.evaluation.dataset import Samples
    from edgeattn.evaluation.evaluator import Tried

__all__ = [
    "FAIL",
    "INCONCLUSIVE",
    "LIMITS",
    "NOT_RUN",
    "PASS",
    "SETTABLE",
    "STAGES",
    "ArtifactReport",
    "Check",
    "Limit",
    "Limits",
    "Report",
    "audit",
    "compare",
    "judge",
    "limits_for",
    "validate",
    "validate_isolated",
]


def validate(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    open_judged: Callable[[Artifact], Runner],
    *,
    trial: Samples | None = None,
    limits: Sequence[Limit] = (),
    resume: Path | None = None,
) -> Report:
    """Run ``artifacts`` on the bundle's reference, each sequence after the last without a reset.

    ``open_judged`` gives the runner for an artifact. With a ``trial``, each that could be run is
    tried on samples of the user's too; in the file ``resume`` unfinished work on those is kept, and
    gone on with where it is found. ``limits`` replace the scheme's. Raises :class:`BundleError`
    where the bundle's files are not those it was made with.
    """
    with RunnerPool([open_judged]) as workers:
        return _validate(bundle, artifacts, workers, trial, limits, resume)


def validate_isolated(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    *,
    trial: Samples | None = None,
    limits: Sequence[Limit] = (),
    jobs: int = 1,
    resume: Path | None = None,
) -> Report:
    """As :func:`validate`, in ``jobs`` child processes side by side: the result is the same."""
    from edgeattn.process.worker import Worker
    from edgeattn.runners.isolated import IsolatedRunner

    def opener(child: Worker) -> Callable[[Artifact], Runner]:
        return lambda item: IsolatedRunner(bundle.path, item, child, as_deployed=True)

    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Worker()) for _ in range(jobs)]
        workers = RunnerPool([opener(child) for child in children], [c.close for c in children])
        stack.enter_context(workers)
        return _validate(bundle, artifacts, workers, trial, limits, resume)


def _validate(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    workers: RunnerPool,
    trial: Samples | None,
    limits: Sequence[Limit],
    resume: Path | None,
) -> Report:
    reference = bundle.reference()

    def on_reference(opener: Callable[[Artifact], Runner], item: Artifact) -> ArtifactReport:
        progress.report(f"running {item.label}")
        return judge(bundle, item, reference, opener, limits=limits)

    reports = workers.each(on_reference, artifacts)
    if trial is not None:
        reports = _tried(bundle, reports, trial, workers, on_reference, limits, resume)
    return Report(tuple(reports))


def _tried(
    bundle: Bundle,
    reports: list[ArtifactReport],
    trial: Samples,
    workers: RunnerPool,
    on_reference: Callable[[Callable[[Artifact], Runner], Artifact], ArtifactReport],
    limits: Sequence[Limit],
    resume: Path | None,
) -> list[ArtifactReport]:
    """``reports`` with what became of each artifact that runs on the user's samples."""
    from edgeattn.evaluation.evaluator import try_all

    if trial.keras is not None and hasattr(trial.keras, "close"):
        workers.close_at_end(trial.keras.close)
    stand_in = None
    if not trial.reference:
        # Judged already, or judged now: a float32 artifact that was found to be as Keras is.
        known = {report.artifact.label: report for report in reports}
        for item in bundle.manifest.artifacts:
            if item.scheme != "float32":
                continue
            found = known.get(item.label) or workers.each(on_reference, [item])[0]
            if found.verdict == PASS:
                stand_in = item
                break
    there = [item for item in reports if item.runtime is not None and not item.broken]
    partial = None
    if resume is not None:
        partial = _partial(resume, bundle, trial, there, stand_in, limits)
    tried = try_all(
        trial,
        [item.artifact for item in there],
        workers,
        stand_in=stand_in,
        limits=limits,
        partial=partial,
    )
    return [_with(item, tried[item.artifact.label]) if item in there else item for item in reports]


def _with(report: ArtifactReport, tried: Tried) -> ArtifactReport:
    checks = (*report.checks, *tried.checks)
    broken, reason = tried.broken is not None, tried.broken or report.reason
    return replace(report, checks=checks, task=tried.task, broken=broken, reason=reason)


def _partial(
    path: Path,
    bundle: Bundle,
    trial: Samples,
    reports: Sequence[ArtifactReport],
    stand_in: Artifact | None,
    limits: Sequence[Limit],
) -> Partial:
    """Where unfinished work is kept, under a key of all that its result depends on."""
    from edgeattn import __version__
    from edgeattn.evaluation.checkpoint import Partial, key_of
    from edgeattn.evaluation.dataset import CHUNK, SEGMENT_BYTES

    if trial.identity is None:
        raise UsageError("Only work on a file of samples can be resumed.")
    key = key_of(
        __version__,
        trial.identity,
        [(item.artifact.label, item.artifact.sha256, item.runtime) for item in reports],
        bundle.manifest.model.get("sha256"),
        bundle.manifest.reference["sha256"],
        [trial.reference, None if stand_in is None else stand_in.sha256],
        [asdict(limit) for limit in limits],
        [CHUNK, SEGMENT_BYTES],
    )
    return Partial(path, key)


def judge(
    bundle: Bundle,
    artifact: Artifact,
    reference: Tensors,
    open_judged: Callable[[Artifact], Runner],
    *,
    trial: Samples | None = None,
    limits: Sequence[Limit] = (),
) -> ArtifactReport:
    """One artifact against the reference arrays, and on a ``trial`` that brings its answers."""
    inputs, expected = _expected(bundle, artifact, reference)
    structure = tuple(audit(artifact))
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
        return ArtifactReport(artifact, runtime, structure, reason=error.message, broken=True)
    rows = _ordinary_rows(bundle)
    checks = (*structure, *compare(artifact, expected, actual, again, rows, limits=limits))
    report = ArtifactReport(artifact, runtime, checks, answers=actual)
    if trial is None:
        return report
    from edgeattn.evaluation.evaluator import try_all

    with RunnerPool([open_judged]) as workers:
        return _with(report, try_all(trial, [artifact], workers, limits=limits)[artifact.label])


def _ordinary_rows(bundle: Bundle) -> int | None:
    """How many rows of the reference are samples or as ordinary as those; extremes come after."""
    told = bundle.manifest.reference
    return (
        int(told["samples"]) + int(told.get("ordinary_edge_cases", 0))
        if told["edge_cases"]
        else None
    )


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
