"""TFLite files in ai-edge-litert, or in tflite-runtime where that is what the machine has."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from edgeattn.errors import ArtifactError, RuntimeUnavailableError, last_line
from edgeattn.runners import batches, joined
from edgeattn.tensors import Tensors, TensorSpec


def interpreter_class() -> tuple[Any, str]:
    """The Interpreter this machine has, and the distribution it came from."""
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
            "TFLite files need a TFLite runtime, and none is installed here.",
            hint="Install one with: pip install ai-edge-litert (tflite-runtime on 32-bit ARM)",
        ) from error


class TFLiteRunner:
    """A ``.tflite`` file with static shapes; samples go through it one batch, mostly 1, at a time.

    With ``reset`` the variables that the file may hold are cleared before every call.
    """

    def __init__(
        self,
        path: Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        threads: int = 1,
        reset: bool = True,
    ) -> None:
        make, distribution = interpreter_class()
        try:
            self._interpreter = make(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
            # Reading the names fails where they are no text.
            there_in = {item["name"]: item for item in self._interpreter.get_input_details()}
            there_out = {item["name"]: item for item in self._interpreter.get_output_details()}
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(
                f"{distribution} cannot load {path.name}: {last_line(error)}"
            ) from error
        self.inputs = inputs
        self.outputs = outputs
        self.runtime = f"{distribution} {_version(distribution)}"
        self._reset = reset
        self._feeds = [(spec, _index(there_in, spec, path)) for spec in inputs]
        self._fetches = [(spec, _index(there_out, spec, path)) for spec in outputs]

    def run(self, tensors: Tensors) -> Tensors:
        results: dict[str, list[Any]] = {spec.name: [] for spec in self.outputs}
        for feeds, rows in batches(tensors, self.inputs, self.inputs[0].shape[0] or 1, fixed=True):
            try:
                if self._reset:
                    self._interpreter.reset_all_variables()
                for spec, index in self._feeds:
                    self._interpreter.set_tensor(index, feeds[spec.name])
                self._interpreter.invoke()
                for spec, index in self._fetches:
                    whole = self._interpreter.get_tensor(index)
                    results[spec.name].append(whole[:rows] if whole.ndim else whole)
            except (ValueError, RuntimeError) as error:
                raise ArtifactError(
                    f"{self.runtime} stopped in the middle of a sequence: {last_line(error)}"
                ) from error
        return {spec.name: joined(results[spec.name], spec) for spec in self.outputs}

    def close(self) -> None:
        self._interpreter = None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"  # built from source, or a nightly of another name


def _index(there: dict[str, Any], spec: TensorSpec, path: Path) -> int:
    if spec.name not in there:
        raise ArtifactError(
            f"{path.name} has no tensor {spec.name!r}, which its manifest names; "
            f"it has {', '.join(map(repr, there))}."
        )
    return int(there[spec.name]["index"])
