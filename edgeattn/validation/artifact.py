"""Validation of one artifact: its structure, then its outputs and maps on the reference."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import SYNTHETIC, Artifact, Manifest
from edgeattn.errors import (
    ArtifactError,
    BundleError,
    RuntimeUnavailableError,
    UnsafeModelError,
)
from edgeattn.evaluation.dataset import Dataset
from edgeattn.evaluation.evaluator import EvaluationResult, evaluate
from edgeattn.metrics.limits import Check, Limit, is_set
from edgeattn.metrics.lost_values import METRIC as LOST_VALUES
from edgeattn.metrics.statistics import others_of, share_limits
from edgeattn.metrics.verdict import WRONG
from edgeattn.printable import enumerated
from edgeattn.process.pool import Opener, RunnerPool
from edgeattn.runners import Runner
from edgeattn.tensors import Tensors
from edgeattn.validation.batches import BatchRuns, batch_checks, run_batches
from edgeattn.validation.comparison import comparison_checks
from edgeattn.validation.constant_outputs import constant_outputs
from edgeattn.validation.lengths import by_length, length_checks, run_lengths
from edgeattn.validation.preprocess import preprocess_checks
from edgeattn.validation.report import INPUT_DEPENDENT, ArtifactReport
from edgeattn.validation.rounding import (
    conversion_result,
    explained_outputs,
    rounding_costs,
    with_wider_limits,
)
from edgeattn.validation.structure import required_maps, structure_checks


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
    structure = (
        *structure_checks(path, artifact, maps, content),
        *preprocess_checks(bundle, artifact, reference),
    )
    del content
    runtime = None
    try:
        runner = open_runner_function(artifact)
        runtime = runner.runtime
        try:
            runs = _run(runner, artifact, inputs, expected, _ordinary_rows(bundle))
            if artifact.free_axes:
                lengths = by_length(reference)
                runs = replace(
                    runs, lengths=lengths, by_length=run_lengths(runner, artifact, lengths)
                )
        finally:
            runner.close()
    except RuntimeUnavailableError as error:
        # Without a runtime nothing passes, but a file can be wrong.
        failed = any(check.passed is False for check in structure)
        return ArtifactReport(artifact, None, structure if failed else (), reason=error.message)
    except (ArtifactError, UnsafeModelError) as error:
        return ArtifactReport(artifact, runtime, structure, reason=error.message, broken=True)
    own = (*structure, *_checks(bundle, artifact, expected, runs))
    costs = rounding_costs(bundle.manifest, artifact)
    conversion = conversion_result(
        artifact, own, costs, _unstable_metrics(bundle.manifest, artifact.scheme)
    )
    report = ArtifactReport(
        artifact,
        runtime,
        (),
        runs.batches.error,
        conversion=conversion,
        rounding=costs,
        explained_outputs=explained_outputs(own, costs),
        undecided=_undecided_metrics(bundle.manifest, artifact.scheme, conversion),
        outputs=runs.outputs,
        warnings=tuple(constant_outputs(bundle, artifact, inputs, expected, runs.outputs)),
        samples=_real_samples(bundle.manifest),
    )
    chosen = (*structure, *_checks(bundle, artifact, expected, runs, limits)) if limits else own
    report = _with_checks(report, chosen, limits)
    if dataset is None:
        return report
    with RunnerPool([open_runner_function]) as pool:
        results = evaluate(dataset, [artifact], pool, limits=limits)
    return with_evaluation(report, results[artifact.label], limits)


def with_evaluation(
    report: ArtifactReport, result: EvaluationResult, limits: Sequence[Limit]
) -> ArtifactReport:
    return replace(
        _with_checks(report, result.checks, limits),
        task=result.task,
        broken=result.error is not None,
        reason=result.error or report.reason,
        warnings=(*report.warnings, *result.warnings),
        samples=_with_dataset(report, result),
    )


def _with_checks(
    report: ArtifactReport, checks: tuple[Check, ...], limits: Sequence[Limit]
) -> ArtifactReport:
    """``report`` with more checks. Those that rounding explains get wider limits."""
    float32 = report.rounding if report.artifact.scheme == "float32" else None
    checks, explained = with_wider_limits(checks, report.explained_outputs, limits, float32)
    few = tuple(check for check in checks if is_by_chance(check, limits))
    lost = tuple(
        check
        for check in checks
        if check.metric == LOST_VALUES
        and check.passed is False
        and not is_set(LOST_VALUES, check.output, limits)
    )
    return replace(
        report,
        checks=(*report.checks, *checks),
        explained=(*report.explained, *explained),
        by_chance=(*report.by_chance, *few),
        lost=(*report.lost, *lost),
    )


def is_by_chance(check: Check, limits: Sequence[Limit] = ()) -> bool:
    """Whether a share misses its limit by so few samples that the true share may be within it.

    That is, the exact lower limit of the share of the other samples is at most the accepted one.
    """
    if check.passed is not False or check.samples is None or check.limit is None:
        return False
    name = "top1_agreement" if check.metric == "equal_values" else check.metric
    if is_set(name, check.output, limits):
        return False
    others = others_of(check.value, check.samples)
    return share_limits(others, check.samples)[0] <= 1.0 - check.limit


@dataclass(frozen=True)
class _Runs:
    """Outputs for the reference: of all rows, of the first row again, and of rows in batches.

    ``lengths`` are arrays of the reference for other sequence lengths, with the outputs
    ``by_length``.
    """

    outputs: Tensors
    repeated: Tensors
    batches: BatchRuns
    lengths: Mapping[int, Tensors] = field(default_factory=dict)
    by_length: Mapping[int, Tensors | str] = field(default_factory=dict)


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
    yield from length_checks(artifact, runs.lengths, runs.by_length, limits)


def _undecided_metrics(manifest: Manifest, scheme: str, conversion: str) -> frozenset[str]:
    """Metrics whose limits on the reference prove nothing if they are missed.

    Quantization errors depend on the inputs, and those of real data may differ from synthetic ones.
    What rounding cannot explain is wrong for any input. A float32 artifact must equal Keras for any
    input, except where Keras itself is unstable.
    """
    if manifest.reference_kind != SYNTHETIC:
        return frozenset()
    if scheme == "float32":
        return _unstable_metrics(manifest, scheme)
    return frozenset() if conversion == WRONG else INPUT_DEPENDENT


def _unstable_metrics(manifest: Manifest, scheme: str) -> frozenset[str]:
    """Metrics of a float32 artifact that prove nothing because Keras itself is unstable."""
    synthetic = manifest.reference_kind == SYNTHETIC
    if scheme != "float32" or not synthetic or manifest.reference.get("stable", True):
        return frozenset()
    return INPUT_DEPENDENT | {"tolerance_ratio"}


def _real_samples(manifest: Manifest) -> int | None:
    """The number of samples of the user in the reference; None if they are synthetic."""
    if manifest.reference_kind == SYNTHETIC:
        return None
    return int(manifest.reference["samples"])


def _with_dataset(report: ArtifactReport, result: EvaluationResult) -> int | None:
    """The number of real samples, which is that of the dataset if it was compared and is larger."""
    if not result.checks or result.task is None:
        return report.samples
    return max(result.task.samples, report.samples or 0)


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
            f"The reference of {bundle.path} has arrays of several lengths: "
            f"{enumerated(list(map(str, sorted(counts))))}. All must have the same number of rows, "
            "at least 1.",
            hint="Convert the model again.",
        )
    return inputs, expected
