"""TFLite files in ai-edge-litert or, if that is not installed, in tflite-runtime."""

import importlib.metadata
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeattn.bundle.verified_file import read_file
from edgeattn.errors import ArtifactError, RuntimeUnavailableError, last_line
from edgeattn.runners.batching import batches, join_batches
from edgeattn.runners.external_buffers import refuse_external_buffers
from edgeattn.tensors import Tensors, TensorSpec


def interpreter_class() -> tuple[Any, str]:
    """The installed ``Interpreter`` class, and the distribution that provides it.

    Raises :class:`RuntimeUnavailableError` if none is installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter, "ai-edge-litert"
    except ImportError:
        pass
    try:
        from tflite_runtime.interpreter import Interpreter

        return Interpreter, "tflite-runtime"
    except ImportError as error:
        raise RuntimeUnavailableError(
            "TFLite files require a TFLite runtime, and none is installed.",
            hint="Install one with: pip install ai-edge-litert (tflite-runtime on 32-bit ARM)",
        ) from error


class TFLiteRunner:
    """Runs a ``.tflite`` file with static shapes, one batch (usually one sample) per call.

    With ``reset``, variables in the file are cleared before every call.
    """

    def __init__(
        self,
        path: Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        threads: int = 1,
        reset: bool = True,
        sha256: str | None = None,
    ) -> None:
        interpreter_type, distribution = interpreter_class()
        # The runtime takes no empty content.
        content = read_file(path, sha256) or b"\0"
        try:
            refuse_external_buffers(path, content)
            self._interpreter = interpreter_type(model_content=content, num_threads=threads)
            _resize_free_axes(self._interpreter, inputs)
            self._interpreter.allocate_tensors()
            # Reading the details fails if a name is not UTF-8.
            input_details = self._interpreter.get_input_details()
            output_details = self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(
                f"{distribution} cannot load {path.name}: {last_line(error)}"
            ) from error
        self.inputs = inputs
        self.outputs = outputs
        self.runtime = f"{distribution} {_version(distribution)}"
        self._reset = reset
        self._lock = threading.Lock()
        self._feeds = _with_indices(inputs, input_details, path)
        self._fetches = _with_indices(outputs, output_details, path)

    def run(self, tensors: Tensors, batch_sizes: Sequence[int] = ()) -> Tensors:
        with self._lock:
            return self._run(tensors)

    def _run(self, tensors: Tensors) -> Tensors:
        results: dict[str, list[Any]] = {spec.name: [] for spec in self.outputs}
        batch = self.inputs[0].shape[0] or 1
        for feeds, count in batches(tensors, self.inputs, (batch,), fixed=True):
            try:
                if self._reset:
                    self._interpreter.reset_all_variables()
                for spec, index in self._feeds:
                    self._interpreter.set_tensor(index, feeds[spec.name])
                self._interpreter.invoke()
                for spec, index in self._fetches:
                    array = self._interpreter.get_tensor(index)
                    results[spec.name].append(array[:count] if array.ndim else array)
            except (ValueError, RuntimeError) as error:
                raise ArtifactError(
                    f"{self.runtime} failed during inference: {last_line(error)}"
                ) from error
        return {spec.name: join_batches(results[spec.name], spec) for spec in self.outputs}

    def close(self) -> None:
        self._interpreter = None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(version unknown)"  # built from source, or a nightly build of another name


def _with_indices(
    specs: tuple[TensorSpec, ...], details: list[dict[str, Any]], path: Path
) -> list[tuple[TensorSpec, int]]:
    """The specs with the indices of their tensors in the file."""
    indices = {item["name"]: int(item["index"]) for item in details}
    for spec in specs:
        if spec.in_file not in indices:
            raise ArtifactError(
                f"{path.name} has no tensor {spec.in_file!r}, which the manifest lists. Its "
                f"tensors: {', '.join(map(repr, indices))}."
            )
    return [(spec, indices[spec.in_file]) for spec in specs]


def _resize_free_axes(interpreter: Any, inputs: tuple[TensorSpec, ...]) -> None:
    """Give inputs with free axes, as in files of other converters, the shapes of their specs."""
    details = {item["name"]: item for item in interpreter.get_input_details()}
    for spec in inputs:
        detail = details.get(spec.in_file, {})
        if -1 in detail.get("shape_signature", ()):
            shape = [axis or 1 for axis in spec.shape]
            interpreter.resize_tensor_input(int(detail["index"]), shape, strict=True)
