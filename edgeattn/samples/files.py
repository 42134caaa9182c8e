"""Samples from files: ``.npz``, ``.npy`` and ``.csv`` as checked batches.

An ``.npz`` holds one array per input name, or ``x`` where there is one input, and labels or
targets under ``y``. A ``.npy`` is the one input. A ``.csv`` has a sample per row, its numbers in
row-major order (step after step), under an optional header line.

:func:`open_samples` reads some samples at a time, :func:`read` all of them.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.samples.arrays import ARRAYS_ONLY, Rows, csv_rows, npy_rows, npz_members, reading
from edgeattn.samples.states import sample_inputs, with_initial_states
from edgeattn.tensors import Array, Tensors, TensorSpec

TARGETS = "y"
# Up to here float64 holds every whole number.
EXACT = 2**53


@dataclass(frozen=True)
class Samples:
    """``inputs``: one array per input, the sample axis first; ``targets``: labels, where known.

    ``labels`` are those that say whose they are, ``y/OUTPUT``.
    """

    inputs: Tensors
    targets: Array | None = None
    labels: Tensors = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, rows: slice | Array) -> Samples:
        targets = None if self.targets is None else self.targets[rows]
        return Samples(
            {name: array[rows] for name, array in self.inputs.items()},
            targets,
            {name: array[rows] for name, array in self.labels.items()},
        )


@dataclass(frozen=True)
class SampleFile:
    """A file of samples whose shapes fit the model's ``specs``; values are checked when read.

    ``inputs`` are by the inputs' names, ``labels`` by their own: ``y`` and ``y/OUTPUT``. ``unused``
    are arrays that nothing asks for.
    """

    path: Path
    specs: tuple[TensorSpec, ...]
    inputs: Mapping[str, Rows]
    labels: Mapping[str, Rows] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.inputs[self.specs[0].name].shape[0]

    def batches(self, size: int, *, start: int = 0, stop: int | None = None) -> Iterator[Samples]:
        """Samples ``[start, stop)``, ``size`` at a time, the last batch smaller.

        Holds one batch in memory, whatever the file's size. Raises :class:`SampleError` for a value
        that does not fit, once it is met.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        with contextlib.ExitStack() as stack:
            readers = {k: stack.enter_context(rows.open()) for k, rows in self.inputs.items()}
            told = {k: stack.enter_context(rows.open()) for k, rows in self.labels.items()}
            for first in range(start, stop, size):
                rows = (first, min(first + size, stop))
                inputs = {
                    spec.name: self._fitted(readers[spec.name].read(*rows), spec, first)
                    for spec in self.specs
                    if spec.name in readers
                }
                labels = {name: reader.read(*rows) for name, reader in told.items()}
                yield Samples(
                    with_initial_states(inputs, self.specs), labels.pop(TARGETS, None), labels
                )

    def _fitted(self, array: Array, spec: TensorSpec, first: int) -> Array:
        if self.path.suffix.lower() == ".csv":
            axes = [axis for axis in spec.shape[1:] if axis is not None]
            array = _as_written(array, np.dtype(spec.dtype), spec).reshape(len(array), *axes)
        return _fit(array, spec, first)


def read_npz(path: Path) -> Tensors:
    """All arrays of an ``.npz``; :class:`SampleError` where it is none. Never unpickles."""
    with reading(path, ".npz", ARRAYS_ONLY), path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise SampleError(f"{path} is a single array, not an .npz: name it .npy.")
        arrays = {name: loaded[name] for name in loaded.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise SampleError(
                f"{path} is a zip file, but {name!r} in it is no array.", hint=ARRAYS_ONLY
            )
    return arrays


def write_npz(file: IO[bytes], tensors: Tensors, *, compress: bool = False) -> None:
    """As ``numpy.savez``, for arrays of any name: there, ``file`` and ``allow_pickle`` clash."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in tensors.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # without a date: equal arrays, equal bytes
            entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def read(path: Path, specs: Sequence[TensorSpec]) -> Samples:
    """All the samples in ``path``; raises as :func:`open_samples` and its batches do."""
    found = open_samples(path, specs)
    (everything,) = found.batches(len(found))
    return everything


def open_samples(path: Path, specs: Sequence[TensorSpec]) -> SampleFile:
    """The file of samples at ``path``, its arrays held to the model's inputs ``specs``.

    Shapes are ``(samples, ...)`` with the axes of the spec behind the batch axis. Reads headers,
    and of a ``.csv`` how many lines it has. Raises :class:`SampleError` for a file that cannot be
    read, an array that is missing, and a shape or dtype that does not fit. A state that the file
    does not bring is zero.
    """
    path = Path(path)
    if not path.is_file():
        # A folder, too, is no file of samples.
        raise SampleError(f"No such file of samples: {path}")
    suffix = path.suffix.lower()
    names = {spec.name for spec in specs}
    labels: dict[str, Rows] = {}
    unused: tuple[str, ...] = ()
    if suffix == ".npz":
        members = npz_members(path)
        brought = sample_inputs(specs)
        there = [*brought, *(s for s in specs if s.state is not None and s.name in members)]
        picked = {spec.name: _pick(members, spec, brought, path) for spec in there}
        inputs: dict[str, Rows] = {k: npy_rows(path, members[n]) for k, n in picked.items()}
        left = [name for name in members if name not in names | set(picked.values())]
        labels = {n: npy_rows(path, members[n]) for n in left if _is_label(n)}
        unused = tuple(name for name in left if not _is_label(name))
    elif suffix in (".npy", ".csv"):
        _need_one_input(path, sample_inputs(specs))
        rows = _open_npy(path) if suffix == ".npy" else _open_csv(path, specs[0])
        inputs = {specs[0].name: rows}
    else:
        raise SampleError(f"Samples are .npz, .npy or .csv files, not {path.name!r}.")
    for spec in specs:
        if suffix != ".csv" and spec.name in inputs:
            _check_shape(inputs[spec.name].shape, spec)
    counts = {name: rows.shape[0] for name, rows in inputs.items()}
    if TARGETS in labels:
        counts[TARGETS] = labels[TARGETS].shape[0] if labels[TARGETS].shape else 0
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise SampleError(f"The arrays of {path} have different numbers of samples ({told}).")
    if not next(iter(counts.values())):
        raise SampleError(f"{path} holds no samples.")
    return SampleFile(path, tuple(specs), inputs, labels, unused)


def _is_label(name: str) -> bool:
    return name == TARGETS or name.startswith(f"{TARGETS}/")


def _need_one_input(path: Path, specs: Sequence[TensorSpec]) -> None:
    if len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise SampleError(
            f"The model has {len(specs)} inputs ({names}): {path.suffix} holds one.",
            hint="Use an .npz with one array per input name.",
        )


def _open_npy(path: Path) -> Rows:
    if zipfile.is_zipfile(path):
        raise SampleError(f"{path} is an archive of arrays, not a .npy: name it .npz.")
    return npy_rows(path)


def _open_csv(path: Path, spec: TensorSpec) -> Rows:
    if None in spec.shape[1:]:
        raise SampleError(
            f"A .csv row cannot be cut into steps: input {spec} has a free axis.",
            hint="Use an .npz or .npy, which say their shape.",
        )
    rows = csv_rows(path)
    width = math.prod(axis for axis in spec.shape[1:] if axis is not None)
    if rows.shape[1] != width:
        raise SampleError(
            f"Each row of {path} must hold {width} numbers for input {spec}; "
            f"it holds {rows.shape[1]}."
        )
    return rows


def _as_written(table: Array, dtype: np.dtype[Any], spec: TensorSpec) -> Array:
    """A ``.csv`` does not say what kind its numbers are: whole ones where the input takes those."""
    if spec.quantized or dtype.kind not in "biu" or not np.isfinite(table).all():
        return table
    if dtype.kind == "b":
        return table.astype(bool) if np.isin(table, (0.0, 1.0)).all() else table
    if (table != np.rint(table)).any():
        return table
    if np.abs(table).max() > EXACT:
        raise SampleError(
            f"Input {spec}: whole numbers beyond 2**53 lose digits in a .csv.",
            hint="Use an .npz or .npy of integers.",
        )
    return table.astype(np.int64)


def _pick(
    named: Mapping[str, str], spec: TensorSpec, specs: Sequence[TensorSpec], path: Path
) -> str:
    """The name of the array for an input."""
    if spec.name in named:
        return spec.name
    if len(specs) == 1 and "x" in named:
        return "x"
    wanted = ", ".join(repr(item.name) for item in specs)
    also = " (or 'x')" if len(specs) == 1 else ""
    raise SampleError(
        f"{path} has no array for input {spec.name!r}.",
        hint=f"It must hold {wanted}{also}; it holds {', '.join(map(repr, named)) or 'nothing'}.",
    )


def _fit(array: Array, spec: TensorSpec, first: int = 0) -> Array:
    """``array`` in ``spec``'s dtype, after its shape, dtype and values were found to fit.

    ``first`` is the number of its first sample in the file.
    """
    _check_shape(array.shape, spec)
    # A quantized input is fed with the real numbers that its integers stand for.
    dtype = np.dtype("float32" if spec.quantized else spec.dtype)
    kind = array.dtype.kind
    if kind not in "buif":
        raise SampleError(f"Input {spec}: numbers expected, the samples are {array.dtype}.")
    if kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            row, *rest = (int(i) for i in np.argwhere(bad)[0])
            where = (first + row, *rest)
            raise SampleError(
                f"Input {spec.name}: {int(bad.sum())} of the samples' values are NaN or infinite, "
                f"the first at {where}.",
                hint="Remove or repair these samples: no runtime can be judged on them.",
            )
    if dtype.kind in "iu":
        if kind == "f":
            raise SampleError(
                f"Input {spec}: integers expected, the samples are {array.dtype}.",
                hint=f"Convert them first: x.astype({dtype.name!r})",
            )
        limits = np.iinfo(dtype)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise SampleError(
                f"Input {spec}: values from {array.min()} to {array.max()} do not fit {dtype.name}."
            )
    elif dtype.kind == "b" and kind != "b":
        raise SampleError(f"Input {spec}: booleans expected, the samples are {array.dtype}.")
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(result).all():
        raise SampleError(
            f"Input {spec}: values from {array.min():g} to {array.max():g} overflow {dtype}."
        )
    return np.ascontiguousarray(result)


def _check_shape(shape: tuple[int, ...], spec: TensorSpec) -> None:
    expected = spec.shape[1:]
    fits = len(shape) == len(spec.shape) and all(
        axis is None or axis == length for axis, length in zip(expected, shape[1:], strict=True)
    )
    if fits:
        return
    wanted = f"({', '.join(['samples', *('any' if a is None else str(a) for a in expected)])})"
    hint = None
    if len(shape) == len(expected) and all(
        axis in (None, length) for axis, length in zip(expected, shape, strict=True)
    ):
        hint = "The sample axis is missing: use x[None]."
    raise SampleError(
        f"Input {spec.name}: shape {wanted} expected, the samples are {shape}.", hint=hint
    )
