"""Samples that activations are measured on: read, screened, and held apart from the evaluation's.

An ``.npz``, ``.npy`` or ``.csv`` as everywhere; see :mod:`edgeattn.samples.files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.samples import files as sample_files
from edgeattn.samples.fingerprints import row_fingerprints
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn_converters.tracing.trace import Interface

# Ranges of activations settle after a hundred samples or so; TensorFlow's guide says 100 to 500.
ENOUGH = 100
MOST = 512
# A file may be larger than the machine's memory: so many bytes of it are held at a time.
AT_ONCE = 8 * 2**20
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


def read(
    path: Path,
    interface: Interface,
    evaluation: Tensors | None = None,
    vocabulary: Mapping[str, int] | None = None,
) -> Calibration:
    """The samples in ``path``, the evaluation's own left out, at most :data:`MOST` of them.

    ``vocabulary`` says of inputs that an embedding looks up how many different tokens there are.

    Reads the file twice, some samples at a time: all of them are looked through, and those are kept
    that are measured on. Raises :class:`SampleError` for a file that cannot be read or does not
    fit, for values that are constant or absurd, and where nothing is left.
    """
    file = sample_files.open_samples(path, interface.inputs)
    specs = sample_inputs(interface.inputs)
    known = set() if evaluation is None else set(row_fingerprints(evaluation, specs))
    seen = {spec.name: _Seen() for spec in specs}
    fresh = np.zeros(len(file), bool)
    rows = _rows_at_once(file)
    for first, batch in zip(range(0, len(file), rows), file.batches(rows), strict=True):
        for spec in specs:
            seen[spec.name].add(batch.inputs[spec.name])
        digests = row_fingerprints(batch.inputs, specs) if known else [""] * len(batch)
        fresh[first : first + len(batch)] = [digest not in known for digest in digests]
    if not fresh.any():
        raise SampleError(
            f"Every sample in {path.name} is also one that the result is judged on.",
            hint="Calibrate on samples of the training set.",
        )
    notes = []
    if not fresh.all():
        notes.append(
            f"{(~fresh).sum()} of {len(file)} calibration samples left out: the result is judged "
            "on them"
        )
    chosen = np.flatnonzero(fresh)
    if len(chosen) > MOST:
        chosen = chosen[np.linspace(0, len(chosen) - 1, MOST).astype(int)]
    inputs = _picked(file, chosen, rows)
    for spec in specs:
        notes += _screen(spec, seen[spec.name], inputs[spec.name], path)
    _screen_tokens(specs, seen, vocabulary or {}, path)
    if len(chosen) < ENOUGH:
        notes.append(f"{len(chosen)} calibration samples are few: aim for {ENOUGH} or more")
    return Calibration(inputs, tuple(notes))


def _rows_at_once(file: sample_files.SampleFile) -> int:
    """So many samples as take :data:`AT_ONCE` bytes as float64, the widest they are read as."""
    values = sum(
        int(np.prod([axis for axis in spec.shape[1:] if axis is not None])) for spec in file.specs
    )
    return max(1, min(len(file), AT_ONCE // (8 * max(1, values))))


def _picked(file: sample_files.SampleFile, chosen: Array, rows: int) -> Tensors:
    """The samples at these places."""
    parts: dict[str, list[Array]] = {spec.name: [] for spec in file.specs}
    last = int(chosen[-1]) + 1
    for first, batch in zip(range(0, last, rows), file.batches(rows, stop=last), strict=True):
        here = chosen[(chosen >= first) & (chosen < first + len(batch))] - first
        for name, array in batch.inputs.items():
            parts[name].append(array[here])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


class _Seen:
    """The lowest and the highest of all values that went by."""

    def __init__(self) -> None:
        self.low, self.high, self.count = np.inf, -np.inf, 0

    def add(self, values: Array) -> None:
        if values.size:
            self.count += len(values)
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))

    @property
    def constant(self) -> bool:
        return self.count > 1 and self.low == self.high


def _screen_tokens(
    specs: Sequence[TensorSpec], seen: Mapping[str, _Seen], sizes: Mapping[str, int], path: Path
) -> None:
    for spec in specs:
        found = seen[spec.name]
        size = sizes.get(spec.name)
        if size is not None and (found.high >= size or found.low < -size):
            raise SampleError(
                f"Input {spec.name}: tokens from {found.low:g} to {found.high:g} in {path.name}, "
                f"and the embedding knows {size}, from 0.",
                hint="Number the words as for training.",
            )
    if all(np.dtype(s.dtype).kind in "iu" and seen[s.name].constant for s in specs):
        raise SampleError(
            f"Every value in {path.name} is the same; no range can be measured on that.",
            hint="Calibrate on real samples, prepared as for training.",
        )


def _screen(spec: TensorSpec, seen: _Seen, values: Array, path: Path) -> list[str]:
    """What is told of the values of an input: ``seen`` are all, ``values`` those that are kept."""
    if values.dtype.kind != "f":
        return []
    largest = max(abs(seen.low), abs(seen.high))
    if seen.constant:
        raise SampleError(
            f"Input {spec.name}: every value in {path.name} is {seen.low:g}; "
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
            f"{largest / usual:.0f} times the 99.9th percentile, and would cost resolution"
        ]
    return []
