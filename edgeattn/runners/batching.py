"""Samples cut into batches for a runtime, and the outputs of the batches joined."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from edgeattn.errors import ArtifactError, SampleError
from edgeattn.tensors import Array, Tensors, TensorSpec, dequantize, quantize


def missing_input(spec: TensorSpec, names: Iterable[str]) -> SampleError:
    """The error for a sample without the input ``spec``; ``names`` iterates over its inputs."""
    listed = ", ".join(map(repr, names)) or "none"
    return SampleError(f"Input {spec} is missing. Inputs of the sample: {listed}.")


def count_samples(tensors: Tensors, inputs: tuple[TensorSpec, ...]) -> int:
    """The number of samples in ``tensors``.

    Raises :class:`SampleError` if an input is missing, has no samples or another number of them.
    """
    counts = {}
    for spec in inputs:
        if spec.name not in tensors:
            raise missing_input(spec, tensors)
        counts[spec.name] = len(tensors[spec.name]) if tensors[spec.name].ndim else 0
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise SampleError(f"The inputs have different numbers of samples ({listed}).")
    samples = counts[inputs[0].name]
    if not samples:
        raise SampleError("The inputs have no samples.")
    return samples


def batch_slices(samples: int, sizes: Sequence[int]) -> Iterator[slice]:
    """The rows of batches of ``sizes`` samples in turn; the last one has the remaining samples."""
    start = 0
    for size in itertools.cycle(sizes):
        if start >= samples:
            return
        yield slice(start, min(start + size, samples))
        start += size


def batches(
    tensors: Tensors, inputs: tuple[TensorSpec, ...], sizes: Sequence[int], *, fixed: bool
) -> Iterator[tuple[dict[str, Array], int]]:
    """Quantized batches of ``sizes`` samples in turn, each with its number of samples.

    The last batch has the remaining samples. If the batch size is ``fixed``, to the only one of
    ``sizes``, it is padded with copies of the last sample, which its number of samples does not
    include.
    """
    for rows in batch_slices(count_samples(tensors, inputs), sizes):
        count = rows.stop - rows.start
        feeds = {}
        for spec in inputs:
            batch = quantize(tensors[spec.name][rows], spec)
            if fixed and count < sizes[0]:
                batch = np.concatenate([batch, batch[-1:].repeat(sizes[0] - count, axis=0)])
            feeds[spec.name] = batch
        yield feeds, count


def join_batches(batches: list[Array], spec: TensorSpec) -> Array:
    """One dequantized array of all batches of an output, ``(samples, ...)``."""
    if any(batch.ndim != batches[0].ndim or batch.ndim < 1 for batch in batches):
        raise ArtifactError(f"Output {spec} has the shape {batches[0].shape}.")
    try:
        return dequantize(np.concatenate(batches), spec)
    except ValueError as error:
        raise ArtifactError(f"The batches of output {spec} differ in shape: {error}") from error
