"""Samples that activations are measured on: read, screened, and held apart from the evaluation's.

An ``.npz``, ``.npy`` or ``.csv`` as everywhere; see :mod:`edgeattn.samples`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeattn import samples as sample_files
from edgeattn.errors import SampleError
from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn_converters.tracing import Interface

# Ranges of activations settle after a hundred samples or so; TensorFlow's guide says 100 to 500.
ENOUGH = 100
MOST = 512
SUBSETS = 4
# Values so far out are faults of a sensor or a missing scaling, and would be the range.
HUGE = 1e6
# The largest value may be this many times the 99.9th percentile before it is worth a word.
OUTLIER = 20.0


@dataclass(frozen=True)
class Calibration:
    """``inputs`` as the model takes them; ``notes`` for people."""

    inputs: Tensors
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def subsets(self) -> list[Tensors]:
        """A few disjoint parts, each a cross-section; one where there are too few samples."""
        count = SUBSETS if len(self) >= 2 * SUBSETS else 1
        return [{name: a[k::count] for name, a in self.inputs.items()} for k in range(count)]


def read(path: Path, interface: Interface, evaluation: Tensors | None = None) -> Calibration:
    """The samples in ``path``, the evaluation's own left out, at most :data:`MOST` of them.

    Raises :class:`SampleError` for a file that cannot be read or does not fit, for values that are
    constant or absurd, and where nothing is left.
    """
    found = sample_files.read(path, interface.inputs)
    rows = np.arange(len(found))
    notes = []
    if evaluation is not None:
        known = set(_hashes(evaluation, interface.inputs))
        fresh = [
            k
            for k, digest in enumerate(_hashes(found.inputs, interface.inputs))
            if digest not in known
        ]
        if not fresh:
            raise SampleError(
                f"Every sample in {path.name} is also one that the result is judged on.",
                hint="Calibrate on samples of the training set.",
            )
        if len(fresh) < len(rows):
            notes.append(
                f"{len(rows) - len(fresh)} of {len(rows)} calibration samples left out: the result "
                "is judged on them"
            )
        rows = rows[fresh]
    if len(rows) > MOST:
        rows = rows[np.linspace(0, len(rows) - 1, MOST).astype(int)]
    inputs = {name: array[rows] for name, array in found.inputs.items()}
    for spec in interface.inputs:
        notes += _screen(spec, inputs[spec.name], path)
    if len(rows) < ENOUGH:
        notes.append(f"{len(rows)} calibration samples are few: aim for {ENOUGH} or more")
    return Calibration(inputs, tuple(notes))


def _screen(spec: TensorSpec, values: Array, path: Path) -> list[str]:
    if values.dtype.kind != "f":
        return []
    largest = float(np.abs(values).max())
    if len(values) > 1 and (values == values.flat[0]).all():
        raise SampleError(
            f"Input {spec.name}: every value in {path.name} is {values.flat[0]:g}; "
            "no range can be measured on that.",
            hint="Calibrate on real samples, prepared as for training.",
        )
    if largest > HUGE:
        raise SampleError(
            f"Input {spec.name}: values up to {largest:g} in {path.name}.",
            hint="Scale them as for training; a sensor's fault must not set the range.",
        )
    usual = float(np.quantile(np.abs(values), 0.999))
    if usual > 0 and largest > OUTLIER * usual:
        return [
            f"calibration input {spec.name}: the largest value, {largest:g}, is "
            f"{largest / usual:.0f} times the 99.9th percentile, and costs resolution"
        ]
    return []


def _hashes(inputs: Tensors, specs: tuple[TensorSpec, ...]) -> list[bytes]:
    count = len(inputs[specs[0].name])
    return [
        hashlib.sha256(
            b"".join(np.ascontiguousarray(inputs[spec.name][k]).tobytes() for spec in specs)
        ).digest()
        for k in range(count)
    ]
