"""Raw samples with labels: a dataset that the front end of a bundle prepares."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.description import FrontEnd
from edgeattn.inference.raw import RawModel
from edgeattn.inference.raw_samples import Sample, samples_of_arrays
from edgeattn.inference.stream import numbered_lines
from edgeattn.printable import counted
from edgeattn.samples.labels import TARGETS
from edgeattn.samples.npz import read_npz, write_npz
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Specs, Tensors


def write_prepared(path: Path, front_end: FrontEnd, inputs: Specs, target: Path) -> None:
    """Write the raw dataset in ``path`` to the ``.npz`` file ``target``, prepared, with its labels.

    ``.npz`` has arrays of numbers with the sample axis first, ``.jsonl`` an object per line; both
    have the inputs by name, or ``x`` for the only one, and labels as datasets of prepared inputs
    have them. With windows, a sample has the readings of one. A label in ``.jsonl`` may be one of
    the names in the front end. Raises :class:`SampleError`.
    """
    names = [spec.name for spec in sample_inputs(inputs)]
    if not path.is_file():
        raise SampleError(
            f"No such file of samples: {path}", hint="Pass a .jsonl or .npz file of raw samples."
        )
    labels: Tensors
    if path.suffix.lower() == ".npz":
        arrays = front_end.by_input(read_npz(path), names)
        samples = samples_of_arrays(path, arrays, names)
        # An array that is no label is refused when the dataset is opened.
        labels = {name: array for name, array in arrays.items() if name not in names}
    elif path.suffix.lower() == ".jsonl":
        samples, labels = _read_lines(path, front_end, names)
    else:
        raise SampleError(
            f"{path.name} is not a raw dataset.", hint="Write it as .npz or .jsonl, with labels y."
        )
    model = RawModel(front_end, inputs, (), lambda tensors: tensors)
    rows = []
    for number, sample in enumerate(samples, 1):
        try:
            rows.append(model.prepare(sample))
        except SampleError as error:
            text = f"{path.name}, sample {number}: {error.message}"
            raise SampleError(text, hint=error.hint) from error
    prepared = {name: np.concatenate([row[name] for row in rows]) for name in names}
    with target.open("wb") as file:
        write_npz(file, {**prepared, **labels})


def _read_lines(
    path: Path, front_end: FrontEnd, names: Sequence[str]
) -> tuple[list[Sample], Tensors]:
    samples: list[Sample] = []
    labels: dict[str, list[Any]] = {}
    with path.open("rb") as file:
        for number, line in numbered_lines(file):
            if isinstance(line, SampleError):
                raise line
            position = f"{path.name}, line {number}"
            sample = dict(front_end.by_input(_parse(position, line), names))
            for name in names:
                if name not in sample:
                    raise SampleError(f"{position}: the sample has no input {name!r}.")
            samples.append({name: sample.pop(name) for name in names})
            for name, value in sample.items():
                labels.setdefault(name, []).append(_label(position, value, front_end))
    if not samples:
        raise SampleError(f"{path.name} has no samples.")
    for name, values in labels.items():
        if len(values) != len(samples):
            raise SampleError(
                f"{path.name}: {name!r} is in {len(values)} of {counted(len(samples), 'line')}.",
                hint="Give one label per sample.",
            )
    return samples, {name: _array(path, name, values) for name, values in labels.items()}


def _parse(position: str, line: str) -> dict[str, Any]:
    try:
        sample = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SampleError(f"{position} is not JSON: {error}") from error
    if not isinstance(sample, dict):
        raise SampleError(
            f"{position} is not a JSON object.",
            hint=f'Write each sample as {{"x": ..., "{TARGETS}": ...}}.',
        )
    return sample


def _label(position: str, value: Any, front_end: FrontEnd) -> Any:
    """A label, whose name becomes its number; a list of them for the steps of a sample."""
    if isinstance(value, list):
        return [_label(position, item, front_end) for item in value]
    if not isinstance(value, str):
        return value
    names = () if front_end.answer is None else front_end.answer.labels
    if value not in names:
        listed = f"Its labels: {', '.join(names)}." if names else "It has no labels."
        raise SampleError(f"{position}: {value!r} is no label of the front end. {listed}")
    return names.index(value)


def _array(path: Path, name: str, values: Sequence[Any]) -> Array:
    try:
        array: Array = np.asarray(values)
    except ValueError as error:
        raise SampleError(f"{path.name}: the values of {name!r} differ in length.") from error
    if array.dtype.kind not in "buif":
        raise SampleError(f"{path.name}: {name!r} has values that are not numbers.")
    return array
