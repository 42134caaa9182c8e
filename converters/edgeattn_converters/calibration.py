"""Calibration samples: read, checked, and without those that the reference contains.

File formats are those of :mod:`edgeattn.samples.files`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.printable import counted
from edgeattn.samples import files as sample_files
from edgeattn.samples.fingerprints import row_fingerprints
from edgeattn.samples.prepared import shown_name
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn_converters.tracing.tokens import TokenLimits
from edgeattn_converters.tracing.trace import Interface

# TensorFlow's guide recommends 100 to 500 samples.
RECOMMENDED = 100
MAX_SAMPLES = 512
# One in so many distinct samples is set aside for the reference, if it has no samples of its own.
REFERENCE_SHARE = 5
SEED = 20240607
# A file may be larger than memory, so it is read in batches of this many bytes.
BATCH_BYTES = 8 * 2**20
# Larger values are sensor faults or a missing scaling, and would determine the range.
MAX_VALUE = 1e6
# A note is given if the largest value is this many times the 99.9th percentile.
OUTLIER_RATIO = 20.0


@dataclass(frozen=True)
class Calibration:
    """``inputs`` by name, and ``notes`` for the user.

    ``extremes`` are rows with the least and the largest value of each float input.
    """

    inputs: Tensors
    notes: tuple[str, ...]
    extremes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


def read(
    path: Path,
    interface: Interface,
    evaluation: Tensors | None = None,
    vocabulary: Mapping[str, TokenLimits] | None = None,
) -> Calibration:
    """At most :data:`MAX_SAMPLES` samples of ``path``, none of them in ``evaluation``.

    Those with the extremes of an input are among them, because files would clip them otherwise.
    ``vocabulary`` is that of :class:`Interface`. The file is read twice in batches: once to check
    all samples, and once for those that are used.

    Raises :class:`SampleError` if the file cannot be read or does not fit the model, if values are
    constant or implausible, and if no samples remain.
    """
    file = sample_files.open_samples(path, interface.inputs)
    specs = sample_inputs(interface.inputs)
    known = set() if evaluation is None else set(row_fingerprints(evaluation, specs))
    ranges = {spec.name: _Range() for spec in specs}
    exceeded: dict[str, tuple[int, int]] = {}  # the limits that an input has a token beyond
    usable = np.zeros(len(file), bool)
    extremes = {spec.name: _Extremes() for spec in specs if np.dtype(spec.dtype).kind == "f"}
    rows = rows_per_batch(file)
    for first, batch in zip(range(0, len(file), rows), file.batches(rows), strict=True):
        for spec in specs:
            values = batch.inputs[spec.name]
            ranges[spec.name].add(values)
            limits = (vocabulary or {}).get(spec.name)
            if limits is not None and (beyond := limits.outside(values, wrapped=True)).any():
                exceeded[spec.name] = limits.range_of(values, beyond)
        fingerprints = row_fingerprints(batch.inputs, specs) if known else [""] * len(batch)
        usable[first : first + len(batch)] = [item not in known for item in fingerprints]
        rows_used = np.flatnonzero(usable[first : first + len(batch)])
        for name, found in extremes.items():
            found.add(batch.inputs[name][rows_used], first + rows_used)
    if not usable.any():
        raise SampleError(
            f"Every sample in {shown_name(path)} is also in the reference.",
            hint="Calibrate on samples of the training set.",
        )
    notes = []
    if not usable.all():
        notes.append(
            f"not used for calibration, because the reference contains them: {(~usable).sum()} of "
            f"{counted(len(file), 'sample')}"
        )
    needed = np.array(sorted({row for found in extremes.values() for row in found.rows}), int)
    selected = _spread(np.flatnonzero(usable), needed, MAX_SAMPLES)
    inputs = _select(file, selected, rows)
    for spec in specs:
        notes += _check_values(spec, ranges[spec.name], inputs[spec.name], path)
    _check_tokens(specs, ranges, exceeded, path)
    distinct = len(set(row_fingerprints(inputs, specs)))
    if distinct == 1 < len(selected):
        raise SampleError(
            f"The {counted(len(selected), 'sample')} that were selected from {shown_name(path)} "
            "are equal, so they have the ranges of a single one.",
            hint="Calibrate on different real samples, preprocessed as in training.",
        )
    if distinct < RECOMMENDED:
        kind = "calibration sample" if distinct == len(selected) else "different calibration sample"
        notes.append(f"only {counted(distinct, kind)}: at least {RECOMMENDED} are recommended")
    positions = np.flatnonzero(np.isin(selected, needed))
    return Calibration(inputs, tuple(notes), tuple(positions.tolist()))


def _spread(rows: Array, needed: Array, count: int) -> Array:
    """At most ``count`` of ``rows``, evenly spaced except for those that are ``needed``."""
    if len(rows) <= count:
        return rows
    selected = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    missing = np.setdiff1d(needed, selected)
    replaced = np.setdiff1d(selected, needed)[: len(missing)]
    return np.union1d(np.setdiff1d(selected, replaced), missing[: len(replaced)])


def set_aside(
    path: Path, interface: Interface, vocabulary: Mapping[str, TokenLimits], count: int
) -> Tensors | None:
    """At most ``count`` samples for the reference, drawn at random from a fixed seed.

    They are a fifth of the distinct samples at most, and :func:`read` leaves them out if they are
    its ``evaluation``. Those with the extremes of an input are not among them, because files would
    clip values that the user calibrates on. None if the file has too few samples. Raises as
    :func:`read` does.
    """
    samples = read(path, interface, vocabulary=vocabulary)
    fingerprints = row_fingerprints(samples.inputs, interface.inputs)
    distinct = sorted({item: row for row, item in enumerate(fingerprints)}.values())
    generator = np.random.default_rng(SEED)
    drawn = generator.choice(distinct, min(count, len(distinct) // REFERENCE_SHARE), replace=False)
    needed = {fingerprints[row] for row in samples.extremes}
    free = [row for row in distinct if fingerprints[row] not in needed]
    kept = np.intersect1d(drawn, free).astype(int)
    others = np.setdiff1d(free, drawn).astype(int)
    more = generator.choice(others, min(len(drawn) - len(kept), len(others)), replace=False)
    rows = np.sort(np.concatenate([kept, more]))
    return {name: array[rows] for name, array in samples.inputs.items()} if len(rows) else None


def rows_per_batch(file: sample_files.SampleFile) -> int:
    """The number of samples in :data:`BATCH_BYTES` as float64, the widest type that is read."""
    values = sum(
        int(np.prod([axis for axis in spec.shape[1:] if axis is not None])) for spec in file.specs
    )
    return max(1, min(len(file), BATCH_BYTES // (8 * max(1, values))))


def _select(file: sample_files.SampleFile, selected: Array, rows: int) -> Tensors:
    """The samples with these indices."""
    parts: dict[str, list[Array]] = {spec.name: [] for spec in file.specs}
    stop = int(selected[-1]) + 1
    for first, batch in zip(range(0, stop, rows), file.batches(rows, stop=stop), strict=True):
        indices = selected[(selected >= first) & (selected < first + len(batch))] - first
        for name, array in batch.inputs.items():
            parts[name].append(array[indices])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


class _Range:
    """The range of all values of an input, over batches."""

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


class _Extremes:
    """A row with the least and one with the largest value of an input, over batches."""

    def __init__(self) -> None:
        self._low, self._high = (np.inf, -1), (-np.inf, -1)

    def add(self, values: Array, rows: Array) -> None:
        if not values.size:
            return
        flat = values.reshape(len(values), -1)
        least, largest = flat.min(axis=1), flat.max(axis=1)
        low, high = int(least.argmin()), int(largest.argmax())
        self._low = min(self._low, (float(least[low]), int(rows[low])))
        self._high = max(self._high, (float(largest[high]), int(rows[high])))

    @property
    def rows(self) -> set[int]:
        return {self._low[1], self._high[1]} - {-1}


def _check_tokens(
    specs: Sequence[TensorSpec],
    ranges: Mapping[str, _Range],
    exceeded: Mapping[str, tuple[int, int]],
    path: Path,
) -> None:
    for name, (least, largest) in exceeded.items():
        raise SampleError(
            f"Input {name}: tokens in {shown_name(path)} range from {ranges[name].low:g} to "
            f"{ranges[name].high:g}, but the model takes {least} to {largest}.",
            hint="Number the words as in training.",
        )
    if all(np.dtype(s.dtype).kind in "iu" and ranges[s.name].constant for s in specs):
        raise _constant("Inputs", path, ranges[specs[0].name].low)


def _constant(name: str, path: Path, value: float) -> SampleError:
    return SampleError(
        f"{name}: every value in {shown_name(path)} is {value:g}, so there is no range to measure.",
        hint="Calibrate on real samples, preprocessed as in training.",
    )


def _check_values(spec: TensorSpec, all_values: _Range, values: Array, path: Path) -> list[str]:
    """Notes on the values of a float input; ``values`` are those of the selected samples."""
    if values.dtype.kind != "f":
        return []
    if all_values.constant:
        raise _constant(f"Input {spec.name}", path, all_values.low)
    largest = max(abs(all_values.low), abs(all_values.high))
    if largest > MAX_VALUE:
        raise SampleError(
            f"Input {spec.name}: {shown_name(path)} contains values up to {largest:g}.",
            hint="Scale them as in training, and remove sensor faults.",
        )
    usual = float(np.quantile(np.abs(values), 0.999))
    if usual > 0 and largest > OUTLIER_RATIO * usual:
        return [
            f"calibration input {spec.name}: the largest value, {largest:g}, is "
            f"{largest / usual:.0f} times the 99.9th percentile and reduces the resolution"
        ]
    return []
