"""Instrumented ``.onnx`` files.

All tensors are made outputs of the graph, so the runtime cannot fuse operators. Results then differ
from those of the original file in the last digits only.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.diagnosis.comparison import compare_files
from edgeattn.diagnosis.graph import InstrumentedModel
from edgeattn.errors import ArtifactError, first_line
from edgeattn.runners.onnx import open_session
from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn_converters.diagnosis.onnx_graph import GraphReader
from edgeattn_converters.graphs.onnx_file import copy_model


class InstrumentedONNX(InstrumentedModel):
    """An ONNX file; a loop is one operator.

    Raises :class:`ArtifactError` if the file cannot be read or has external data.
    """

    def __init__(
        self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        import onnx

        from edgeattn.runners.external_data import refuse_external_data

        refuse_external_data(path)
        try:
            self._proto = onnx.load(path)
            self.graph = GraphReader(self._proto).read(
                [spec.name for spec in inputs], [spec.name for spec in outputs]
            )
            self._session = _session(self._with_all_outputs())
        except ArtifactError:
            raise
        except Exception as error:  # protobuf and onnxruntime errors share no base class
            raise ArtifactError(f"{path.name} cannot be diagnosed: {first_line(error)}") from error
        self._outputs = [item.name for item in self._session.get_outputs()]
        self._input_dtypes = {
            item.name: _numpy_dtype(item.type) for item in self._session.get_inputs()
        }

    def _with_all_outputs(self) -> Any:
        import onnx

        proto = copy_model(self._proto)
        produced = {name for name in self.graph.producers if name}
        existing = {value.name for value in proto.graph.output}
        for name in sorted(produced & self.graph.consumed - existing):
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
        return proto

    def _dtype(self, tensor: str) -> str | None:
        return self._input_dtypes.get(tensor)

    def _run(self, feeds: Tensors) -> Tensors:
        arrays = self._session.run(self._outputs, feeds)
        return {name: np.asarray(a) for name, a in zip(self._outputs, arrays, strict=True)}

    def _cut(
        self, boundaries: Collection[str], constants: Mapping[str, Array]
    ) -> Callable[[Tensors], Tensors]:
        import onnx
        from onnx import helper, numpy_helper

        proto = copy_model(self._proto)
        for item in proto.graph.initializer:
            if item.name in constants:
                values = np.asarray(constants[item.name], np.float32)
                item.CopyFrom(numpy_helper.from_array(values, item.name))
        inputs = {value.name for value in proto.graph.input}
        entries = {name: name if name in inputs else f"{name}/boundary" for name in boundaries}
        produced: set[str] = set()
        for node in proto.graph.node:
            node.input[:] = [entries.get(name, name) for name in node.input]
            produced.update(node.output)
        results = sorted(produced.intersection(entries))
        del proto.graph.output[:]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in results)
        session: Any = None

        def run(feeds: Tensors) -> Tensors:
            nonlocal session
            if session is None:
                # The types and shapes of the new inputs are known from the first values.
                for name, array in feeds.items():
                    if name not in inputs:
                        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
                        proto.graph.input.append(
                            helper.make_tensor_value_info(entries[name], dtype, array.shape)
                        )
                session = _session(proto)
            arrays = session.run(results, {entries[name]: array for name, array in feeds.items()})
            return {name: np.asarray(a) for name, a in zip(results, arrays, strict=True)}

        return run


def compare_onnx(**arguments: Any) -> dict[str, Any]:
    """In the worker: :func:`compare_files` for ONNX."""
    return compare_files(InstrumentedONNX, **arguments)


def _session(proto: Any) -> Any:
    session, _ = open_session(proto.SerializeToString(), threads=1)
    return session


def _numpy_dtype(onnx_type: Any) -> str:
    name = str(onnx_type).removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)
