"""Validation: does an artifact compute what the original Keras model computes?

An artifact passes through the stages structure, numbers, attention, task and device. The expected
values come from the bundle itself (``reference.npz``), so a device without TensorFlow can validate.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import UsageError
from edgeattn.evaluation.checkpoint import STATE_LAYOUT, Checkpoint, checkpoint_key
from edgeattn.evaluation.dataset import BATCH_BYTES, BATCH_SIZE, Dataset
from edgeattn.evaluation.evaluator import evaluate
from edgeattn.evaluation.shards import ShardRunner
from edgeattn.metrics.limits import Limit
from edgeattn.metrics.verdict import PASS
from edgeattn.process.pool import Opener, RunnerPool
from edgeattn.process.worker import Worker
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.schemes import MAX_DROP
from edgeattn.validation.artifact import validate_artifact, with_evaluation
from edgeattn.validation.limit_names import check_limits
from edgeattn.validation.report import ArtifactReport, Report
from edgeattn.version import __version__


@dataclass(frozen=True)
class ValidationOptions:
    """How artifacts are validated.

    Attributes:
        limits: Limits that replace those of the scheme.
        max_drop: Largest accepted drop of the task's score, or share of changed answers.
        shards: Evaluates on parts of the dataset elsewhere.
        jobs: Worker processes that run in parallel. The result does not depend on it.
        checkpoint: File that stores the work on a dataset. If it exists, work resumes from it.
            Remove it when the report is stored.
    """

    limits: Sequence[Limit] = ()
    jobs: int = 1
    checkpoint: Path | None = None
    max_drop: float = MAX_DROP
    shards: ShardRunner | None = None

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
    """The first float32 artifact that meets its limits on the reference; None if none does.

    ``reports`` are known already, and ``on_reference`` makes those that are missing.
    """
    known = {report.artifact.label: report for report in reports}
    for artifact in bundle.manifest.artifacts:
        if artifact.scheme == "float32":
            report = known.get(artifact.label) or pool.map(on_reference, [artifact])[0]
            if report.verdict == PASS and not report.explained:
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
        shards=options.shards,
    )
    return [
        with_evaluation(report, results[report.artifact.label], options.limits)
        if report in running
        else report
        for report in reports
    ]


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
        [BATCH_SIZE, BATCH_BYTES, STATE_LAYOUT],
    )
    return Checkpoint(path, key)
