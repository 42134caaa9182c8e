"""An ``.onnx`` file taken apart: every tensor of a run, and every operator by itself.

Tensors are seen by making them outputs: what the runtime fuses otherwise it then computes one by
one, to the same numbers but for the last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.diagnosis.graph import Constant, Encoding, Graph, Operator
from edgeattn.diagnosis.tflite import compare_opened
from edgeattn.errors import ArtifactError, first_line
from edgeattn.tensors import Array, Tensors, TensorSpec

_KEEPS = ("QuantizeLinear", "DequantizeLinear")
_SETTINGS = ("axis", "axes", "perm", "direction", "strides", "dilations", "to", "transA", "transB")


class InstrumentedONNX:
    """See :class:`edgeattn.diagnosis.graph.InstrumentedModel`. Loops are one operator each."""

    def __init__(
        self, path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> None:
        import onnx

        from edgeattn.runners.external_data import refuse_external_data

        refuse_external_data(path)
        try:
            self._proto = onnx.load(path)
            self.graph = _Reader(self._proto).graph(
                [spec.name for spec in inputs], [spec.name for spec in outputs]
            )
            self._session, self._names = self._everything()
        except ArtifactError:
            raise
        except Exception as error:  # protobuf's and onnxruntime's have no common base class
            raise ArtifactError(
                f"{path.name} cannot be taken apart: {first_line(error)}"
            ) from error

    def _everything(self) -> tuple[Any, list[str]]:
        import onnx

        proto = _copied(self._proto)
        there = {value.name for value in proto.graph.output}
        known = {name for o in self.graph.operators for name in o.outputs if name}
        taken = {name for o in self.graph.operators for name in o.inputs}
        for name in sorted(known & taken - there):
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
        session = _session(proto)
        return session, [item.name for item in session.get_outputs()]

    def values(self, row: Tensors) -> Tensors:
        feeds = {
            tensor: _kept(row[name], self.graph.keeping(tensor), _dtype(item))
            for (name, tensor), item in zip(
                self.graph.inputs.items(), self._session.get_inputs(), strict=True
            )
        }
        told = dict(zip(self._names, self._session.run(self._names, feeds), strict=True))
        return {name: self._real(name, value) for name, value in {**feeds, **told}.items()}

    def apart(
        self, tensors: Collection[str], constants: Mapping[str, Array]
    ) -> Callable[[Tensors], Tensors]:
        from onnx import numpy_helper

        proto = _copied(self._proto)
        for item in proto.graph.initializer:
            if item.name in constants:
                item.CopyFrom(
                    numpy_helper.from_array(np.asarray(constants[item.name], np.float32), item.name)
                )
        own = {value.name for value in proto.graph.input}
        entries = {name: name if name in own else f"{name}/given" for name in tensors}
        made: set[str] = set()
        for node in proto.graph.node:
            node.input[:] = [entries.get(name, name) for name in node.input]
            made.update(node.output)
        results = sorted(set(entries) & made)
        ready: list[Any] = []

        def run(feeds: Tensors) -> Tensors:
            kept = {
                entries[name]: _kept(feeds[name], self.graph.keeping(name), None)
                for name in tensors
            }
            if not ready:
                ready.append(_session(_with_ends(proto, own, entries, kept, results)))
            told = ready[0].run(results, kept)
            return {
                name: self._real(name, value) for name, value in zip(results, told, strict=True)
            }

        return run

    def _real(self, name: str, value: Any) -> Array:
        stored = self.graph.keeping(name)
        array = np.asarray(value)
        if stored.scale is None:
            return array
        return np.asarray((array.astype(np.float64) - stored.zero_point) * stored.scale, np.float32)


class _Reader:
    """The graph of a file; what quantizers write for one operator becomes that one again."""

    def __init__(self, proto: Any) -> None:
        from onnx import numpy_helper

        self._graph = proto.graph
        self._values = {item.name: numpy_helper.to_array(item) for item in self._graph.initializer}
        wider = {"float16": np.float32, "int4": np.int8}
        self._constants = {
            name: Constant(
                value.astype(wider.get(value.dtype.name, value.dtype)), Encoding(value.dtype.name)
            )
            for name, value in self._values.items()
        }
        self._makers = {name: node for node in self._graph.node for name in node.output}
        self._takers: dict[str, list[Any]] = {}
        for node in self._graph.node:
            for name in node.input:
                self._takers.setdefault(name, []).append(node)
        self._stored: dict[str, Encoding] = {}
        self._inside: set[int] = set()  # nodes that are part of another's

    def graph(self, inputs: list[str], outputs: list[str]) -> Graph:
        self._fold()
        written = {}
        for position, node in enumerate(self._graph.node):
            if id(node) in self._inside:
                continue
            if node.op_type == "MatMulInteger":
                written[position] = self._product(position, node)
            elif node.op_type == "DynamicQuantizeLSTM":
                written[position] = self._recurrence(position, node)
            elif node.op_type == "Gather" and node.input[0] in self._constants:
                written[position] = self._table(position, node)
        operators = tuple(
            written.get(position) or self._plain(position, node)
            for position, node in enumerate(self._graph.node)
            if id(node) not in self._inside
        )
        names = {name for operator in operators for name in operator.outputs}
        names |= {name for name in self._constants if "/" in name}
        titles = {name: name for name in names if not name.startswith("_")}
        return Graph(
            operators,
            self._constants,
            {name: name for name in inputs},
            {name: name for name in outputs},
            self._stored,
            titles,
        )

    def _fold(self) -> None:
        """Constants that a file keeps small and makes large when it is loaded."""
        for node in self._graph.node:
            first = self._constants.get(node.input[0]) if node.input else None
            rest = [self._values.get(name) for name in node.input[1:]]
            if first is None or any(value is None for value in rest):
                continue
            if node.op_type == "Cast" and first.value.dtype.kind in "fi":
                made = Constant(first.value.astype(np.float32), first.stored)
                if first.stored.dtype == "int64":
                    continue
            elif node.op_type == "Mul" and first.stored.dtype in ("int8", "int4"):
                scale = np.asarray(rest[0])
                made = Constant(first.value * scale, _channels(first.stored.dtype, scale.shape))
            elif node.op_type == "DequantizeLinear":
                made = self._dequantized(node, first, rest)
            else:
                continue
            self._constants[node.output[0]] = made
            self._inside.add(id(node))

    def _dequantized(self, node: Any, first: Constant, rest: list[Any]) -> Constant:
        scale = np.asarray(rest[0], np.float64)
        zero = np.zeros_like(scale) if len(rest) < 2 else np.asarray(rest[1], np.float64)
        shape = [1] * first.value.ndim
        if scale.size > 1:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape[axis] = scale.size
        else:
            shape = []
        value = (first.value - zero.reshape(shape)) * scale.reshape(shape)
        dtype = first.stored.dtype
        return Constant(np.asarray(value, np.float32), _channels(dtype, tuple(shape)))

    def _plain(self, position: int, node: Any) -> Operator:
        keeps = node.op_type in _KEEPS
        if keeps:
            self._note_kept(node)
        settings = ",".join(
            f"{item.name}={list(item.ints) or item.i or item.s}"
            for item in sorted(node.attribute, key=lambda item: str(item.name))
            if item.name in _SETTINGS
        )
        inputs = tuple(node.input[:1] if keeps else node.input)
        return Operator(
            position,
            node.op_type,
            inputs,
            tuple(node.output),
            keeps,
            settings=settings,
            attributes={} if keeps else _attributes(node),
        )

    def _note_kept(self, node: Any) -> None:
        scale = self._values.get(node.input[1])
        zero = self._values.get(node.input[2]) if len(node.input) > 2 else np.array(0, np.uint8)
        if scale is None or zero is None or scale.size != 1:
            return
        kept = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        # As the operator that makes the integers says it; another may read them otherwise.
        if node.op_type == "QuantizeLinear" or kept not in self._stored:
            self._stored[kept] = Encoding(
                zero.dtype.name, float(scale.reshape(())), int(zero.reshape(()))
            )

    def _after(self, name: str, *kinds: str) -> Iterator[Any]:
        """The one after the other that take what the one before it makes, of these kinds."""
        for kind in kinds:
            node = next((n for n in self._takers.get(name, []) if n.op_type == kind), None)
            if node is None:
                return
            yield node
            name = node.output[0]

    def _product(self, position: int, node: Any) -> Operator | None:
        scaled = self._makers.get(node.input[0])
        following = list(self._after(node.output[0], "Cast", "Mul"))
        if scaled is None or scaled.op_type != "DynamicQuantizeLinear" or len(following) < 2:
            return None
        factor = next(n for n in following[1].input if n != following[0].output[0])
        scales = self._makers.get(factor)
        known = None
        if scales is not None:
            known = next((self._values[n] for n in scales.input if n in self._values), None)
        weights = self._values.get(node.input[1])
        if known is None or weights is None:
            return None
        zero = self._values.get(node.input[3]) if len(node.input) > 3 else None
        value = (weights.astype(np.float64) - (0 if zero is None else zero)) * known
        dtype = weights.dtype.name
        shape = (1, known.size) if known.size > 1 else ()
        self._constants[node.input[1]] = Constant(
            np.asarray(value, np.float32), _channels(dtype, shape)
        )
        self._inside.update(map(id, (scaled, scales, *following)))
        return Operator(
            position,
            "MatMul",
            (scaled.input[0], node.input[1]),
            (following[1].output[0],),
            scales=True,
        )

    def _recurrence(self, position: int, node: Any) -> Operator:
        inputs = [*node.input, *[""] * (12 - len(node.input))]
        for place, at in ((1, 8), (2, 10)):
            weights, scale = self._values[inputs[place]], self._values[inputs[at]]
            zero = self._values.get(inputs[at + 1], np.zeros(1))
            wide = [a.reshape(1, 1, -1).astype(np.float64) for a in (scale, zero)]
            value = (weights.astype(np.float64) - wide[1]) * wide[0]
            # The standard's LSTM has (1, gates, features), this one (1, features, gates).
            self._constants[inputs[place]] = Constant(
                np.asarray(value.transpose(0, 2, 1), np.float32), Encoding("int8", None, 0, 1)
            )
        settings = ",".join(
            f"{item.name}={list(item.ints) or item.i or item.s}"
            for item in node.attribute
            if item.name in _SETTINGS
        )
        return Operator(
            position, "LSTM", tuple(inputs[:7]), tuple(node.output), False, True, settings
        )

    def _table(self, position: int, node: Any) -> Operator | None:
        following = list(self._after(node.output[0], "Cast", "Mul"))
        table = self._constants[node.input[0]]
        if table.stored.dtype != "int8" or len(following) < 2:
            return None
        scale = self._values.get(following[1].input[1])
        if scale is None:
            return None
        self._constants[node.input[0]] = Constant(table.value * scale, Encoding("int8", 1.0))
        self._inside.update(map(id, following))
        return Operator(position, "Gather", tuple(node.input), (following[1].output[0],))


def _attributes(node: Any) -> dict[str, str]:
    """What a node is set to, as text; whole tensors and graphs are left out."""
    found = {}
    for item in node.attribute:
        if item.HasField("t") or item.HasField("g") or item.name in _SETTINGS:
            continue
        numbers = [f"{value:.6g}" for value in (*item.floats, *item.ints)]
        texts = [text.decode("utf-8", "replace") for text in item.strings]
        single = f"{item.f:.6g}" if item.type == item.FLOAT else str(item.i)
        if item.type == item.STRING:
            single = item.s.decode("utf-8", "replace")
        found[item.name] = " ".join([*numbers, *texts]) or single
    return found


def _channels(dtype: str, shape: tuple[int, ...]) -> Encoding:
    """How a constant is kept whose scales have this shape."""
    axes = [k for k, size in enumerate(shape) if size != 1]
    if not axes:
        return Encoding(dtype, 1.0)
    return Encoding(dtype, None, 0, axes[0])


def _copied(proto: Any) -> Any:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _with_ends(
    proto: Any, own: set[str], entries: Mapping[str, str], kept: Tensors, results: list[str]
) -> Any:
    """The file with other inputs and outputs, in place."""
    import onnx
    from onnx import helper

    for name, entry in entries.items():
        if name not in own:
            kind = helper.np_dtype_to_tensor_dtype(kept[entry].dtype)
            shape = kept[entry].shape
            proto.graph.input.append(helper.make_tensor_value_info(entry, kind, shape))
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in results)
    return proto


def _session(proto: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _dtype(item: Any) -> str:
    name = str(item.type).removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _kept(value: Array, stored: Encoding, dtype: str | None) -> Array:
    if stored.scale is None:
        return np.ascontiguousarray(value, dtype=dtype)
    info = np.iinfo(stored.dtype)
    integers = np.rint(np.asarray(value, np.float64) / stored.scale) + stored.zero_point
    made: Array = np.clip(integers, info.min, info.max).astype(stored.dtype)
    return made


def compare_files(
    reference: Mapping[str, Any],
    judged: Mapping[str, Any],
    limit_db: float,
    maps: list[str],
    tensors: Tensors,
) -> dict[str, Any]:
    """In the child: every operator of one file against the same of another."""
    return compare_opened(InstrumentedONNX, reference, judged, limit_db, maps, tensors)
