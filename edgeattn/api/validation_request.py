"""What ``edgeattn.validate`` is to do, checked before any work starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.api.arguments import ArtifactSelection, ModelLoading, TargetOptions, check_positive
from edgeattn.api.foreign_file import Origin, is_foreign_file, open_as_bundle
from edgeattn.api.raw_data import with_note
from edgeattn.api.sources import Workspace
from edgeattn.api.sources import opened as open_bundle
from edgeattn.errors import UsageError
from edgeattn.samples.prepared import shown_name
from edgeattn.schemes import MAX_DROP

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.diagnosis.diagnose import ArtifactDiagnosis
    from edgeattn.evaluation.dataset import Dataset
    from edgeattn.evaluation.file_dataset import FileDataset
    from edgeattn.metrics.limits import Limit
    from edgeattn.process.pool import Opener
    from edgeattn.validation.report import Report
    from edgeattn.validation.validate import ValidationOptions


@dataclass(frozen=True)
class Given:
    """Objects that a caller passes in place of what a :class:`Request` describes.

    ``opener`` opens runners for artifacts, which then run in this process.
    """

    opener: Opener | None = None
    dataset: Dataset | None = None
    options: ValidationOptions | None = None

    def without_checkpoint(self) -> Given:
        """The same for another bundle."""
        options = self.options
        return replace(self, options=None if options is None else replace(options, checkpoint=None))


@dataclass(frozen=True)
class Request:
    """What to validate, on which samples, and where.

    Attributes:
        path: A bundle, or a .tflite or .onnx file.
        selection: The artifacts to validate.
        loading: What is needed to load the Keras file.
        target: Where the artifacts run.
        data: A file of samples to evaluate on.
        raw: Whether the front end prepared them from raw samples.
        model: The Keras file that the bundle was converted from.
        reference: Arrays with which a .tflite or .onnx file is compared.
        limits: Limits in place of those of the scheme.
        max_drop: Largest accepted drop of the score; None for the default.
        jobs: Worker processes that run in parallel; None for one per core.
        checkpoint: A file that stores unfinished work.
        explain: Whether to find the first operator that computes wrong values.
        signers: A file of allowed signers, one of whom must have signed the bundle.
        scheduler: The address of a Dask scheduler, whose workers evaluate on the dataset.
    """

    path: Path
    selection: ArtifactSelection
    loading: ModelLoading
    target: TargetOptions
    data: Path | None
    raw: bool
    model: Path | None
    reference: Path | None
    limits: tuple[Limit, ...]
    max_drop: float | None
    jobs: int | None
    checkpoint: Path | None
    explain: bool
    signers: Path | None
    scheduler: str | None = None

    @property
    def options(self) -> ValidationOptions:
        from edgeattn.validation.validate import ValidationOptions

        return ValidationOptions(
            self.limits,
            self.jobs or len(os.sched_getaffinity(0)),
            self.checkpoint,
            MAX_DROP if self.max_drop is None else self.max_drop,
        )

    def with_absolute_paths(self) -> Request:
        """The request for processes with another working folder."""

        def absolute(path: Path | None) -> Path | None:
            return None if path is None else path.absolute()

        loading, architecture = self.loading, self.loading.architecture
        if architecture is not None:
            architecture = str(Path(architecture).absolute())
        return replace(
            self,
            data=absolute(self.data),
            model=absolute(self.model),
            loading=replace(
                loading,
                custom_objects=absolute(loading.custom_objects),
                architecture=architecture,
            ),
        )

    def open(
        self, workspace: Workspace, artifacts: Sequence[Artifact] | None
    ) -> tuple[Bundle, tuple[Artifact, ...], tuple[str, ...]]:
        """The bundle, the artifacts to validate, and notes on how a single file is compared.

        Raises :class:`UsageError` for arguments that contradict each other or have no effect.
        """
        from edgeattn.samples.files import check_ignored
        from edgeattn.validation.limit_names import check_limits, check_task_limits

        notes: tuple[str, ...] = ()
        is_file = is_foreign_file(self.path)
        if is_file:
            _check_file_options(self.path, explain=self.explain, require_signature=self.signers)
            origin = Origin(self.model, self.reference, self.data, self.loading)
            bundle, notes = open_as_bundle(self.path, self.selection, origin, workspace.path)
        elif self.reference is not None:
            raise UsageError(
                "--reference has no effect on a bundle, which contains one.",
                hint="Omit --reference.",
            )
        else:
            bundle = open_bundle(self.path, self.signers)
        selected = self.selection.of(bundle) if artifacts is None else tuple(artifacts)
        if self.limits:
            check_limits(self.limits, selected, bundle.reference())
        if self.data is None and not is_file:
            _check_data_options(self.model, self.loading)
        if self.data is None:
            check_task_limits(self.limits, ())
            self._check_max_drop(labelled=False)
        check_ignored(self.loading.ignore, self.data)
        check_positive(jobs=self.jobs)
        if not self.target.local:
            _check_local(jobs=self.jobs, resume=self.checkpoint, explain=self.explain)
        if self.scheduler is not None:
            self._check_scheduler()
        return bundle, selected, notes

    def open_dataset(self, bundle: Bundle, artifacts: Sequence[Artifact]) -> FileDataset | None:
        """The dataset in ``data``, with Keras as its reference if that is available."""
        from edgeattn.validation.limit_names import check_task_limits

        if self.data is None:
            return None
        dataset = _open_dataset(bundle, artifacts, self.data, self.model, self.loading)
        check_task_limits(self.limits, tuple(dataset.label_summaries))
        self._check_max_drop(labelled=bool(dataset.label_summaries))
        return with_note(dataset, bundle) if self.raw else dataset

    def run(self, bundle: Bundle, artifacts: tuple[Artifact, ...], given: Given) -> Report:
        """Validate where :attr:`target` says, with what is ``given`` in place of the request's."""
        from edgeattn.validation.on_target import validate_with_device_stage
        from edgeattn.validation.validate import validate, validate_isolated

        if self.scheduler is not None:
            return self._run_on_dask(self.scheduler, bundle, artifacts, given)
        dataset, options = given.dataset, given.options or self.options
        dataset = self.open_dataset(bundle, artifacts) if dataset is None else dataset
        if given.opener is not None:
            return validate(bundle, artifacts, given.opener, dataset=dataset, options=options)
        if self.target.local:
            return validate_isolated(bundle, artifacts, dataset=dataset, options=options)
        with self.target.open(bundle) as target:
            return validate_with_device_stage(
                target, bundle, artifacts, dataset=dataset, options=options
            )

    def _run_on_dask(
        self, address: str, bundle: Bundle, artifacts: tuple[Artifact, ...], given: Given
    ) -> Report:
        from edgeattn.cluster.scheduler import RESUME, open_cluster
        from edgeattn.validation.dask_shards import DaskShards
        from edgeattn.validation.validate import validate_isolated

        dataset = self.open_dataset(bundle, artifacts)
        assert dataset is not None
        options = given.options or self.options
        hint = "Rerun the command. Add --resume to store results as they come back."
        with open_cluster(address, hint if options.checkpoint is None else RESUME) as cluster:
            cluster.check_versions()
            options = replace(options, shards=DaskShards(cluster, bundle, dataset))
            return validate_isolated(bundle, artifacts, dataset=dataset, options=options)

    def diagnose(self, bundle: Bundle, report: Report) -> tuple[ArtifactDiagnosis, ...] | None:
        """Diagnoses if they were requested; reference artifacts are validated if needed."""
        from edgeattn.diagnosis.diagnose import diagnose
        from edgeattn.validation.validate import ValidationOptions, validate_isolated

        if not self.explain:
            return None
        options = ValidationOptions(limits=self.limits)
        return diagnose(
            bundle,
            report.artifacts,
            validate=lambda item: validate_isolated(bundle, (item,), options=options).artifacts[0],
        )

    def _check_scheduler(self) -> None:
        """Raise :class:`UsageError` if a scheduler has no effect, or another option has none."""
        from edgeattn.cluster.libraries import DASK, require

        require(*DASK, purpose="--scheduler")
        if self.data is None:
            raise UsageError("--scheduler has no effect without --data.", hint="Add --data FILE.")
        if not self.target.local:
            raise UsageError(
                "--scheduler has no effect with --on and --python.", hint="Omit --scheduler."
            )
        if self.jobs is not None:
            raise UsageError(
                "--jobs has no effect with --scheduler, which has its own workers.",
                hint="Omit --jobs.",
            )

    def _check_max_drop(self, *, labelled: bool) -> None:
        """Raise :class:`UsageError` if a maximum drop was passed and has no effect."""
        if self.max_drop is None:
            return
        if not labelled:
            raise UsageError(
                "--max-drop has no effect without labels.", hint="Pass labels with --data."
            )
        for limit in self.limits:
            if limit.output is None and limit.name in ("max_drop", "retention"):
                raise UsageError(
                    f"--max-drop has no effect beside --limit {limit.name}.",
                    hint="Omit one of them.",
                )


def _check_file_options(path: Path, *, explain: bool, require_signature: Path | None) -> None:
    """Raise :class:`UsageError` for options that need a bundle."""
    for name, value in (("explain", explain), ("require-signature", require_signature)):
        if value:
            raise UsageError(
                f"--{name} has no effect on {path.name}, which is no bundle.",
                hint=f"Omit --{name}, or make a bundle of the Keras file: edgeattn convert MODEL",
            )


def _check_local(**values: Any) -> None:
    for name, value in values.items():
        if value:
            raise UsageError(
                f"--{name} works on this machine only.", hint="Omit it, or omit --on and --python."
            )


def _check_data_options(model: Path | None, loading: ModelLoading) -> None:
    """Raise :class:`UsageError` for options that need a dataset."""
    if model is not None:
        raise UsageError("--model has no effect without --data.", hint="Add --data FILE.")
    for name in loading.to_json():
        raise UsageError(
            f"--{name.replace('_', '-')} has no effect without --data.", hint="Add --data FILE."
        )


def _open_dataset(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    data: Path,
    model: Path | None,
    loading: ModelLoading,
) -> FileDataset:
    """The dataset in ``data``, with Keras as its reference if that is available."""
    from edgeattn.evaluation.file_dataset import open_dataset
    from edgeattn.evaluation.keras_reference import find_original, open_keras

    original = find_original(bundle, model)
    float32 = [item for item in bundle.manifest.artifacts if item.scheme == "float32"]
    if original is None and not float32:
        raise UsageError(
            "--data has no reference: the Keras file is not beside the bundle, and the bundle has "
            "no float32 artifact.",
            hint="Pass the Keras file: --model FILE.",
        )
    if original is None:
        for name in loading.to_json():
            raise UsageError(
                f"--{name.replace('_', '-')} has no effect: the Keras file is not beside the "
                "bundle.",
                hint="Pass the Keras file: --model FILE.",
            )
    dataset = open_dataset(data, bundle, loading.ignore, artifacts=artifacts)
    specs = dataset.file.specs
    keras = None if original is None else open_keras(bundle, original, loading.to_json(), specs)
    if keras is not None:
        return dataset.with_keras(keras)
    own = {spec.name: spec.shape[1:] for spec in bundle.manifest.artifacts[0].inputs}
    if any(spec.shape[1:] != own[spec.name] for spec in specs):
        # The fallback reference may have one length only.
        raise UsageError(
            f"{shown_name(data)} has sequences of another length than the bundle, which only the "
            "Keras model can be compared at.",
            hint="Pass the Keras file on a machine that has Keras: --model FILE.",
        )
    if model is not None or not float32:
        raise UsageError(
            "--model needs Keras, which is not installed.",
            hint="Omit --model to compare with the bundle's float32 artifact instead."
            if float32
            else "Install it with: pip install 'edgeattn[convert]'",
        )
    if tuple(artifacts) == tuple(float32[:1]):
        raise UsageError(
            f"Without Keras, {float32[0].label} would be compared with itself on "
            f"{shown_name(data)}.",
            hint="Select another artifact too, or pass the Keras file on a machine that has Keras.",
        )
    return dataset


def checkpoint_path(
    bundle: Path, data: Path | None, resume: bool, resume_file: Path | None
) -> Path | None:
    if data is None and (resume or resume_file is not None):
        raise UsageError("--resume has no effect without --data.", hint="Add --data FILE.")
    if resume_file is not None or not resume:
        return resume_file
    beside = bundle.absolute()
    return beside.with_name(f"{beside.name}.{data.stem if data else ''}.unfinished.npz")
