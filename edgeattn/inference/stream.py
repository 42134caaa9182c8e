"""One sample after another through an artifact, as they come: a sensor's loop as a pipe.

A stream is either text, a sample a line (numbers between commas or spaces, or JSON: an array, or
an object of arrays by input), or ``.npy`` files one behind the other, a sample or several each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import SampleError
from edgeattn.inference.batch import first_available
from edgeattn.process.worker import Worker
from edgeattn.runners.stateful import StatefulRunner
from edgeattn.samples.states import sample_inputs, with_initial_states
from edgeattn.tensors import Array, Tensors, TensorSpec

if TYPE_CHECKING:
    import io

MAGIC = b"\x93NUMPY"
LINE = 64 * 2**20


def stream_bundle(
    bundle: Path,
    source: io.BufferedReader,
    *,
    formats: tuple[str, ...] = (),
    schemes: tuple[str, ...] = (),
    threads: int = 1,
    carry_states: bool = False,
) -> Iterator[Tensors]:
    """The outputs for each sample of ``source``, each as soon as its sample is there.

    Arrays of one row. With ``carry_states`` a sample goes on where the one before it ended. Raises
    :class:`SampleError` naming the line or array that does not fit.
    """
    opened = Bundle.open(bundle)
    candidates = opened.select(formats, schemes)
    with Worker() as child:
        artifact, runner = first_available(opened, candidates, child, threads)
        through = StatefulRunner(runner) if carry_states else runner
        for sample in samples(source, artifact):
            yield through.run(with_initial_states(sample, artifact.inputs))


def samples(source: io.BufferedReader, artifact: Artifact) -> Iterator[Tensors]:
    """The samples of a stream, each with a batch axis of one."""
    if source.peek(len(MAGIC))[: len(MAGIC)] == MAGIC:
        yield from _arrays(source, sample_inputs(artifact.inputs))
    else:
        yield from _lines(source, artifact.inputs)


class _Pipe:
    """What NumPy must not take for a file on disk: it would ask where in it it is."""

    def __init__(self, source: IO[bytes]) -> None:
        self.read = source.read


def _arrays(source: io.BufferedReader, inputs: tuple[TensorSpec, ...]) -> Iterator[Tensors]:
    if len(inputs) != 1:
        raise SampleError(
            "A stream of .npy arrays fits a model of one input.",
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
        several = array.ndim == len(spec.shape)
        for row in array if several else [array]:
            yield {spec.name: _fitted(row, spec, f"array {number}")}


def _lines(source: IO[bytes], inputs: tuple[TensorSpec, ...]) -> Iterator[Tensors]:
    number = 0
    while line := source.readline(LINE):
        number += 1
        where = f"line {number}"
        try:
            text = line.decode().strip()
            if text:
                yield _sample(text, inputs, where)
        except (ValueError, TypeError, RecursionError) as error:
            raise SampleError(f"In {where} of the stream: {error}") from error


def _sample(text: str, inputs: tuple[TensorSpec, ...], where: str) -> Tensors:
    if text[0] in "[{":
        told: Any = json.loads(text)
    else:
        told = [float(word) for word in text.replace(",", " ").split()]
    brought = sample_inputs(inputs)
    if not isinstance(told, dict):
        if len(brought) != 1:
            names = ", ".join(spec.name for spec in brought)
            raise SampleError(f"{where} must be a JSON object with {names}: the model has several.")
        told = {brought[0].name: told}
    missing = [spec.name for spec in brought if spec.name not in told]
    if missing:
        raise SampleError(f"{where} has no input {missing[0]!r}.")
    return {
        spec.name: _fitted(np.asarray(told[spec.name]), spec, where)
        for spec in inputs
        if spec.name in told
    }


def _fitted(array: Array, spec: TensorSpec, where: str) -> Array:
    """``array`` in the shape of one sample of ``spec``, with a batch axis; flat numbers too."""
    shape = spec.shape[1:]
    fits = array.ndim == len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape, strict=True)
    )
    known = [axis for axis in shape if axis is not None]
    if not fits and array.ndim == 1 and len(known) == len(shape):
        fits = array.size == math.prod(known)
        array = array.reshape(known) if fits else array
    if not fits:
        wanted = ", ".join("?" if axis is None else str(axis) for axis in shape)
        raise SampleError(
            f"{where} of the stream has the shape {array.shape}, and input {spec.name} takes "
            f"one sample of ({wanted}) at a time."
        )
    if array.dtype.kind not in "buif":
        raise SampleError(f"{where} of the stream holds something that is no number.")
    if np.dtype(spec.dtype).kind in "iu" and not spec.quantized:
        whole = array.astype(spec.dtype)
        if not np.array_equal(whole, array):
            raise SampleError(f"{where} of the stream: {spec.name} takes {spec.dtype}.")
        return whole[None]
    return array.astype("float32" if spec.quantized else spec.dtype)[None]
