"""Samples known by their hashes: those that were calibrated on, and those of the reference."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.states import given
from edgeattn.tensors import Tensors, TensorSpec

if TYPE_CHECKING:
    from edgeattn.bundle import Bundle


def row_digests(inputs: Tensors, specs: tuple[TensorSpec, ...]) -> list[str]:
    """A short hash of each sample: the bytes of its inputs, one after the other, without states."""
    specs = given(specs)
    count = len(inputs[specs[0].name])
    return [
        hashlib.sha256(
            b"".join(np.ascontiguousarray(inputs[spec.name][row]).tobytes() for spec in specs)
        ).hexdigest()[:16]
        for row in range(count)
    ]


def calibration_digests(bundle: Bundle) -> set[str]:
    """The hashes of samples that an artifact of the bundle was calibrated on."""
    found: set[str] = set()
    for artifact in bundle.manifest.artifacts:
        told = artifact.achieved.get("calibration")
        if isinstance(told, Mapping):
            found.update(str(digest) for digest in told.get("digests", ()))
    return found


def reference_digests(bundle: Bundle, specs: tuple[TensorSpec, ...]) -> list[str]:
    """The hashes of the samples in the bundle's reference."""
    reference = bundle.reference()
    rows = int(bundle.manifest.reference["samples"])
    inputs = {spec.name: reference[f"input/{spec.name}"][:rows] for spec in specs}
    return row_digests(inputs, specs)
