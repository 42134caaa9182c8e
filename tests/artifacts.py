"""Tiny artifacts and bundles, made without TensorFlow or Keras.

The reference of the bundles is computed by NumPy. The TFLite files are written with the schema that
ai-edge-litert includes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import REFERENCE, Artifact, Manifest, sha256, write_manifest
from edgeattn.samples.npz import write_npz
from edgeattn.tensors import TensorSpec

FEATURES = 3
UNITS = 2
# Powers of two and small integers, so that no runtime rounds these products and sums.
KERNEL = np.array([[1.0, -2.0], [0.5, 4.0], [-0.25, 8.0]], np.float32)  # (features, units)
BIAS = np.array([0.125, -1.0], np.float32)
X = TensorSpec("x", (None, FEATURES), "float32")
Y = TensorSpec("score", (None, UNITS), "float32")

Arrays = Mapping[str, np.ndarray]


def dense(x: np.ndarray) -> np.ndarray:
    """The reference of the dense models: ``(samples, 3) -> (samples, 2)``."""
    return (x @ KERNEL + BIAS).astype(np.float32)


def samples(count: int = 7) -> np.ndarray:
    """Multiples of 1/4 between -8 and 8, ``(count, 3)``, all rows different."""
    whole = np.random.default_rng(11).integers(-32, 33, size=(count, FEATURES))
    whole[:, 0] = np.arange(count) % 64 - 32
    return (whole / 4).astype(np.float32)


def write_dense_onnx(
    path: Path,
    *,
    batch: int | None = None,
    outputs: Sequence[str] = ("score",),
    bias: np.ndarray = BIAS,
) -> None:
    """``score = x @ KERNEL + bias``; with two ``outputs``, the second is the negated first."""
    nodes = [helper.make_node("Gemm", ["x", "kernel", "bias"], [outputs[0]])]
    nodes += [helper.make_node("Neg", [outputs[0]], [name]) for name in outputs[1:]]
    save_onnx(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch or "n", FEATURES])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch or "n", UNITS])
            for name in outputs
        ],
        {"kernel": KERNEL, "bias": bias},
    )


def write_slow_onnx(path: Path) -> None:
    """Inputs and outputs of the dense model, with a loop of 2**40 iterations: it never returns."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["continue"]),
            helper.make_node("Add", ["state", "state"], ["next"]),
        ],
        "iteration",
        [
            helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", UNITS]),
        ],
        [
            helper.make_tensor_value_info("continue", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", UNITS]),
        ],
    )
    save_onnx(
        path,
        [
            helper.make_node("Gemm", ["x", "kernel", "bias"], ["first"]),
            helper.make_node("Loop", ["iterations", "yes", "first"], ["score"], body=body),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", UNITS])],
        {
            "kernel": KERNEL,
            "bias": BIAS,
            "iterations": np.array(2**40, np.int64),
            "yes": np.array(True),
        },
    )


def write_huge_onnx(path: Path) -> None:
    """Inputs and outputs of the dense model, with an intermediate tensor of 256 MiB per sample."""
    save_onnx(
        path,
        [
            helper.make_node("Gemm", ["x", "kernel", "bias"], ["first"]),
            helper.make_node("Tile", ["first", "repeats"], ["huge"]),
            helper.make_node("Slice", ["huge", "starts", "ends", "axes"], ["score"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", UNITS])],
        {
            "kernel": KERNEL,
            "bias": BIAS,
            "repeats": np.array([1, 2**25], np.int64),
            "starts": np.array([0], np.int64),
            "ends": np.array([UNITS], np.int64),
            "axes": np.array([1], np.int64),
        },
    )


def write_kinds_onnx(path: Path) -> None:
    """From ``x``: ``sign``, whether it is positive (bool), and ``best``, the argmax (int64)."""
    save_onnx(
        path,
        [
            helper.make_node("Greater", ["x", "zero"], ["sign"]),
            helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [
            helper.make_tensor_value_info("sign", TensorProto.BOOL, ["n", FEATURES]),
            helper.make_tensor_value_info("best", TensorProto.INT64, ["n"]),
        ],
        {"zero": np.array(0.0, np.float32)},
    )


def write_declared_onnx(
    path: Path,
    outputs: Sequence[TensorSpec],
    *,
    inputs: Sequence[TensorSpec] = (X,),
    scheme: str = "float32",
) -> None:
    """A file with these inputs and outputs and an integer operator if ``scheme`` requires one.

    It computes zeros. For tests that run a function in its place.
    """
    integers = {"int8": np.int8, "int16x8": np.int16}.get(scheme)
    nodes = []
    constants: dict[str, np.ndarray] = {"scale": np.array(1, np.float32)}
    if integers is not None:
        constants["zero"] = np.array(0, integers)
        parameters = ["scale", "zero"]
        nodes += [
            helper.make_node("QuantizeLinear", [inputs[0].name, *parameters], ["integers"]),
            helper.make_node("DequantizeLinear", ["integers", *parameters], ["reals"]),
            helper.make_node("Relu", ["reals"], ["positive"]),
            helper.make_node("QuantizeLinear", ["positive", *parameters], ["unused"]),
        ]
    for spec in outputs:
        zeros = np.zeros([axis or 1 for axis in spec.shape], spec.dtype)
        constants[f"zeros of {spec.name}"] = zeros
        nodes.append(helper.make_node("Identity", [f"zeros of {spec.name}"], [spec.name]))

    def values(specs: Sequence[TensorSpec]) -> list[Any]:
        return [
            helper.make_tensor_value_info(
                spec.name,
                helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)),
                [axis or "n" for axis in spec.shape],
            )
            for spec in specs
        ]

    save_onnx(path, nodes, values(inputs), values(outputs), constants, opset=21)


def save_onnx(
    path: Path,
    nodes: Any,
    inputs: Any,
    outputs: Any,
    constants: Mapping[str, np.ndarray],
    *,
    opset: int = 17,
) -> None:
    """A checked ONNX file."""
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "model", inputs, outputs, initializers),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8 if opset < 21 else 10,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


class TFLite:
    """Builds a TFLite model of one graph."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._graph = schema.SubGraphT()
        self._graph.tensors = []
        self._graph.operators = []
        self._model.subgraphs = [self._graph]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        *,
        value: np.ndarray | None = None,
        kind: int = schema.TensorType.FLOAT32,
        variable: bool = False,
        quantization: tuple[float, int] | None = None,
    ) -> int:
        """Add a tensor, a constant if it has a ``value``; returns its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), kind
        tensor.isVariable = variable
        tensor.buffer = 0
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = list(np.ascontiguousarray(value).tobytes())
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        if quantization is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [quantization[0]]
            tensor.quantization.zeroPoint = [quantization[1]]
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def operator(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        options_type: int = 0,
    ) -> None:
        """Add an operator; operators run in the order in which they are added."""
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
        self._model.operatorCodes.append(entry)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        operator.builtinOptions, operator.builtinOptionsType = options, options_type
        self._graph.operators.append(operator)

    def save(self, path: Path, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))


def write_dense_tflite(
    path: Path, *, batch: int = 1, bias: np.ndarray = BIAS, input: str = "x", output: str = "score"
) -> None:
    """``score = x @ KERNEL + bias`` as one FULLY_CONNECTED."""
    model = TFLite()
    x = model.tensor(input, (batch, FEATURES))
    kernel = model.tensor("kernel", (UNITS, FEATURES), value=KERNEL.T)
    offset = model.tensor("bias", (UNITS,), value=bias)
    y = model.tensor(output, (batch, UNITS))
    options = schema.FullyConnectedOptionsT()
    model.operator(
        schema.BuiltinOperator.FULLY_CONNECTED,
        (x, kernel, offset),
        (y,),
        options,
        schema.BuiltinOptions.FullyConnectedOptions,
    )
    model.save(path, (x,), (y,))


def write_counter_tflite(path: Path) -> None:
    """``total = x + total`` with a variable tensor, which keeps its value from call to call.

    It is an RNN operator whose kernels are 1. If the variable is cleared, ``total`` is ``x``.
    """
    model = TFLite()
    one = np.ones((1, 1), np.float32)
    x = model.tensor("x", (1, 1))
    kernel = model.tensor("kernel", (1, 1), value=one)
    recurrent = model.tensor("recurrent", (1, 1), value=one)
    bias = model.tensor("bias", (1,), value=np.zeros(1, np.float32))
    state = model.tensor("state", (1, 1), variable=True)
    total = model.tensor("total", (1, 1))
    model.operator(
        schema.BuiltinOperator.RNN,
        (x, kernel, recurrent, bias, state),
        (total,),
        schema.RNNOptionsT(),
        schema.BuiltinOptions.RNNOptions,
    )
    model.save(path, (x,), (total,))


def write_lookup_tflite(path: Path, *, rows: int) -> None:
    """``words = table[tokens]`` for two tokens and a table of this many rows, as one GATHER."""
    model = TFLite()
    tokens = model.tensor("tokens", (1, 2), kind=schema.TensorType.INT32)
    table = model.tensor("table", (rows, 2), value=np.ones((rows, 2), np.float32))
    words = model.tensor("words", (1, 2, 2))
    options = schema.GatherOptionsT()
    model.operator(
        schema.BuiltinOperator.GATHER,
        (table, tokens),
        (words,),
        options,
        schema.BuiltinOptions.GatherOptions,
    )
    model.save(path, (tokens,), (words,))


COUNTER_X = TensorSpec("x", (1, 1), "float32")
COUNTER_Y = TensorSpec("total", (1, 1), "float32")
# An int8 identity: real = (integer + 3) / 2.
INT8_X = TensorSpec("x", (1, FEATURES), "int8", 0.5, -3)
INT8_Y = TensorSpec("same", (1, FEATURES), "int8", 0.5, -3)


def write_int8_tflite(path: Path) -> None:
    """``same = x`` between int8 tensors of scale 0.5 and zero point -3, as one RESHAPE."""
    model = TFLite()
    quantization = (INT8_X.scale or 0.0, INT8_X.zero_point or 0)
    kind = schema.TensorType.INT8
    x = model.tensor("x", (1, FEATURES), kind=kind, quantization=quantization)
    shape = model.tensor(
        "shape", (2,), value=np.array([1, FEATURES], np.int32), kind=schema.TensorType.INT32
    )
    y = model.tensor("same", (1, FEATURES), kind=kind, quantization=quantization)
    options = schema.ReshapeOptionsT()
    options.newShape = [1, FEATURES]
    model.operator(
        schema.BuiltinOperator.RESHAPE,
        (x, shape),
        (y,),
        options,
        schema.BuiltinOptions.ReshapeOptions,
    )
    model.save(path, (x,), (y,))


def artifact(
    path: Path,
    *,
    scheme: str = "float32",
    inputs: tuple[TensorSpec, ...] = (X,),
    outputs: tuple[TensorSpec, ...] = (Y,),
    attention: tuple[str, ...] = (),
) -> Artifact:
    """The manifest's entry for the file at ``path``, whose suffix is its format."""
    fixed = path.suffix == ".tflite"

    def shaped(spec: TensorSpec) -> TensorSpec:
        return replace(spec, shape=(1, *spec.shape[1:])) if fixed and not spec.shape[0] else spec

    return Artifact(
        format=path.suffix.removeprefix("."),
        scheme=scheme,
        path=path.name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        inputs=tuple(map(shaped, inputs)),
        outputs=tuple(map(shaped, outputs)),
        attention=attention,
    )


def declared_artifacts(
    folder: Path,
    schemes: Sequence[str],
    outputs: tuple[TensorSpec, ...],
    *,
    inputs: tuple[TensorSpec, ...] = (X,),
) -> list[Artifact]:
    """One ONNX file of each scheme, see :func:`write_declared_onnx`.

    Outputs whose names start with ``attention/`` are attention maps.
    """
    maps = tuple(spec.name for spec in outputs if spec.name.startswith("attention/"))
    entries = []
    for scheme in schemes:
        path = folder / f"m.{scheme}.onnx"
        write_declared_onnx(path, outputs, inputs=inputs, scheme=scheme)
        entries.append(
            artifact(path, scheme=scheme, inputs=inputs, outputs=outputs, attention=maps)
        )
    return entries


def write_bundle(folder: Path, artifacts: Sequence[Artifact], reference: Arrays) -> Bundle:
    """A bundle of ``artifacts``, whose files are in ``folder``, with this ``reference``."""
    write_manifest_and_reference(folder, artifacts, reference)
    return Bundle.open(folder)


def write_manifest_and_reference(
    folder: Path, artifacts: Sequence[Artifact], reference: Arrays
) -> Manifest:
    """The files of :func:`write_bundle` besides the artifacts."""
    file = folder / REFERENCE
    with file.open("wb") as stream:
        write_npz(stream, reference)
    rows = max((len(array) for array in reference.values() if array.ndim), default=0)
    manifest = Manifest(
        model={"file": "hand.h5", "parameters": KERNEL.size + BIAS.size},
        artifacts=tuple(artifacts),
        reference={
            "path": REFERENCE,
            "sha256": sha256(file),
            "samples": rows,
            "edge_cases": 0,
            "source": "by hand",
        },
        made_with={"edgeattn": "0"},
    )
    write_manifest(folder, manifest)
    return manifest


def write_dense_bundle(
    folder: Path, *, formats: Sequence[str] = ("tflite", "onnx"), count: int = 7, **options: Any
) -> Bundle:
    """A bundle of the dense model in these formats; ``options`` are those of the writers."""
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, Callable[..., None]] = {
        "tflite": write_dense_tflite,
        "onnx": write_dense_onnx,
    }
    entries = []
    for format in formats:
        path = folder / f"dense.float32.{format}"
        writers[format](path, **options)
        entries.append(artifact(path))
    x = samples(count)
    return write_bundle(folder, entries, {"input/x": x, "output/score": dense(x)})


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply ``change`` to the manifest of the bundle in ``folder``, which may make it invalid."""
    file = folder / "manifest.json"
    data = json.loads(file.read_text("utf-8"))
    change(data)
    file.write_text(json.dumps(data), "utf-8")


def rehash(folder: Path) -> None:
    """Write the hashes of the existing files to the manifest."""

    def change(data: dict[str, Any]) -> None:
        for entry in [*data["artifacts"], data["reference"]]:
            entry["sha256"] = sha256(folder / entry["path"])
        for entry in data["artifacts"]:
            entry["bytes"] = (folder / entry["path"]).stat().st_size

    edit_manifest(folder, change)
