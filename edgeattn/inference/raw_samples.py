"""Raw samples in files, and in the reference of a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import BundleError, SampleError
from edgeattn.frontend.description import FrontEnd
from edgeattn.frontend.values import as_numbers
from edgeattn.frontend.windows import WindowBuffer
from edgeattn.inference.raw_stream import read_raw
from edgeattn.samples.files import named_arrays
from edgeattn.samples.labels import TARGETS
from edgeattn.samples.npz import read_npz
from edgeattn.tensors import Array, Specs, Tensors

RAW = "raw/"
Sample = Mapping[str, Any]


def read_raw_samples(path: Path, front_end: FrontEnd, specs: Specs) -> list[Sample]:
    """The raw samples in a file, by the names of the inputs ``specs``.

    ``.npz`` has an array for each input, or ``x`` for the only one, with the sample axis first, and
    ``.npy`` has that of the only input; labels ``y`` and ``y/OUTPUT`` have no effect. Other files
    are read as streams, see :func:`~edgeattn.inference.raw_stream.read_raw`; labels have no effect
    in these. Raises :class:`SampleError`, also for other arrays.
    """
    if not path.is_file():
        raise SampleError(
            f"No such file of samples: {path}",
            hint="Pass a .txt, .csv, .jsonl, .wav, .npz or .npy file of raw samples.",
        )
    suffix, names = path.suffix.lower(), [spec.name for spec in specs]
    if suffix in (".npz", ".npy"):
        return _of_arrays(path, front_end, names)
    only = front_end.only_raw_name(names)
    samples: list[Sample] = []
    buffer = None if front_end.window is None else WindowBuffer(front_end.window)
    with path.open("rb") as file:
        for value in read_raw(file, front_end, specs, suffix=suffix):
            if isinstance(value, SampleError):
                raise SampleError(
                    f"{path.name}: {value.message}",
                    hint=value.hint or "Correct or remove this line.",
                )
            if buffer is not None and front_end.window is not None:
                for _, window in buffer.extend(front_end.window.block(as_numbers(value))):
                    if isinstance(window, SampleError):
                        raise window
                    samples.append({specs[0].name: window})
            else:
                sample = value if isinstance(value, dict) else {str(only): value}
                samples.append(front_end.by_input(sample, names))
    if not samples:
        hint = "Write a sample per line."
        if buffer is not None:
            hint = "A stream needs the readings of a window."
        raise SampleError(f"{path} has no samples.", hint=hint)
    for spec in specs:
        if any(spec.name not in sample for sample in samples):
            raise SampleError(
                f"A sample in {path} has no input {spec.name!r}.",
                hint="Name its values by the inputs of the converted model: " + ", ".join(names),
            )
    return samples


def _of_arrays(path: Path, front_end: FrontEnd, names: Sequence[str]) -> list[Sample]:
    is_npy = path.suffix.lower() == ".npy"
    stored = {"x": np.load(path, allow_pickle=False)} if is_npy else read_npz(path)
    arrays = front_end.by_input(stored, names)
    samples = samples_of_arrays(path, arrays, names)
    used = {*names, TARGETS}
    unused = [key for key in arrays if key not in used and not key.startswith(f"{TARGETS}/")]
    if unused:
        raise SampleError(
            f"{path} has arrays that nothing uses: {', '.join(map(repr, unused))}.",
            hint="Name labels 'y' or 'y/OUTPUT', and leave other arrays out of the file. Names of "
            "classes are read from a text file: --labels FILE.",
        )
    return samples


def samples_of_arrays(path: Path, arrays: Tensors, names: Sequence[str]) -> list[Sample]:
    """The raw samples of the inputs ``names`` in the arrays of the file ``path``."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise SampleError(
            f"{path} has no array for input {missing[0]!r}; its arrays: "
            f"{', '.join(map(repr, arrays)) or 'none'}.",
            hint=named_arrays(names),
        )
    counts = {len(arrays[name]) for name in names}
    if len(counts) != 1 or 0 in counts:
        raise SampleError(f"The arrays of {path} have no samples, or different numbers of them.")
    return [{name: arrays[name][row] for name in names} for row in range(counts.pop())]


def as_json_bytes(raw: Mapping[str, Sequence[Any]]) -> Tensors:
    """Raw samples by input as arrays: a row of bytes for each, JSON that ends with zeros."""
    arrays = {}
    for name, samples in raw.items():
        rows = [
            json.dumps(item.tolist() if isinstance(item, np.ndarray) else item).encode()
            for item in samples
        ]
        array: Array = np.zeros((len(rows), max(map(len, rows))), "uint8")
        for target, row in zip(array, rows, strict=True):
            target[: len(row)] = np.frombuffer(row, "uint8")
        arrays[name] = array
    return arrays


def from_json_bytes(array: Array) -> list[Any]:
    """Inverse of :func:`as_json_bytes` for one input."""
    try:
        return [json.loads(row.tobytes().rstrip(b"\0")) for row in array]
    except (ValueError, RecursionError, AttributeError) as error:
        raise BundleError(
            f"The raw samples of the reference cannot be read: {error}",
            hint="Convert the model again.",
        ) from error
