"""Fingerprints of the samples that a bundle was calibrated on or that its reference holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeattn.tensors import TensorSpec

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
from edgeattn.samples.fingerprints import row_fingerprints


def calibration_fingerprints(bundle: Bundle) -> set[str]:
    """The hashes of samples that an artifact of the bundle was calibrated on."""
    found: set[str] = set()
    for artifact in bundle.manifest.artifacts:
        told = artifact.achieved.get("calibration")
        if isinstance(told, Mapping):
            found.update(str(digest) for digest in told.get("digests", ()))
    return found


def reference_fingerprints(bundle: Bundle, specs: tuple[TensorSpec, ...]) -> list[str]:
    """The hashes of the samples in the bundle's reference."""
    reference = bundle.reference()
    rows = int(bundle.manifest.reference["samples"])
    inputs = {spec.name: reference[f"input/{spec.name}"][:rows] for spec in specs}
    return row_fingerprints(inputs, specs)
