"""Nodes of a TensorFlow graph, which Keras 2.0 to 2.3 store as layers, as expressions.

A ``TensorFlowOpLayer`` contains a node of the graph and its constant inputs. Known operations are
read as an expression; the node itself is never loaded. For others, :class:`NotRecognizedError` is
raised.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeattn_converters.loading.lambdas.expressions import (
    Expression,
    NotRecognizedError,
    constant,
    item,
    operation,
)

Config = Mapping[str, Any]
Attributes = Mapping[str, Any]
_Builder = Callable[[Sequence[Expression], Attributes], Expression]


def _node(config: Config) -> Mapping[str, Any]:
    """Return the graph node in the config of a layer; some versions store it as JSON text."""
    node = config.get("node_def")
    if isinstance(node, str):
        try:
            node = json.loads(node)
        except ValueError as error:
            raise NotRecognizedError("its node has an unknown form") from error
    if not isinstance(node, Mapping):
        raise NotRecognizedError("its node has an unknown form")
    return node


def operation_name(config: Config) -> str:
    """The name of the operation, such as ``"StridedSlice"``."""
    return str(_node(config).get("op"))


def is_known(config: Config) -> bool:
    """Return whether the operation is one of those known to only compute."""
    try:
        return operation_name(config) in _KNOWN
    except NotRecognizedError:
        return False


def expression(config: Config) -> Expression:
    """What the node computes; its inputs are numbered in the order of the call."""
    node = _node(config)
    name = str(node.get("op"))
    if name not in _KNOWN:
        raise NotRecognizedError(f"unknown graph operation {name}")
    constants = config.get("constants") or {}
    inputs = [item for item in node.get("input") or () if not str(item).startswith("^")]
    arguments: list[Expression] = []
    tensors = 0
    for index in range(len(inputs)):
        if str(index) in constants:
            arguments.append(constant(constants[str(index)]))
        else:
            arguments.append({"input": tensors})
            tensors += 1
    attributes = {key: _attribute(value) for key, value in (node.get("attr") or {}).items()}
    return _KNOWN[name](arguments, attributes)


def _attribute(value: Any) -> Any:
    """Decode an attribute: ``{"i": "2"}`` -> 2, ``{"list": {"i": ["-1"]}}`` -> [-1]."""
    if not isinstance(value, Mapping) or not value:
        return None
    name, inner = next(iter(value.items()))
    if name == "list":
        items: list[Any] = next(iter(inner.values()), []) if isinstance(inner, Mapping) else []
        return [int(item) for item in items if str(item).lstrip("-").isdigit()]
    return int(inner) if name == "i" else inner


def _builder(name: str, *flags: str) -> _Builder:
    """Return a builder that appends boolean attributes of the node to the arguments."""

    def build(arguments: Sequence[Expression], attributes: Attributes) -> Expression:
        constants = (constant(bool(attributes.get(flag))) for flag in flags)
        return operation(name, *arguments, *constants)

    return build


_DTYPES = {"DT_FLOAT": "float32", "DT_HALF": "float16", "DT_DOUBLE": "float64",
           "DT_INT32": "int32", "DT_INT64": "int64", "DT_BOOL": "bool"}  # fmt: skip


def _cast(arguments: Sequence[Expression], attributes: Attributes) -> Expression:
    name = _DTYPES.get(str(attributes.get("DstT")))
    if name is None:
        raise NotRecognizedError("a cast to an unsupported dtype")
    return operation("cast", arguments[0], constant(name))


def _strided_slice(arguments: Sequence[Expression], attributes: Attributes) -> Expression:
    """Build a slice; the bits of the masks mark omitted bounds and axes to insert or drop."""
    owner, *bounds = arguments
    if not all("tuple" in bound for bound in bounds) or attributes.get("ellipsis_mask"):
        raise NotRecognizedError("a slice with computed bounds")
    begins, ends, strides = (bound["tuple"] for bound in bounds)

    def masked(name: str, axis: int) -> bool:
        return bool(int(attributes.get(name) or 0) >> axis & 1)

    none: Expression = {"const": None}
    keys: list[Expression] = []
    for axis, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        if masked("new_axis_mask", axis):
            keys.append(none)
        elif masked("shrink_axis_mask", axis):
            keys.append(begin)
        else:
            start = none if masked("begin_mask", axis) else begin
            stop = none if masked("end_mask", axis) else end
            keys.append({"slice": [start, stop, stride]})
    return item(owner, {"tuple": keys})


# Name in the graph and in expressions, for operations with the same arguments.
_SAME_ARGUMENTS = """
Abs=abs Add=add AddV2=add BiasAdd=add Cos=cos Div=divide Elu=elu Equal=equal Erf=erf Exp=exp
ExpandDims=expand_dims Floor=floor FloorDiv=floor_divide Greater=greater
GreaterEqual=greater_equal Identity=identity Less=less LessEqual=less_equal Log=log
LogicalAnd=logical_and LogicalNot=logical_not LogicalOr=logical_or Maximum=maximum
Minimum=minimum Mul=multiply Neg=negative NotEqual=not_equal OnesLike=ones_like Pad=pad
Pow=power RealDiv=divide Relu=relu Relu6=relu6 Reshape=reshape ReverseV2=flip Round=round
Rsqrt=rsqrt Select=where SelectV2=where Selu=selu Sigmoid=sigmoid Sign=sign Sin=sin
Softplus=softplus Softsign=softsign Sqrt=sqrt Square=square
SquaredDifference=squared_difference Sub=subtract Tanh=tanh Tile=tile Transpose=transpose
ZerosLike=zeros_like
"""

_KNOWN: Mapping[str, _Builder] = {
    **{node: _builder(name) for node, name in (p.split("=") for p in _SAME_ARGUMENTS.split())},
    **{
        name.capitalize(): _builder(name, "keep_dims")
        for name in ("mean", "sum", "max", "min", "prod", "any", "all")
    },
    "MatMul": _builder("matmul", "transpose_a", "transpose_b"),
    "BatchMatMul": _builder("matmul", "adj_x", "adj_y"),
    "BatchMatMulV2": _builder("matmul", "adj_x", "adj_y"),
    "Squeeze": lambda args, attr: operation(
        "squeeze", args[0], constant(attr.get("squeeze_dims") or None)
    ),
    "Softmax": lambda args, _: operation("softmax", args[0], constant(-1)),
    "ConcatV2": lambda args, _: operation("concatenate", {"tuple": list(args[:-1])}, args[-1]),
    "Pack": lambda args, attr: operation(
        "stack", {"tuple": list(args)}, constant(int(attr.get("axis") or 0))
    ),
    "Cast": _cast,
    "GatherV2": _builder("take"),
    "StridedSlice": _strided_slice,
}
