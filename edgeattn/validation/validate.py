"""Validation: does an artifact compute what the original Keras model computes?

An artifact passes through the stages structure, numbers, attention, task and device. The expected
values come from the bundle itself (``reference.npz``), so a device without TensorFlow can validate.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import SYNTHETIC, Artifact, Manifest
from edgeattn.errors import ArtifactError, BundleError, RuntimeUnavailableError, UsageError
from edgeattn.evaluation.checkpoint import Checkpoint, checkpoint_key
from edgeattn.evaluation.dataset import BATCH_BYTES, BATCH_SIZE, Dataset
from edgeattn.evaluation.evaluator import EvaluationResult, evaluate
from edgeattn.metrics.limits import Check, Limit
from edgeattn.metrics.verdict import PASS, RIGHT, WRONG
from edgeattn.process.pool import RunnerPool
from edgeattn.process.worker import Worker
from edgeattn.runners import Runner
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.schemes import MAX_DROP
from edgeattn.tensors import Tensors
from edgeattn.validation.batches import BatchRuns, batch_checks, run_batches
from edgeattn.validation.comparison import comparison_checks
from edgeattn.validation.constant_outputs import constant_outputs
from edgeattn.validation.limit_names import check_limits
from edgeattn.validation.report import INPUT_DEPENDENT, ArtifactReport, Report
from edgeattn.validation.rounding import conversion_result, rounding_costs, with_wider_limits
from edgeattn.validation.structure import required_maps, structure_checks
from edgeattn.version import __version__

Opener = Callable[[Artifact], Runner]


@dataclass(frozen=True)
class ValidationOptions:
    """How artifacts are validated.

    Attributes:
        limits: Limits that replace those of the scheme.
        max_drop: Largest accepted drop of the task's score, or share of changed answers.
        jobs: Worker processes that run in parallel. The result does not depend on it.
        checkpoint: File that stores the work on a dataset. If it exists, work resumes from it.
            Remove it when the report is stored.
    """

    limits: Sequence[Limit] = ()
    jobs: int = 1
    checkpoint: Path | None = None
    max_drop: float = MAX_DROP

    def __post_init__(self) -> None:
        if not 0 < self.max_drop < 1:
            raise UsageError(f"max_drop is {self.max_drop:g}, but must be between 0 and 1.")

    @property
    def all_limits(self) -> tuple[Limit, ...]:
        """The limits, with ``max_drop`` as one of them."""
        return (Limit("max_drop", self.max_drop), *self.limits)


def validate(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    open_runner_function: Opener,
    *,
    dataset: Dataset | None = None,
    options: ValidationOptions = ValidationOptions(),
) -> Report:
    """Run artifacts of a bundle in this process and compare their outputs with the reference.

    The sequences of the reference run one after the other, without a reset in between.

    Args:
        bundle: The bundle, which contains the reference inputs and the outputs of Keras.
        artifacts: Artifacts of the bundle to validate.
        open_runner_function: Opens a :class:`~edgeattn.Runner` for an artifact.
        dataset: Samples of the user. Artifacts that ran on the reference are evaluated on these
            too.
        options: Limits and checkpoint. ``jobs`` has no effect here.

    Raises :class:`BundleError` if a file of the bundle is damaged or the reference is incomplete.
    """
    with RunnerPool([open_runner_function]) as pool:
        return _validate(bundle, artifacts, pool, dataset, options)


def validate_isolated(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    *,
    dataset: Dataset | None = None,
    options: ValidationOptions = ValidationOptions(),
) -> Report:
    """Validate as :func:`validate` does, but run the artifacts in ``options.jobs`` workers.

    A crash of a runtime ends its worker process and fails the artifact. The report is the same for
    any number of workers.
    """

    def opener(worker: Worker) -> Opener:
        return lambda artifact: IsolatedRunner(bundle.path, artifact, worker, as_deployed=True)

    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker()) for _ in range(options.jobs)]
        pool = RunnerPool([opener(worker) for worker in workers], [w.close for w in workers])
        stack.enter_context(pool)
        return _validate(bundle, artifacts, pool, dataset, options)


def _validate(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    pool: RunnerPool,
    dataset: Dataset | None,
    options: ValidationOptions,
) -> Report:
    reference = bundle.reference()

    check_limits(options.limits, artifacts, reference)

    def on_reference(
        opener: Opener, artifact: Artifact, limits: Sequence[Limit] = options.limits
    ) -> ArtifactReport:
        progress.report(f"running {artifact.label}")
        return validate_artifact(bundle, artifact, reference, opener, limits=limits)

    reports = pool.map(on_reference, artifacts)
    if dataset is not None:
        fallback = None
        if not dataset.reference_name:
            # With the limits of float32, not with the user's.
            fallback = _fallback_reference(
                bundle,
                () if options.limits else reports,
                pool,
                functools.partial(on_reference, limits=()),
            )
        reports = _evaluated(bundle, reports, dataset, pool, fallback, options)
    return Report(tuple(reports))


def _fallback_reference(
    bundle: Bundle,
    reports: Sequence[ArtifactReport],
    pool: RunnerPool,
    on_reference: Callable[[Opener, Artifact], ArtifactReport],
) -> Artifact | None:
    """The first float32 artifact that passes on the reference; None if none does.

    ``reports`` are known already, and ``on_reference`` makes those that are missing.
    """
    known = {report.artifact.label: report for report in reports}
    for artifact in bundle.manifest.artifacts:
        if artifact.scheme == "float32":
            report = known.get(artifact.label) or pool.map(on_reference, [artifact])[0]
            if report.verdict == PASS:
                return artifact
    return None


def _evaluated(
    bundle: Bundle,
    reports: list[ArtifactReport],
    dataset: Dataset,
    pool: RunnerPool,
    fallback: Artifact | None,
    options: ValidationOptions,
) -> list[ArtifactReport]:
    """``reports``, extended with an evaluation of every artifact that runs."""
    if dataset.keras is not None and hasattr(dataset.keras, "close"):
        pool.close_at_end(dataset.keras.close)
    running = [report for report in reports if report.runtime is not None and not report.broken]
    checkpoint = None
    if options.checkpoint is not None:
        checkpoint = _checkpoint(
            options.checkpoint, bundle, dataset, running, fallback, options.limits
        )
    results = evaluate(
        dataset,
        [report.artifact for report in running],
        pool,
        fallback_reference=fallback,
        limits=options.all_limits,
        checkpoint=checkpoint,
    )
    return [
        _with_evaluation(report, results[report.artifact.label], options.limits)
        if report in running
        else report
        for report in reports
    ]


def _with_evaluation(
    report: ArtifactReport, result: EvaluationResult, limits: Sequence[Limit]
) -> ArtifactReport:
    return replace(
        _with_checks(report, result.checks, limits),
        task=result.task,
        broken=result.error is not None,
        reason=result.error or report.reason,
        warnings=(*report.warnings, *result.warnings),
    )


def _with_checks(
    report: ArtifactReport, checks: tuple[Check, ...], limits: Sequence[Limit]
) -> ArtifactReport:
    """``report`` with more checks. Those that rounding explains get wider limits."""
    explained: tuple[Check, ...] = ()
    if report.conversion == RIGHT and report.rounding:
        checks, explained = with_wider_limits(checks, limits)
    return replace(
        report, checks=(*report.checks, *checks), explained=(*report.explained, *explained)
    )


def _checkpoint(
    path: Path,
    bundle: Bundle,
    dataset: Dataset,
    reports: Sequence[ArtifactReport],
    fallback: Artifact | None,
    limits: Sequence[Limit],
) -> Checkpoint:
    """The checkpoint in ``path``, with a key of everything that the result depends on."""
    if dataset.fingerprint is None:
        raise UsageError("Only an evaluation on a file of samples can be resumed.")
    key = checkpoint_key(
        __version__,
        dataset.fingerprint,
        [(item.artifact.label, item.artifact.sha256, item.runtime) for item in reports],
        bundle.manifest.model.get("sha256"),
        bundle.manifest.reference["sha256"],
        [dataset.reference_name, None if fallback is None else fallback.sha256],
        [asdict(limit) for limit in limits],
        [BATCH_SIZE, BATCH_BYTES],
    )
    return Checkpoint(path, key)


def validate_artifact(
    bundle: Bundle,
    artifact: Artifact,
    reference: Tensors,
    open_runner_function: Opener,
    *,
    dataset: Dataset | None = None,
    limits: Sequence[Limit] = (),
) -> ArtifactReport:
    """Validate one artifact on the arrays of the reference and, if given, on a dataset.

    ``dataset`` must contain the outputs of the reference. Raises :class:`BundleError` if the
    reference lacks an array of the artifact.
    """
    inputs, expected = _expected(bundle, artifact, reference)
    maps = required_maps(bundle, reference)
    path, content = bundle.artifact_path(artifact), bundle.read(artifact.path)
    structure = tuple(structure_checks(path, artifact, maps, content))
    del content
    runtime = None
    try:
        runner = open_runner_function(artifact)
        runtime = runner.runtime
        try:
            runs = _run(runner, artifact, inputs, expected, _ordinary_rows(bundle))
        finally:
            runner.close()
    except RuntimeUnavailableError as error:
        # Without a runtime nothing passes, but a file can be wrong.
        failed = any(check.passed is False for check in structure)
        return ArtifactReport(artifact, None, structure if failed else (), reason=error.message)
    except ArtifactError as error:
        return ArtifactReport(artifact, runtime, structure, reason=error.message, broken=True)
    own = (*structure, *_checks(bundle, artifact, expected, runs))
    costs = rounding_costs(bundle.manifest, artifact)
    conversion = conversion_result(artifact, own, costs)
    report = ArtifactReport(
        artifact,
        runtime,
        (),
        runs.batches.error,
        conversion=conversion,
        rounding=costs,
        undecided=_undecided_metrics(bundle.manifest, artifact.scheme, conversion),
        outputs=runs.outputs,
        warnings=tuple(constant_outputs(bundle, artifact, inputs, expected, runs.outputs)),
    )
    chosen = (*structure, *_checks(bundle, artifact, expected, runs, limits)) if limits else own
    report = _with_checks(report, chosen, limits)
    if dataset is None:
        return report
    with RunnerPool([open_runner_function]) as pool:
        results = evaluate(dataset, [artifact], pool, limits=limits)
    return _with_evaluation(report, results[artifact.label], limits)


@dataclass(frozen=True)
class _Runs:
    """Outputs for the reference: of all rows, of the first row again, and of rows in batches."""

    outputs: Tensors
    repeated: Tensors
    batches: BatchRuns


def _run(
    runner: Runner, artifact: Artifact, inputs: Tensors, expected: Tensors, ordinary: int | None
) -> _Runs:
    outputs = runner.run(inputs)
    repeated = runner.run({name: array[:1] for name, array in inputs.items()})
    batches = BatchRuns()
    shapes = {name: np.shape(array) for name, array in outputs.items()}
    if all(shapes.get(name) == want.shape for name, want in expected.items()):
        batches = run_batches(runner, artifact, inputs, ordinary)
    return _Runs(outputs, repeated, batches)


def _checks(
    bundle: Bundle,
    artifact: Artifact,
    expected: Tensors,
    runs: _Runs,
    limits: Sequence[Limit] = (),
) -> Iterator[Check]:
    """The checks of the stages numbers and attention on the reference."""
    reference, ordinary = bundle.manifest.reference, _ordinary_rows(bundle)
    extremes = reference.get("float16_edge_cases")
    yield from comparison_checks(
        artifact,
        expected,
        runs.outputs,
        runs.repeated,
        ordinary,
        samples=int(reference["samples"]),
        float16=None if extremes is None or ordinary is None else ordinary + int(extremes),
        limits=limits,
    )
    yield from batch_checks(artifact, expected, runs.outputs, runs.batches, ordinary, limits=limits)


def _undecided_metrics(manifest: Manifest, scheme: str, conversion: str) -> frozenset[str]:
    """Metrics whose limits on the reference prove nothing if they are missed.

    Quantization errors depend on the inputs, and those of real data may differ from synthetic ones.
    What rounding cannot explain is wrong for any input. A float32 artifact must equal Keras for any
    input, except where Keras itself is unstable.
    """
    if manifest.reference_kind != SYNTHETIC:
        return frozenset()
    if scheme == "float32":
        stable = manifest.reference.get("stable", True)
        return frozenset() if stable else INPUT_DEPENDENT | {"tolerance_ratio"}
    return frozenset() if conversion == WRONG else INPUT_DEPENDENT


def _ordinary_rows(bundle: Bundle) -> int | None:
    """The number of rows before the extreme edge cases; None if the reference has no edge cases."""
    reference = bundle.manifest.reference
    if not reference["edge_cases"]:
        return None
    return int(reference["samples"]) + int(reference.get("ordinary_edge_cases", 0))


def _expected(bundle: Bundle, artifact: Artifact, reference: Tensors) -> tuple[Tensors, Tensors]:
    """The inputs and the expected outputs of an artifact, by name."""
    inputs, expected = {}, {}
    try:
        for spec in artifact.inputs:
            inputs[spec.name] = reference[f"input/{spec.name}"]
        for spec in artifact.outputs:
            # The name of an attention map starts with "attention/" already.
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
            f"The reference of {bundle.path} has arrays of "
            f"{' and '.join(map(str, sorted(counts)))} rows; all must have the same number of "
            "rows, at least 1.",
            hint="Convert the model again.",
        )
    return inputs, expected
