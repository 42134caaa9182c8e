"""Validation of artifacts that run on a target, with the checks computed on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeattn.targets.target import Target, identify
from edgeattn.validation.device_parity import add_device_stage
from edgeattn.validation.validate import ValidationOptions, validate, validate_isolated

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.evaluation.dataset import Dataset
    from edgeattn.validation.report import Report


def validate_on_target(
    target: Target,
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    *,
    dataset: Dataset | None = None,
    options: ValidationOptions = ValidationOptions(),  # noqa: B008
) -> Report:
    """Validate as :func:`edgeattn.validate` does, but run the artifacts on ``target``.

    Raises :class:`DeviceError` if the target cannot be reached.
    """
    with target.start() as worker:
        identify(target, bundle, worker)
        return validate(
            bundle,
            artifacts,
            lambda artifact: target.runner(worker, artifact, as_deployed=True),
            dataset=dataset,
            options=options,
        )


def validate_with_device_stage(
    target: Target,
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    *,
    dataset: Dataset | None = None,
    options: ValidationOptions = ValidationOptions(),  # noqa: B008
) -> Report:
    """Validate on ``target``, and compare its outputs with those of this machine."""
    report = validate_on_target(target, bundle, artifacts, dataset=dataset, options=options)
    host_report = validate_isolated(bundle, artifacts, options=options)
    return add_device_stage(report, host_report, bundle)
