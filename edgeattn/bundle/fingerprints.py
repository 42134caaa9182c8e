"""Fingerprints of a bundle's calibration and reference samples."""

from collections.abc import Mapping

from edgeattn.bundle.bundle import Bundle
from edgeattn.samples.fingerprints import row_fingerprints
from edgeattn.tensors import TensorSpec


def calibration_fingerprints(bundle: Bundle) -> set[str]:
    """Fingerprints of the samples that any artifact of the bundle was calibrated on."""
    fingerprints: set[str] = set()
    for artifact in bundle.manifest.artifacts:
        calibration = artifact.achieved.get("calibration")
        if isinstance(calibration, Mapping):
            fingerprints.update(str(digest) for digest in calibration.get("digests", ()))
    return fingerprints


def reference_fingerprints(bundle: Bundle, specs: tuple[TensorSpec, ...]) -> list[str]:
    """Fingerprints of the samples in the bundle's reference, in their order."""
    reference = bundle.reference()
    rows = int(bundle.manifest.reference["samples"])
    inputs = {spec.name: reference[f"input/{spec.name}"][:rows] for spec in specs}
    return row_fingerprints(inputs, specs)
