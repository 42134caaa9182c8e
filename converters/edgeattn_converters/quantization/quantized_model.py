"""A model before and after quantization, and running it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.errors import ArtifactError
from edgeattn.process.worker import Worker, WorkerDiedError
from edgeattn.runners import open_runner
from edgeattn.tensors import Specs, Tensors
from edgeattn_converters.graphs.onnx_file import bodies
from edgeattn_converters.quantization.candidates import DEFAULT, Candidate
from edgeattn_converters.quantization.layer_weights import LayerWeights

if TYPE_CHECKING:
    from edgeattn_converters.quantization.integer_only import FloatOperator


@dataclass(frozen=True)
class ModelIO:
    """The inputs and outputs of a file, and the layers of the Keras model it was made from.

    ``maps`` are the names of the outputs that are attention maps, ``tokens`` those of the inputs
    that an embedding looks up, ``recurrent`` those of the recurrent layers.
    """

    inputs: Specs
    outputs: Specs
    maps: tuple[str, ...]
    tokens: tuple[str, ...] = ()
    recurrent: tuple[str, ...] = ()
    layers: tuple[LayerWeights, ...] = ()

    @property
    def is_recurrent(self) -> bool:
        """Whether a recurrent layer has large weights."""
        return any(layer.recurrent for layer in self.layers)

    @property
    def main(self) -> Specs:
        """The outputs that are not attention maps."""
        return tuple(spec for spec in self.outputs if spec.name not in self.maps)


@dataclass(frozen=True, eq=False)
class QuantizationSamples:
    """Real inputs to quantize with, and those of the reference that the verdict is given on.

    No range is measured on ``reference``, whose first ``ordinary`` rows are those before the
    extremes.
    """

    inputs: Tensors
    reference: Tensors | None = None
    ordinary: int = 0

    @classmethod
    def of(cls, samples: Tensors | QuantizationSamples) -> QuantizationSamples:
        return samples if isinstance(samples, QuantizationSamples) else cls(samples)


@dataclass(frozen=True)
class QuantizedModel:
    """A file of either format: ``content`` is the bytes of a ``.tflite`` file or an ONNX model.

    ``notes`` say what is float on purpose, and why. ``achieved`` is the manifest's description of
    the file. ``cost`` compares it with the file of the default candidate: ``bytes`` more, and
    ``time`` as a ratio. ``blockers`` are the operators that keep the file from computing in
    integers only, if that was determined. ``ratio`` is the largest ratio of an error to its limit,
    if fused LSTMs are among the operators.
    """

    content: Any
    inputs: Specs
    outputs: Specs
    candidate: Candidate = DEFAULT
    notes: tuple[str, ...] = ()
    achieved: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    blockers: tuple[FloatOperator, ...] = ()
    ratio: float = 0.0

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.ByteSize()


RunFunction = Callable[[Tensors], Tensors]
# Opens a model in its runtime, or the float32 model if it is None.
OpenModel = Callable[..., AbstractContextManager[RunFunction]]


def model_opener(content: Any, io: ModelIO, *, runtime: str | None = None) -> OpenModel:
    """How to open candidates for the float32 model ``content``, and that model itself.

    ``runtime`` is the only one that the candidates are for, if there is one.
    """

    @contextlib.contextmanager
    def open_model(
        model: QuantizedModel | None, *, as_deployed: bool = False
    ) -> Iterator[RunFunction]:
        opened = model or QuantizedModel(content, io.inputs, io.outputs)
        is_tflite = isinstance(opened.content, bytes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            path.write_bytes(opened.content if is_tflite else opened.content.SerializeToString())
            format = "tflite" if is_tflite else "onnx"
            if model is not None and not is_tflite and _has_loops(opened.content):
                _require_loadable(path, opened)
            runner = open_runner(
                path,
                format,
                opened.inputs,
                opened.outputs,
                as_deployed=as_deployed,
                runtime=None if model is None else runtime,
            )
            with contextlib.closing(runner):
                yield runner.run

    return open_model


def _has_loops(proto: Any) -> bool:
    return any(True for node in proto.graph.node for _ in bodies(node))


def _require_loadable(path: Path, model: QuantizedModel) -> None:
    """Raise :class:`ArtifactError` if onnxruntime crashes when it loads a file.

    onnxruntime 1.32 aborts on some valid files with integers beside a Loop.
    """
    arguments = {
        "path": str(path),
        "format": "onnx",
        "inputs": [spec.to_json() for spec in model.inputs],
        "outputs": [spec.to_json() for spec in model.outputs],
        "threads": 1,
        "as_deployed": False,
    }
    with Worker() as worker:
        try:
            worker.call("edgeattn.runners.isolated:load", arguments)
        except WorkerDiedError as error:
            raise ArtifactError(f"onnxruntime {error.message} when it loaded the file") from error
