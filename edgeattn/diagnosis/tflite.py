"""A ``.tflite`` file taken apart: every tensor of a run, and every operator by itself.

The file's own description is read and written by what ai-edge-litert brings with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.diagnosis.graph import Encoding, InstrumentedModel
from edgeattn.diagnosis.measure import measure
from edgeattn.diagnosis.tflite_graph import DTYPES, read_graph, type_names
from edgeattn.errors import ArtifactError, RuntimeUnavailableError, last_line
from edgeattn.runners.tflite import interpreter_class
from edgeattn.tensors import Array, Tensors, TensorSpec


class InstrumentedTFLite:
    """See :class:`edgeattn.diagnosis.graph.InstrumentedModel`. A loop is one operator."""

    def __init__(
        self, path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> None:
        self._schema = _schema()
        self._content = path.read_bytes()
        self._inputs, self._outputs = inputs, outputs
        try:
            self._model: Any = self._schema.ModelT.InitFromPackedBuf(self._content, 0)
            self._interpreter = _interpreter(self._content, everything=True)
            named_in = _named(self._interpreter.get_input_details())
            named_out = _named(self._interpreter.get_output_details())
            ends = {spec.name: named_in[spec.name] for spec in inputs}
            results = {spec.name: named_out[spec.name] for spec in outputs}
        except (ValueError, RuntimeError, KeyError) as error:
            raise ArtifactError(f"{path.name} cannot be taken apart: {last_line(error)}") from error
        self.graph = read_graph(
            self._schema,
            self._model,
            inputs={name: str(index) for name, index in ends.items()},
            outputs={name: str(index) for name, index in results.items()},
        )
        # A result that nothing takes need not be computed.
        taken = {name for operator in self.graph.operators for name in operator.inputs}
        taken |= set(self.graph.outputs.values())
        self._activations = [
            int(name)
            for operator in self.graph.operators
            for name in operator.outputs
            if name in taken and not self._main.tensors[int(name)].isVariable
        ]

    @property
    def _main(self) -> Any:
        return self._model.subgraphs[0]

    def values(self, row: Tensors) -> Tensors:
        self._interpreter.reset_all_variables()
        for name, tensor in self.graph.inputs.items():
            value = _kept(row[name], self.graph.keeping(tensor), self._dtype(tensor))
            self._interpreter.set_tensor(int(tensor), value)
        self._interpreter.invoke()
        indices = [*map(int, self.graph.inputs.values()), *self._activations]
        return {str(i): self._real(i, self._interpreter.get_tensor(i)) for i in indices}

    def apart(
        self, tensors: Collection[str], constants: Mapping[str, Array]
    ) -> Callable[[Tensors], Tensors]:
        model = self._schema.ModelT.InitFromPackedBuf(self._content, 0)
        graph = model.subgraphs[0]
        for name, value in constants.items():
            inside, _, place = name.rpartition(":")
            tensor = model.subgraphs[int(inside or 0)].tensors[int(place)]
            _replace(self._schema, model, tensor, value)
        own = [int(i) for i in graph.inputs]
        entries: dict[int, int] = {}  # the tensor, and the input that stands for it
        for index in map(int, tensors):
            entries[index] = index if index in own else _twin(self._schema, graph, index)
        made: set[int] = set()
        for operator in graph.operators:
            operator.inputs = [entries.get(int(i), int(i)) for i in operator.inputs]
            made.update(int(i) for i in operator.outputs)
        results = sorted(index for index in entries if index in made)
        graph.inputs = list(dict.fromkeys([*own, *entries.values()]))
        graph.outputs = results
        model.signatureDefs = []
        interpreter = _interpreter(_packed(model), everything=False)
        dtypes = {name: self._dtype(name) for name in tensors}

        def run(feeds: Tensors) -> Tensors:
            interpreter.reset_all_variables()
            for name in tensors:
                value = _kept(feeds[name], self.graph.keeping(name), dtypes[name])
                interpreter.set_tensor(entries[int(name)], value)
            interpreter.invoke()
            return {str(i): self._real(i, interpreter.get_tensor(i)) for i in results}

        return run

    def _dtype(self, name: str) -> str:
        return DTYPES[type_names(self._schema)[self._main.tensors[int(name)].type]]

    def _real(self, index: int, value: Array) -> Array:
        stored = self.graph.keeping(str(index))
        if stored.scale is None:
            return np.asarray(value, np.float32 if value.dtype == np.float16 else None)
        return np.asarray((value.astype(np.float64) - stored.zero_point) * stored.scale, np.float32)


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated

        return schema_py_generated
    except ImportError as error:
        raise RuntimeUnavailableError(
            "To explain a TFLite file, it is taken apart with ai-edge-litert, which is not here.",
            hint="Install it with: pip install ai-edge-litert",
        ) from error


def _interpreter(content: bytes, *, everything: bool) -> Any:
    make, _ = interpreter_class()
    with warnings.catch_warnings():
        # That seeing everything takes memory, which is known.
        warnings.simplefilter("ignore", UserWarning)
        made = make(
            model_content=content, num_threads=1, experimental_preserve_all_tensors=everything
        )
    made.allocate_tensors()
    return made


def _named(details: list[dict[str, Any]]) -> dict[str, int]:
    return {str(item["name"]): int(item["index"]) for item in details}


def _kept(value: Array, stored: Encoding, dtype: str) -> Array:
    if stored.scale is None:
        return np.ascontiguousarray(value, dtype=dtype)
    info = np.iinfo(dtype)
    integers = np.rint(np.asarray(value, np.float64) / stored.scale) + stored.zero_point
    kept: Array = np.clip(integers, info.min, info.max).astype(dtype)
    return kept


def _replace(schema: Any, model: Any, tensor: Any, value: Array) -> None:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(value, np.float32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


def _twin(schema: Any, graph: Any, index: int) -> int:
    """A tensor of the same kind that nothing makes."""
    source, made = graph.tensors[index], schema.TensorT()
    made.name, made.type, made.shape = f"twin_{index}", source.type, source.shape
    made.quantization, made.buffer = source.quantization, 0
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def compare_files(
    reference: Mapping[str, Any],
    judged: Mapping[str, Any],
    limit_db: float,
    maps: list[str],
    tensors: Tensors,
) -> dict[str, Any]:
    """In the child: every operator of one file against the same of another."""
    return compare_opened(InstrumentedTFLite, reference, judged, limit_db, maps, tensors)


def compare_opened(
    opened: Callable[[Path, tuple[TensorSpec, ...], tuple[TensorSpec, ...]], InstrumentedModel],
    reference: Mapping[str, Any],
    judged: Mapping[str, Any],
    limit_db: float,
    maps: list[str],
    tensors: Tensors,
) -> dict[str, Any]:
    """Return the comparison of both files as JSON."""
    right, wrong = (
        opened(
            Path(file["path"]),
            tuple(TensorSpec.from_json(item) for item in file["inputs"]),
            tuple(TensorSpec.from_json(item) for item in file["outputs"]),
        )
        for file in (reference, judged)
    )
    return measure(right, wrong, tensors, limit_db, tuple(maps)).to_json()
