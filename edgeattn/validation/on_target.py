"""Validation of artifacts that run on a target, with the checks computed on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeattn.bundle.bundle import Bundle

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.evaluation.dataset import Samples
    from edgeattn.validation.validate import Limit, Report
from edgeattn.targets.target import Target, identify


def validate_in(
    place: Target,
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    *,
    trial: Samples | None = None,
    limits: Sequence[Limit] = (),
) -> Report:
    """As :func:`edgeattn.validate`, the artifacts run in ``place`` and the judging done here."""
    from edgeattn.validation.validate import validate

    with place.start() as child:
        identify(place, bundle, child)
        return validate(
            bundle,
            artifacts,
            lambda item: place.runner(child, item, as_deployed=True),
            trial=trial,
            limits=limits,
        )


def validate_device(
    place: Target,
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    *,
    trial: Samples | None = None,
    limits: Sequence[Limit] = (),
) -> Report:
    """As :func:`validate_in`, and the device's stage: the place against this interpreter."""
    from edgeattn import validate_isolated
    from edgeattn.validation import device_parity as parity

    there = validate_in(place, bundle, artifacts, trial=trial, limits=limits)
    near = validate_isolated(bundle, artifacts, limits=limits)
    return parity.with_device(there, near, bundle)
