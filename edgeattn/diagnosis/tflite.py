"""Instrumented ``.tflite`` files.

Graphs are read and rewritten with the flatbuffer schema that ai-edge-litert includes.
"""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn import first_bytes
from edgeattn.diagnosis.comparison import compare_files
from edgeattn.diagnosis.graph import InstrumentedModel
from edgeattn.diagnosis.tflite_graph import GraphReader
from edgeattn.errors import ArtifactError, RuntimeUnavailableError, last_line
from edgeattn.runners.external_buffers import refuse_external_buffers
from edgeattn.runners.tflite import interpreter_class
from edgeattn.tensors import Array, Tensors, TensorSpec


class InstrumentedTFLite(InstrumentedModel):
    """A TFLite file; tensors are named by their index, and a loop is one operator.

    Raises :class:`ArtifactError` if the file cannot be read or lacks one of the inputs or outputs.
    """

    def __init__(
        self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._schema = _schema()
        self._content = path.read_bytes()
        try:
            refuse_external_buffers(path, self._content)
            self._model: Any = self._schema.ModelT.InitFromPackedBuf(self._content, 0)
            self._interpreter = _interpreter(self._content, preserve_all=True)
            input_tensors = _tensors_by_name(self._interpreter.get_input_details())
            output_tensors = _tensors_by_name(self._interpreter.get_output_details())
            self._reader = GraphReader(self._schema, self._model)
            self.graph = self._reader.read(
                inputs={spec.name: input_tensors[spec.in_file] for spec in inputs},
                outputs={spec.name: output_tensors[spec.in_file] for spec in outputs},
            )
        except (ValueError, RuntimeError, KeyError) as error:
            raise ArtifactError(f"{path.name} cannot be diagnosed: {last_line(error)}") from error
        # The runtime may skip results that nothing reads.
        read = self.graph.consumed | set(self.graph.outputs.values())
        self._computed = [
            name
            for operator in self.graph.operators
            for name in operator.outputs
            if name in read and not self._model.subgraphs[0].tensors[int(name)].isVariable
        ]

    def _dtype(self, tensor: str) -> str:
        return self._reader.dtype(self._model.subgraphs[0].tensors[int(tensor)])

    def _run(self, feeds: Tensors) -> Tensors:
        self._interpreter.reset_all_variables()
        for name, array in feeds.items():
            self._interpreter.set_tensor(int(name), array)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(int(name)) for name in self._computed}

    def _cut(
        self, boundaries: Collection[str], constants: Mapping[str, Array]
    ) -> Callable[[Tensors], Tensors]:
        model = self._schema.ModelT.InitFromPackedBuf(self._content, 0)
        graph = model.subgraphs[0]
        for name, values in constants.items():
            body, _, index = name.rpartition(":")
            tensor = model.subgraphs[int(body or 0)].tensors[int(index)]
            _replace_constant(self._schema, model, tensor, values)
        inputs = [int(index) for index in graph.inputs]
        entries = {
            index: index if index in inputs else _duplicate(self._schema, graph, index)
            for index in map(int, boundaries)
        }
        produced: set[int] = set()
        for operator in graph.operators:
            operator.inputs = [entries.get(int(i), int(i)) for i in operator.inputs]
            produced.update(int(i) for i in operator.outputs)
        results = sorted(produced.intersection(entries))
        graph.inputs = list(dict.fromkeys([*inputs, *entries.values()]))
        graph.outputs = results
        model.signatureDefs = []
        interpreter = _interpreter(_pack(model), preserve_all=False)

        def run(feeds: Tensors) -> Tensors:
            arrays = {entries[int(name)]: array for name, array in feeds.items()}
            _fit_shapes(interpreter, arrays)
            interpreter.reset_all_variables()
            for index, array in arrays.items():
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            return {str(index): interpreter.get_tensor(index) for index in results}

        return run


def compare_tflite(**arguments: Any) -> dict[str, Any]:
    """In the worker: :func:`compare_files` for TFLite."""
    return compare_files(InstrumentedTFLite, **arguments)


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated

        return schema_py_generated
    except ImportError as error:
        raise RuntimeUnavailableError(
            "The diagnosis of TFLite files requires ai-edge-litert, which is not installed.",
            hint="Install it with: pip install ai-edge-litert",
        ) from error


def _interpreter(content: bytes, *, preserve_all: bool) -> Any:
    new_interpreter, _ = interpreter_class()
    with warnings.catch_warnings():
        # Ignore the warning about the memory that preserving all tensors takes.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = new_interpreter(
            model_content=content, num_threads=1, experimental_preserve_all_tensors=preserve_all
        )
    interpreter.allocate_tensors()
    return interpreter


def _fit_shapes(interpreter: Any, arrays: Mapping[int, Array]) -> None:
    """Give inputs the shapes of ``arrays``: shapes that the graph computes are not in the file."""
    shapes = {item["index"]: tuple(item["shape"]) for item in interpreter.get_input_details()}
    others = {index: array.shape for index, array in arrays.items() if array.shape != shapes[index]}
    for index, shape in others.items():
        interpreter.resize_tensor_input(index, shape)
    if others:
        interpreter.allocate_tensors()


def _tensors_by_name(details: list[dict[str, Any]]) -> dict[str, str]:
    return {str(item["name"]): str(item["index"]) for item in details}


def _replace_constant(schema: Any, model: Any, tensor: Any, values: Array) -> None:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


def _duplicate(schema: Any, graph: Any, index: int) -> int:
    """Add a tensor of the same type and shape that no operator computes; return its index."""
    source, tensor = graph.tensors[index], schema.TensorT()
    tensor.name, tensor.type, tensor.shape = f"boundary_{index}", source.type, source.shape
    tensor.quantization, tensor.buffer = source.quantization, 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _pack(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=first_bytes.TFLITE)
    return bytes(builder.Output())
