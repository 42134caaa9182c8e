"""One artifact run on a file of samples, or on a stream of them, each as soon as it arrives.

A stream is text with one sample per line (numbers separated by commas or spaces, a JSON array, or
a JSON object of arrays by input name), or consecutive ``.npy`` arrays of one or more samples each.
"""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import OutputError, SampleError
from edgeattn.files import atomic_write, require_new
from edgeattn.inference.model import first_available
from edgeattn.process.worker import Worker
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.runners.stateful import StatefulRunner
from edgeattn.samples.arrays import NPY_MAGIC
from edgeattn.samples.files import read_samples
from edgeattn.samples.npz import write_npz
from edgeattn.samples.states import sample_inputs, with_initial_states
from edgeattn.tensors import Array, Specs, Tensors, TensorSpec

_OTHER_FILE = "Choose another file with -o FILE."
MAX_LINE = 64 * 2**20  # bytes


@dataclass(frozen=True)
class RunResult:
    """Outputs of one artifact, and the runtime that computed them."""

    artifact: Artifact
    runtime: str
    samples: int
    outputs: Tensors


def run_bundle(
    bundle: Path,
    source: Path,
    target: Path,
    *,
    formats: tuple[str, ...] = (),
    schemes: tuple[str, ...] = (),
    threads: int = 1,
    carry_states: bool = False,
    force: bool = False,
) -> RunResult:
    """Run the first matching artifact whose runtime is installed, and write ``target``.

    ``source`` is a file of samples (.npz, .npy or .csv), ``target`` an .npz file with one array per
    output. With ``carry_states`` each sample starts from the final states of the one before it.
    Raises :class:`BundleError` if no artifact matches or the bundle is damaged,
    :class:`SampleError` if the samples do not fit the model, :class:`OutputError` if ``target``
    exists (without ``force``) or cannot be written, :class:`RuntimeUnavailableError` if no runtime
    is installed, and :class:`ArtifactError` if the runtime fails.
    """
    opened = Bundle.open(bundle)
    candidates = opened.select(formats, schemes)
    _check_target(target, force=force)
    with Worker() as worker:
        runner = first_available(
            candidates, lambda item: IsolatedRunner(opened.path, item, worker, threads=threads)
        )
        samples = read_samples(source, runner.inputs)
        outputs = (StatefulRunner(runner) if carry_states else runner).run(samples.inputs)
    with atomic_write(target, hint=_OTHER_FILE) as file:
        write_npz(file, outputs)
    return RunResult(runner.artifact, runner.runtime, len(samples), outputs)


def _check_target(target: Path, *, force: bool) -> None:
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} exists and is not a file.", hint=_OTHER_FILE)
    require_new(target, force=force)
    if not target.parent.is_dir():
        raise OutputError(
            f"No such folder: {target.parent}", hint="Create it, or choose another file with -o."
        )


def stream_bundle(
    bundle: Path,
    source: io.BufferedReader,
    *,
    formats: tuple[str, ...] = (),
    schemes: tuple[str, ...] = (),
    threads: int = 1,
    carry_states: bool = False,
) -> Iterator[Tensors]:
    """The outputs for each sample of ``source``, as arrays with one row.

    With ``carry_states`` each sample starts from the final states of the one before it. Raises
    :class:`SampleError`, which names the line or array, if a sample does not fit the model.
    """
    opened = Bundle.open(bundle)
    candidates = opened.select(formats, schemes)
    with Worker() as worker:
        isolated = first_available(
            candidates, lambda item: IsolatedRunner(opened.path, item, worker, threads=threads)
        )
        artifact = isolated.artifact
        runner = StatefulRunner(isolated) if carry_states else isolated
        for sample in read_stream(source, artifact):
            yield runner.run(with_initial_states(sample, artifact.inputs))


def read_stream(source: io.BufferedReader, artifact: Artifact) -> Iterator[Tensors]:
    """The samples of a stream, each with a batch axis of 1."""
    if source.peek(len(NPY_MAGIC))[: len(NPY_MAGIC)] == NPY_MAGIC:
        yield from _read_arrays(source, sample_inputs(artifact.inputs))
    else:
        yield from _read_lines(source, artifact.inputs)


class _Pipe:
    """Hides that ``source`` is a file: NumPy would query its position, which pipes do not have."""

    def __init__(self, source: IO[bytes]) -> None:
        self.read = source.read


def _read_arrays(source: io.BufferedReader, inputs: Specs) -> Iterator[Tensors]:
    if len(inputs) != 1:
        raise SampleError(
            "A stream of .npy arrays requires a model with one input.",
            hint='Send lines of JSON: {"INPUT": [...], ...}',
        )
    spec, number = inputs[0], 0
    while source.peek(1):
        number += 1
        try:
            array: Array = np.lib.format.read_array(
                cast(IO[bytes], _Pipe(source)), allow_pickle=False
            )
        except (ValueError, EOFError, OSError) as error:
            raise SampleError(f"Array {number} of the stream cannot be read: {error}") from error
        has_sample_axis = array.ndim == len(spec.shape)
        for sample in array if has_sample_axis else [array]:
            yield {spec.name: _fit(sample, spec, f"Array {number}")}


def _read_lines(source: IO[bytes], inputs: Specs) -> Iterator[Tensors]:
    number = 0
    while line := source.readline(MAX_LINE):
        number += 1
        try:
            text = line.decode().strip()
            if text:
                yield _parse(text, inputs, f"Line {number}")
        except (ValueError, TypeError, RecursionError) as error:
            raise SampleError(f"Line {number} of the stream cannot be read: {error}") from error


def _parse(text: str, inputs: Specs, position: str) -> Tensors:
    required = sample_inputs(inputs)
    values: Any
    if text[0] in "[{":
        values = json.loads(text)
    else:
        values = [float(number) for number in text.replace(",", " ").split()]
    if not isinstance(values, dict):
        if len(required) != 1:
            names = ", ".join(spec.name for spec in required)
            raise SampleError(
                f"{position} of the stream: the model has several inputs.",
                hint=f"Send JSON objects with: {names}.",
            )
        values = {required[0].name: values}
    missing = [spec.name for spec in required if spec.name not in values]
    if missing:
        raise SampleError(f"{position} of the stream has no input {missing[0]!r}.")
    return {
        spec.name: _fit(np.asarray(values[spec.name]), spec, position)
        for spec in inputs
        if spec.name in values
    }


def _fit(array: Array, spec: TensorSpec, position: str) -> Array:
    """One sample of ``spec``, which may be flat, in its shape and dtype with a batch axis of 1."""
    shape = spec.shape[1:]
    fits = array.ndim == len(shape) and all(
        expected in (None, length) for expected, length in zip(shape, array.shape, strict=True)
    )
    fixed = [axis for axis in shape if axis is not None]
    if not fits and array.ndim == 1 and len(fixed) == len(shape):
        fits = array.size == math.prod(fixed)
        array = array.reshape(fixed) if fits else array
    if not fits:
        expected_shape = ", ".join("?" if axis is None else str(axis) for axis in shape)
        raise SampleError(
            f"{position} of the stream has the shape {array.shape}. Input {spec.name} takes one "
            f"sample of shape ({expected_shape})."
        )
    if array.dtype.kind not in "buif":
        raise SampleError(f"{position} of the stream contains values that are not numbers.")
    if np.dtype(spec.dtype).kind in "iu" and not spec.quantized:
        integers = array.astype(spec.dtype)
        if not np.array_equal(integers, array):
            raise SampleError(
                f"{position} of the stream: input {spec.name} takes {spec.dtype} values."
            )
        return integers[None]
    return array.astype("float32" if spec.quantized else spec.dtype)[None]
