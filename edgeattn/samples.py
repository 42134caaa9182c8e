"""Samples from files: ``.npz``, ``.npy`` and ``.csv`` as checked batches.

An ``.npz`` holds one array per input name, or ``x`` where there is one input, and labels or
targets under ``y``. A ``.npy`` is the one input. A ``.csv`` has a sample per row, its numbers in
row-major order (step after step), under an optional header line.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgeattn.errors import SampleError, first_line
from edgeattn.tensors import Array, Tensors, TensorSpec

TARGETS = "y"
# Up to here float64 holds every whole number.
EXACT = 2**53


@dataclass(frozen=True)
class Samples:
    """``inputs``: one array per input, the sample axis first; ``targets``: labels, where known."""

    inputs: Tensors
    targets: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, rows: slice) -> Samples:
        targets = None if self.targets is None else self.targets[rows]
        return Samples({name: array[rows] for name, array in self.inputs.items()}, targets)


def read_npz(path: Path) -> Tensors:
    """All arrays of an ``.npz``; :class:`SampleError` where it is none. Never unpickles."""
    hint = "Write it with numpy.savez(path, x=...), arrays of numbers only."
    loaded: Array | dict[str, Array] = _load(path, ".npz", hint)
    if isinstance(loaded, np.ndarray):
        raise SampleError(f"{path} is a single array, not an .npz: name it .npy.")
    for name, array in loaded.items():
        if not isinstance(array, np.ndarray):
            raise SampleError(f"{path} is a zip file, but {name!r} in it is no array.", hint=hint)
    return loaded


def _load(path: Path, kind: str, hint: str | None = None) -> Any:
    """The array of a ``.npy`` or the arrays, by name, of an ``.npz``."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zipfile, zlib, tokenize and numpy each have their own
        reason = first_line(error)
        if "pickled" in reason:  # numpy's answer to any file it does not know
            reason = "it is neither that nor holds numbers only"
        raise SampleError(f"{path} cannot be read as {kind}: {reason}", hint=hint) from error


def write_npz(file: IO[bytes], tensors: Tensors, *, compress: bool = False) -> None:
    """As ``numpy.savez``, for arrays of any name: there, ``file`` and ``allow_pickle`` clash."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in tensors.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # without a date: equal arrays, equal bytes
            entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def read(path: Path, specs: Sequence[TensorSpec]) -> Samples:
    """The samples in ``path``, checked against the model's inputs ``specs``.

    Shapes are ``(samples, ...)`` with the axes of the spec behind the batch axis. Raises
    :class:`SampleError` for a file that cannot be read, an array that is missing, and a shape,
    dtype or value that does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise SampleError(f"No such file of samples: {path}")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        named = dict(read_npz(path))
        targets = named.pop(TARGETS, None) if TARGETS not in [s.name for s in specs] else None
    elif suffix in (".npy", ".csv"):
        _need_one_input(path, specs)
        named = {specs[0].name: _read_npy(path) if suffix == ".npy" else _read_csv(path, specs[0])}
        targets = None
    else:
        raise SampleError(f"Samples are .npz, .npy or .csv files, not {path.name!r}.")
    inputs = {spec.name: _fit(_pick(named, spec, specs, path), spec) for spec in specs}
    counts = {name: len(array) for name, array in inputs.items()}
    if targets is not None:
        counts[TARGETS] = len(targets) if targets.ndim else 0
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise SampleError(f"The arrays of {path} have different numbers of samples ({told}).")
    if not next(iter(counts.values())):
        raise SampleError(f"{path} holds no samples.")
    return Samples(inputs, targets)


def _need_one_input(path: Path, specs: Sequence[TensorSpec]) -> None:
    if len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise SampleError(
            f"The model has {len(specs)} inputs ({names}): {path.suffix} holds one.",
            hint="Use an .npz with one array per input name.",
        )


def _read_npy(path: Path) -> Array:
    array = _load(path, ".npy")
    if not isinstance(array, np.ndarray):
        raise SampleError(f"{path} is an archive of arrays, not a .npy: name it .npz.")
    return array


def _read_csv(path: Path, spec: TensorSpec) -> Array:
    if None in spec.shape[1:]:
        raise SampleError(
            f"A .csv row cannot be cut into steps: input {spec} has a free axis.",
            hint="Use an .npz or .npy, which say their shape.",
        )
    try:
        # A spreadsheet puts a byte order mark in front: it is no part of the first number.
        lines = [line.partition("#")[0] for line in path.read_text("utf-8-sig").splitlines()]
        lines = [line for line in lines if line.strip()]
        if lines and _is_header(lines[0]):
            lines = lines[1:]
        if not lines:
            raise SampleError(f"{path} holds no samples.")
        table = np.loadtxt(lines, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise SampleError(f"{path} cannot be read as .csv: {first_line(error)}") from error
    width = math.prod(axis for axis in spec.shape[1:] if axis is not None)
    if table.shape[1] != width:
        raise SampleError(
            f"Each row of {path} must hold {width} numbers for input {spec}; "
            f"it holds {table.shape[1]}."
        )
    table = _as_written(table, np.dtype(spec.dtype), spec)
    return table.reshape(len(table), *(axis for axis in spec.shape[1:] if axis is not None))


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


def _is_header(line: str) -> bool:
    """Whether no cell is a number: a row with some numbers is a row, if a broken one."""
    return not any(_is_number(cell) for cell in line.split(","))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _pick(named: Tensors, spec: TensorSpec, specs: Sequence[TensorSpec], path: Path) -> Array:
    if spec.name in named:
        return named[spec.name]
    if len(specs) == 1 and "x" in named:
        return named["x"]
    wanted = ", ".join(repr(item.name) for item in specs)
    also = " (or 'x')" if len(specs) == 1 else ""
    raise SampleError(
        f"{path} has no array for input {spec.name!r}.",
        hint=f"It must hold {wanted}{also}; it holds {', '.join(map(repr, named)) or 'nothing'}.",
    )


def _fit(array: Array, spec: TensorSpec) -> Array:
    """``array`` in ``spec``'s dtype, after its shape, dtype and values were found to fit."""
    _check_shape(array, spec)
    # A quantized input is fed with the real numbers that its integers stand for.
    dtype = np.dtype("float32" if spec.quantized else spec.dtype)
    kind = array.dtype.kind
    if kind not in "buif":
        raise SampleError(f"Input {spec}: numbers expected, the samples are {array.dtype}.")
    if kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
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


def _check_shape(array: Array, spec: TensorSpec) -> None:
    expected = spec.shape[1:]
    fits = array.ndim == len(spec.shape) and all(
        axis is None or axis == length
        for axis, length in zip(expected, array.shape[1:], strict=True)
    )
    if fits:
        return
    wanted = f"({', '.join(['samples', *('any' if a is None else str(a) for a in expected)])})"
    hint = None
    if array.ndim == len(expected) and all(
        axis in (None, length) for axis, length in zip(expected, array.shape, strict=True)
    ):
        hint = "The sample axis is missing: use x[None]."
    raise SampleError(
        f"Input {spec.name}: shape {wanted} expected, the samples are {array.shape}.", hint=hint
    )
