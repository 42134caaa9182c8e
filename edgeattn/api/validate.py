"""``edgeattn.validate``"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgeattn import files
from edgeattn.api.arguments import (
    ModelLoading,
    StrPath,
    TargetOptions,
    artifact_selection,
    check_writable,
    optional_path,
)
from edgeattn.api.bundle_comparison import Comparison
from edgeattn.api.by_length import fitting_bundle
from edgeattn.api.raw_data import prepared_file
from edgeattn.api.sources import (
    BundleLike,
    ModelLike,
    SamplesLike,
    Workspace,
    bundle_path,
    keras_file,
    sample_file,
)
from edgeattn.api.validation_pages import check_junit, facts_of, report_extras, write_pages
from edgeattn.api.validation_request import Given, Request, checkpoint_path
from edgeattn.api.validation_result import ValidationResult
from edgeattn.bundle.dequantized import dequantized_note
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.evaluation.dataset import Dataset
    from edgeattn.metrics.limits import Limit
    from edgeattn.process.pool import Opener
    from edgeattn.validation.validate import ValidationOptions


def validate(
    bundle: BundleLike,
    artifacts: Sequence[Artifact] | None = None,
    open_runner_function: Opener | None = None,
    *,
    formats: str | Sequence[str] = (),
    schemes: str | Sequence[str] = (),
    data: SamplesLike = None,
    raw_data: SamplesLike = None,
    ignore: Sequence[str] = (),
    max_drop: float | None = None,
    limits: Sequence[str] | Mapping[str, float] = (),
    jobs: int | None = None,
    resume: bool = False,
    resume_file: StrPath | None = None,
    model: ModelLike | None = None,
    reference: StrPath | None = None,
    custom_objects: StrPath | None = None,
    architecture: str | None = None,
    signature: str | None = None,
    trust: str | None = None,
    explain: bool = False,
    report: StrPath | None = None,
    bench: StrPath | None = None,
    compare: BundleLike | None = None,
    compare_bench: StrPath | None = None,
    compare_limits: Sequence[str] | Mapping[str, float] = (),
    vocabulary: StrPath | None = None,
    junit: StrPath | None = None,
    junit_inconclusive: str | None = None,
    on: str | None = None,
    python: StrPath | None = None,
    ssh_config: StrPath | None = None,
    require_signature: StrPath | None = None,
    scheduler: str | None = None,
    dataset: Dataset | None = None,
    options: ValidationOptions | None = None,
) -> ValidationResult:
    """Compare artifacts with the outputs of Keras, on the bundle's reference and on your data.

    The other arguments are the options of ``edgeattn validate``, under the same names.

    Args:
        bundle: A path, or the result of another function. A .tflite or .onnx file needs ``model``
            or ``reference``. In a folder with a bundle for each of several sequence lengths, the
            one that fits ``data`` is validated.
        artifacts: Artifacts of the bundle; default: those of ``formats`` and ``schemes``.
        open_runner_function: Opens a :class:`~edgeattn.Runner` for an artifact, which then runs in
            this process. By default each runs in a worker process.
        data: Samples to evaluate on: a path, or a pair of inputs and labels as arrays or as
            mappings by name.
        raw_data: A raw dataset in place of ``data``, which the front end of the bundle prepares.
        limits: Limits in place of those of the scheme, such as ``{"max_abs_error": 0.01}``.
        model: The Keras model that the bundle was converted from, or its path. Default: the one
            that ``edgeattn.convert`` converted, or the file beside the bundle.
        compare: An old bundle, which is validated in the same way, and compared with this one.
        compare_limits: How much worse an artifact may be, such as ``{"size": 0.1}``.
        scheduler: The address of a Dask scheduler, whose workers evaluate on ``data``. They need
            the bundle, the data and the model at the same paths.
        dataset: A dataset in place of ``data``.
        options: Limits, jobs and checkpoint in place of the arguments of their names.

    Raises :class:`BundleError` if a file of the bundle is damaged, :class:`SampleError` if the
    data do not fit the model, and :class:`UsageError` for invalid arguments.
    """
    workspace = Workspace()
    if raw_data is None:
        data_path = sample_file(data, workspace, "data")
    elif data is None:
        data_path = prepared_file(bundle, raw_data, require_signature, workspace)
    else:
        raise UsageError("--raw-data and --data exclude each other.", hint="Omit one of them.")
    path, selection = bundle_path(bundle), artifact_selection(formats, schemes)
    if raw_data is None:
        path = fitting_bundle(path, data_path, selection, other_lengths=False)
    if model is None and data_path is not None:
        # That of a conversion from memory is not beside the bundle.
        model = getattr(bundle, "model_file", None)
    request = Request(
        path,
        selection,
        ModelLoading(
            custom_objects=optional_path(custom_objects),
            architecture=architecture,
            signature=signature,
            trust=trust,
            ignore=tuple(ignore),
        ),
        TargetOptions(on, None if python is None else str(python), optional_path(ssh_config)),
        data=data_path,
        raw=raw_data is not None,
        model=None if model is None else keras_file(model, workspace),
        reference=optional_path(reference),
        limits=_limits(limits),
        max_drop=max_drop,
        jobs=jobs,
        checkpoint=checkpoint_path(path, data_path, resume, optional_path(resume_file)),
        explain=explain,
        signers=optional_path(require_signature),
        scheduler=scheduler,
    )
    if scheduler is not None:
        if open_runner_function is not None or dataset is not None:
            raise UsageError(
                "scheduler has no effect with a runner function or a dataset.",
                hint="Pass data=FILE.",
            )
        request = request.with_absolute_paths()
    if junit_inconclusive is not None:
        check_junit(junit, junit_inconclusive)
    comparison = Comparison(compare, optional_path(compare_bench), compare_limits)
    comparison.check(request.path)
    pages = (optional_path(report), optional_path(junit))
    opened, selected, notes = request.open(workspace, artifacts)
    if note := dequantized_note(opened.manifest.model):
        notes = (*notes, note)
    check_writable(*pages, request.checkpoint)
    files.check_suffix(pages[0], ".html", ".htm")
    extras = report_extras(selected, pages[0], optional_path(bench), optional_path(vocabulary))
    plan = comparison.plan(
        opened,
        selected,
        request.selection,
        signers=request.signers,
        has_data=data_path is not None or dataset is not None,
        bench=extras.get("bench"),
        same_labels=artifacts is not None,
    )
    given = Given(open_runner_function, dataset, options)
    computed = request.run(opened, selected, given)
    diagnoses = request.diagnose(opened, computed)
    compared, old_checkpoint = None, None
    if plan is not None:
        old_workspace = Workspace()
        old_data = data_path
        if raw_data is not None:
            old_data = prepared_file(plan.source, raw_data, require_signature, old_workspace)
        old_checkpoint = checkpoint_path(plan.old.path, old_data, resume, None)
        old_request = plan.request(request, opened, old_data, old_checkpoint)
        old, old_artifacts, _ = old_request.open(old_workspace, plan.artifacts)
        check_writable(old_checkpoint)
        earlier = old_request.run(old, old_artifacts, given.without_checkpoint())
        compared = plan.compare(earlier.artifacts, computed.artifacts)
    result = ValidationResult(
        opened,
        computed,
        request.target.name,
        diagnoses,
        notes,
        bench=extras.get("bench"),
        comparison=compared,
        _workspace=workspace,
    )
    if pages[0] is not None:
        file = raw_data if isinstance(raw_data, str | os.PathLike) else data_path
        extras["facts"] = facts_of(result, optional_path(file))
    write_pages(result, *pages, extras, junit_inconclusive)
    # Not earlier: a command that is killed while it writes reports loses no work.
    for checkpoint in (request.checkpoint, old_checkpoint):
        if checkpoint is not None:
            files.remove(checkpoint)
    return result


def _limits(limits: Sequence[str] | Mapping[str, float]) -> tuple[Limit, ...]:
    from edgeattn.metrics.limits import Limit

    if isinstance(limits, Mapping):
        limits = [f"{name}={value!r}" for name, value in limits.items()]
    return tuple(Limit.parse(text) for text in limits)
