"""Runners execute artifacts: one module per runtime, with the same interface.

:func:`open_runner` returns the runner of an artifact in this process;
:mod:`edgeattn.runners.isolated` runs one in a worker process, for files that may crash their
runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeattn.errors import UsageError
from edgeattn.schemes import MICRO

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.tensors import Tensors, TensorSpec


class Runner(Protocol):
    """A loaded artifact.

    Arrays are matched by name and have the sample axis first. Inputs and outputs are real numbers:
    the runner quantizes and dequantizes. Threads may share a runner.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runtime: str  # for example "ai-edge-litert 2.3.0"

    def run(self, tensors: Tensors, batch_sizes: Sequence[int] = ()) -> Tensors:
        """The outputs for these inputs; every sample is independent of the others.

        If the artifact accepts any batch size, ``batch_sizes`` are those of consecutive batches, in
        turn; by default the runner chooses.
        Raises :class:`SampleError` if an input is missing or the numbers of samples differ, and
        :class:`ArtifactError` if the runtime fails.
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
    sha256: str | None = None,
    runtime: str | None = None,
) -> Runner:
    """The runner for the artifact at ``path``.

    With ``as_deployed`` it runs as in the simplest program on a device, so that validation sees
    the same results: one sequence per call, and variables in the file keep their values.

    ``runtime`` names the only runtime that the file is for, as
    :attr:`~edgeattn.bundle.manifest.Artifact.runtime` does.

    The file is read once, and what the runtime receives must have the SHA-256 ``sha256``, if that
    is given. Raises :class:`BundleError` if it has another one, :class:`RuntimeUnavailableError` if
    the runtime is not installed, and :class:`ArtifactError` if it cannot load the file.
    """
    if runtime == MICRO:
        from edgeattn.runners.tflite_micro import TFLiteMicroRunner

        return TFLiteMicroRunner(path, inputs, outputs, reset=not as_deployed, sha256=sha256)
    if format == "tflite":
        from edgeattn.runners.tflite import TFLiteRunner

        return TFLiteRunner(
            path, inputs, outputs, threads=threads, reset=not as_deployed, sha256=sha256
        )
    if format == "onnx":
        from edgeattn.runners.onnx import BATCH, ONNXRunner

        batch = 1 if as_deployed else BATCH
        return ONNXRunner(path, inputs, outputs, threads=threads, batch=batch, sha256=sha256)
    raise UsageError(f"No runner for the format {format!r}.")


def open_artifact(folder: Path, artifact: Artifact, *, threads: int = 1) -> Runner:
    """The runner for an artifact of the bundle in ``folder``, in this process."""
    return open_runner(
        folder / artifact.path,
        artifact.format,
        artifact.inputs,
        artifact.outputs,
        threads=threads,
        sha256=artifact.sha256,
        runtime=artifact.runtime,
    )
