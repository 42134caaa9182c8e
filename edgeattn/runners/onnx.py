"""ONNX files in onnxruntime, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeattn.errors import ArtifactError, RuntimeUnavailableError, first_line
from edgeattn.runners import batches, joined
from edgeattn.runners.external_data import refuse_external_data
from edgeattn.tensors import Tensors, TensorSpec

# Samples a call: bounds what the intermediate tensors of a long sequence take.
BATCH = 64


class ONNXRunner:
    """An ``.onnx`` file with a free batch axis, or a fixed one that samples are cut to."""

    def __init__(
        self,
        path: Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        threads: int = 1,
        batch: int = BATCH,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeUnavailableError(
                "ONNX files need onnxruntime, and it is not installed here.",
                hint="Install it with: pip install 'edgeattn[onnx]'",
            ) from error
        refuse_external_data(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions have no public base class
            raise ArtifactError(
                f"onnxruntime cannot load {path.name}: {first_line(error)}"
            ) from error
        self.inputs = inputs
        self.outputs = outputs
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self._fixed = inputs[0].shape[0] is not None
        self._batch = inputs[0].shape[0] or batch

    def run(self, tensors: Tensors) -> Tensors:
        names = [spec.name for spec in self.outputs]
        results: dict[str, list[Any]] = {name: [] for name in names}
        for feeds, rows in batches(tensors, self.inputs, self._batch, fixed=self._fixed):
            try:
                told = self._session.run(names, feeds)
            except Exception as error:
                raise ArtifactError(
                    f"{self.runtime} stopped in the middle of a sequence: {first_line(error)}"
                ) from error
            for name, whole in zip(names, told, strict=True):
                results[name].append(whole[:rows] if self._fixed and whole.ndim else whole)
        return {spec.name: joined(results[spec.name], spec) for spec in self.outputs}

    def close(self) -> None:
        self._session = None
