"""Running an artifact: one file per runtime, the same verbs in each.

``open_runner`` gives the runner for an artifact in this process; :mod:`edgeattn.runners.isolated`
gives one in a child process, for files that may crash their runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeattn.errors import ArtifactError, SampleError, UsageError

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.tensors import Array, Tensors, TensorSpec


class Runner(Protocol):
    """One artifact, loaded, with one thread unless it was asked for more.

    Arrays are matched by name and keep the sample axis first. Quantized inputs and outputs are
    float32 on this side: the runner quantizes and dequantizes.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runtime: str  # such as "ai-edge-litert 2.3.0"

    def run(self, tensors: Tensors) -> Tensors:
        """Outputs for these inputs, every sequence on its own, one after the other.

        Raises :class:`SampleError` for an input that is missing or holds another number of
        samples than the rest, :class:`ArtifactError` where the runtime cannot go on.
        """
        ...

    def close(self) -> None: ...


def open_runner(
    path: Path,
    format: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    *,
    threads: int = 1,
    as_deployed: bool = False,
) -> Runner:
    """The runner for the artifact at ``path``.

    With ``as_deployed`` it runs as in the simplest program on a device, so that validation sees
    the same results: one sequence per call, and variables in the file keep their values.
    """
    if format == "tflite":
        from edgeattn.runners.tflite import TFLiteRunner

        return TFLiteRunner(path, inputs, outputs, threads=threads, reset=not as_deployed)
    if format == "onnx":
        from edgeattn.runners.onnx import BATCH, ONNXRunner

        return ONNXRunner(path, inputs, outputs, threads=threads, batch=1 if as_deployed else BATCH)
    raise UsageError(f"No runner for the format {format!r}.")


def open_artifact(folder: Path, artifact: Artifact, *, threads: int = 1) -> Runner:
    """The runner for an artifact of the bundle in ``folder``, in this process."""
    return open_runner(
        folder / artifact.path, artifact.format, artifact.inputs, artifact.outputs, threads=threads
    )


def count_samples(tensors: Tensors, inputs: tuple[TensorSpec, ...]) -> int:
    """How many samples all of ``tensors`` hold; :class:`SampleError` where they disagree."""
    counts = {}
    for spec in inputs:
        if spec.name not in tensors:
            there = ", ".join(map(repr, tensors)) or "nothing"
            raise SampleError(f"Input {spec} is missing: there is {there}.")
        counts[spec.name] = len(tensors[spec.name]) if tensors[spec.name].ndim else 0
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise SampleError(f"The inputs have different numbers of samples ({told}).")
    samples = counts[inputs[0].name]
    if not samples:
        raise SampleError("The inputs hold no samples.")
    return samples


def batches(
    tensors: Tensors, inputs: tuple[TensorSpec, ...], size: int, *, fixed: bool
) -> Iterator[tuple[dict[str, Array], int]]:
    """``tensors`` in calls of ``size`` samples, quantized, and how many of each call's are real.

    Where the size is ``fixed``, the last call is filled up with its last sample.
    """
    import numpy as np

    from edgeattn.tensors import quantize

    samples = count_samples(tensors, inputs)
    for start in range(0, samples, size):
        rows = min(size, samples - start)
        feeds = {}
        for spec in inputs:
            chunk = quantize(tensors[spec.name][start : start + rows], spec)
            if fixed and rows < size:
                chunk = np.concatenate([chunk, chunk[-1:].repeat(size - rows, axis=0)])
            feeds[spec.name] = chunk
        yield feeds, rows


def joined(parts: list[Array], spec: TensorSpec) -> Array:
    """An output's calls as one array of real numbers; the sample axis is the first."""
    import numpy as np

    from edgeattn.tensors import dequantize

    if any(part.ndim != parts[0].ndim or part.ndim < 1 for part in parts):
        raise ArtifactError(f"Output {spec} came with the shape {parts[0].shape}.")
    try:
        return dequantize(np.concatenate(parts), spec)
    except ValueError as error:
        raise ArtifactError(f"Output {spec} came in shapes that differ: {error}") from error
