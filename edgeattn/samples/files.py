"""Samples from ``.npz``, ``.npy`` and ``.csv`` files, as checked batches.

An ``.npz`` file has one array per input name, or ``x`` if there is one input, and labels named
``y``, ``y/OUTPUT`` or as the output itself. A ``.npy`` file is the only input. A ``.csv`` file has
one sample per row, with its numbers in row-major order (step by step), and an optional header line.

:func:`open_samples` reads in batches, :func:`read_samples` all at once.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.printable import counted, enumerated
from edgeattn.samples.arrays import ArrayFile, csv_array, npy_array, npz_members
from edgeattn.samples.input_conversion import check_shape, fit, infer_dtype
from edgeattn.samples.labels import TARGETS, unused_arrays
from edgeattn.samples.states import sample_inputs, with_initial_states
from edgeattn.tensors import Array, Tensors, TensorSpec


def ways_of_raw(kind: Literal["text", "values"]) -> str:
    """How a user passes text, or values of several inputs, to the front end."""
    are, them, suffix = ("is", "it", "txt") if kind == "text" else ("are", "them", "jsonl")
    return (
        f"Raw {kind} {are} prepared by the front end: pass {them} with --raw-samples or "
        "--raw-calibration to convert, with --raw-data to validate and tune, and as lines to run: "
        f"--input FILE.{suffix} --stream"
    )


def named_arrays(names: Sequence[str]) -> str:
    """How a user names the arrays of the inputs ``names``; that of the only one may be ``x``."""
    if len(names) == 1:
        choices = dict.fromkeys((*names, "x"))
        return f"Name the array {enumerated([repr(name) for name in choices], 'or')}."
    return f"Name the arrays {', '.join(map(repr, names))}."


@dataclass(frozen=True)
class Samples:
    """Arrays by input name and labels, all with the sample axis first.

    ``targets`` is the array ``y``, and ``labels`` are those of single outputs, by array name.
    """

    inputs: Tensors
    targets: Array | None = None
    labels: Tensors = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, rows: slice | Array) -> Samples:
        return Samples(
            {name: array[rows] for name, array in self.inputs.items()},
            None if self.targets is None else self.targets[rows],
            {name: array[rows] for name, array in self.labels.items()},
        )


@dataclass(frozen=True)
class SampleFile:
    """A file whose arrays have the shapes of the inputs ``specs``; values are checked when read.

    ``inputs`` are by input name, ``labels`` by the name of the array: ``y``, ``y/OUTPUT`` or that
    of an output. ``unused`` names the other arrays of the file.
    """

    path: Path
    specs: tuple[TensorSpec, ...]
    inputs: Mapping[str, ArrayFile]
    labels: Mapping[str, ArrayFile] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    allow_non_finite: bool = False

    def __len__(self) -> int:
        return self.inputs[self.specs[0].name].shape[0]

    def check_arrays(self, outputs: Sequence[str]) -> None:
        """Raise :class:`SampleError` for arrays that are no inputs and no labels of an output."""
        labels = (TARGETS, *outputs, *(f"{TARGETS}/{name}" for name in outputs))
        unused = [name for name in (*self.labels, *self.unused) if name not in labels]
        if unused:
            raise unused_arrays(unused, outputs)

    def batches(self, size: int, *, start: int = 0, stop: int | None = None) -> Iterator[Samples]:
        """Samples ``[start, stop)`` in batches of ``size``; the last batch may be smaller.

        Only one batch is in memory. Raises :class:`SampleError` if a value does not fit.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        with contextlib.ExitStack() as stack:
            inputs = {k: stack.enter_context(array.open()) for k, array in self.inputs.items()}
            labels = {k: stack.enter_context(array.open()) for k, array in self.labels.items()}
            for first in range(start, stop, size):
                rows = (first, min(first + size, stop))
                batch: Tensors = {
                    spec.name: self._fit(inputs[spec.name].read(*rows), spec, first)
                    for spec in self.specs
                    if spec.name in inputs
                }
                batch_labels = {name: reader.read(*rows) for name, reader in labels.items()}
                targets = batch_labels.pop(TARGETS, None)
                yield Samples(with_initial_states(batch, self.specs), targets, batch_labels)

    def _fit(self, array: Array, spec: TensorSpec, first: int) -> Array:
        if self.path.suffix.lower() == ".csv":
            axes = [axis for axis in spec.shape[1:] if axis is not None]
            array = infer_dtype(array, np.dtype(spec.dtype), spec).reshape(len(array), *axes)
        return fit(array, spec, first, allow_non_finite=self.allow_non_finite)


def read_samples(
    path: Path,
    specs: Sequence[TensorSpec],
    *,
    ignore: Collection[str] = (),
    allow_non_finite: bool = False,
) -> Samples:
    """All samples in ``path``. Raises :class:`SampleError` if they do not fit ``specs``."""
    file = replace(open_samples(path, specs, ignore=ignore), allow_non_finite=allow_non_finite)
    (samples,) = file.batches(len(file))
    return samples


def open_samples(
    path: Path,
    specs: Sequence[TensorSpec],
    *,
    outputs: Collection[str] = (),
    ignore: Collection[str] = (),
) -> SampleFile:
    """Open a file of samples for the inputs ``specs``, without the arrays named in ``ignore``.

    Arrays named as one of ``outputs`` are labels. Inputs have the shape ``(samples, ...)``, with
    the axes of the spec after its batch axis. A state that is not in the file is zero. Only headers
    are read, and the number of lines of a ``.csv``. Raises :class:`SampleError` if the file cannot
    be read, an array is missing, or a shape does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise SampleError(
            f"No such file of samples: {path}", hint="Pass an .npz, .npy or .csv file of samples."
        )
    suffix = path.suffix.lower()
    if suffix == ".npz":
        file = _open_npz(path, specs, outputs, ignore)
    elif suffix in (".npy", ".csv"):
        file = _open_single(path, specs)
    else:
        raise SampleError(
            f"{path.name} is not a file of samples: expected .npz, .npy or .csv.",
            hint="Save the arrays in Python: numpy.savez('samples.npz', x=inputs, y=labels)",
        )
    for spec in specs:
        if suffix != ".csv" and spec.name in file.inputs:
            check_shape(file.inputs[spec.name].shape, spec)
    counts = {name: array.shape[0] for name, array in file.inputs.items()}
    if TARGETS in file.labels:
        shape = file.labels[TARGETS].shape
        counts[TARGETS] = shape[0] if shape else 0
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise SampleError(f"The arrays of {path} have different numbers of samples ({listed}).")
    if not next(iter(counts.values())):
        raise SampleError(f"{path} has no samples.")
    return file


def check_names(path: Path, names: Sequence[str], *, ignore: Collection[str] = ()) -> None:
    """Raise :class:`SampleError` if an ``.npz`` file lacks the array of one of several inputs."""
    if path.suffix.lower() != ".npz" or len(names) < 2:
        return
    members = {name: item for name, item in npz_members(path).items() if name not in ignore}
    for name in names:
        if name not in members:
            raise _missing_array(path, members, name, names)


def check_ignored(ignore: Sequence[str], *paths: Path | None) -> None:
    """Raise :class:`SampleError` if none of the files has an array with a name in ``ignore``."""
    files = [path for path in paths if path is not None]
    if ignore and not files:
        raise SampleError(
            "--ignore has no effect without a file of samples.", hint="Omit --ignore."
        )
    names: list[str] = []
    for path in files if ignore else ():
        if path.suffix.lower() == ".npz" and path.is_file():
            names += npz_members(path)
    for name in ignore:
        if name not in names:
            raise SampleError(
                f"--ignore {name}: no such array in "
                f"{enumerated([path.name for path in files], 'or')}; "
                f"the arrays: {', '.join(dict.fromkeys(names)) or 'none with a name'}.",
                hint=f"Omit --ignore {name}.",
            )


def _open_npz(
    path: Path,
    specs: Sequence[TensorSpec],
    outputs: Collection[str],
    ignore: Collection[str],
) -> SampleFile:
    members = {name: item for name, item in npz_members(path).items() if name not in ignore}
    required = sample_inputs(specs)
    states = [spec for spec in specs if spec.state is not None and spec.name in members]
    names = {spec.name: _array_name(members, spec, required, path) for spec in (*required, *states)}
    others = [
        name for name in members if name not in {spec.name for spec in specs} | set(names.values())
    ]

    def is_label(name: str) -> bool:
        return name == TARGETS or name.startswith(f"{TARGETS}/") or name in outputs

    arrays = {input: npy_array(path, members[name]) for input, name in names.items()}
    for spec in specs:
        is_text = spec.name in arrays and arrays[spec.name].dtype.kind in "US"
        if is_text and spec.dtype != "string":
            raise SampleError(
                f"{path}: the array for input {spec.name!r} is text; it takes {spec.dtype}.",
                hint=ways_of_raw("text"),
            )
    return SampleFile(
        path,
        tuple(specs),
        arrays,
        {name: npy_array(path, members[name]) for name in others if is_label(name)},
        tuple(name for name in others if not is_label(name)),
    )


def _array_name(
    members: Mapping[str, str], spec: TensorSpec, required: Sequence[TensorSpec], path: Path
) -> str:
    """The name of the array for the input ``spec``."""
    if spec.name in members:
        return spec.name
    if len(required) == 1 and "x" in members:
        return "x"
    raise _missing_array(path, members, spec.name, [item.name for item in required])


def _missing_array(
    path: Path, members: Mapping[str, str], name: str, required: Sequence[str]
) -> SampleError:
    """The error about a file without an array for the input ``name``."""
    is_text = any(npy_array(path, member).dtype.kind in "US" for member in members.values())
    return SampleError(
        f"{path} has no array for input {name!r}; its arrays: "
        f"{', '.join(map(repr, members)) or 'none'}.",
        hint=ways_of_raw("text") if is_text else named_arrays(required),
    )


def _open_single(path: Path, specs: Sequence[TensorSpec]) -> SampleFile:
    """Open a ``.npy`` or ``.csv`` file, which has one array."""
    required = sample_inputs(specs)
    if len(required) != 1:
        names = ", ".join(spec.name for spec in required)
        raise SampleError(
            f"The model has {len(required)} inputs ({names}); a {path.suffix} file has one array.",
            hint="Use an .npz file with one array per input.",
        )
    if path.suffix.lower() == ".csv":
        array = _open_csv(path, specs[0])
    elif zipfile.is_zipfile(path):
        raise SampleError(f"{path} is an .npz file.", hint="Rename it to .npz.")
    else:
        array = npy_array(path)
    return SampleFile(path, tuple(specs), {specs[0].name: array})


def _open_csv(path: Path, spec: TensorSpec) -> ArrayFile:
    if None in spec.shape[1:]:
        raise SampleError(
            f"Rows of a .csv have no shape, and input {spec} has a free axis.",
            hint="Use an .npz or .npy file.",
        )
    array = csv_array(path)
    width = math.prod(axis for axis in spec.shape[1:] if axis is not None)
    if array.shape[1] != width:
        raise SampleError(
            f"Rows of {path} have {counted(array.shape[1], 'number')}; input {spec} requires "
            f"{width}."
        )
    return array
