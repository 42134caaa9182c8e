"""The nodes of a graph or of one of its functions, which name values in different ways."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

# types.proto of TensorFlow
DT_INT32, DT_BOOL, DT_VARIANT = 3, 10, 21
_NUMBERS = frozenset({"N", "batch_dims", "num_elements"})


def scopes(definition: Any) -> Iterator["Scope"]:
    """The graph of a ``GraphDef`` and each of its functions."""
    numbers = itertools.count()
    yield Scope(definition.node, None, numbers)
    for function in definition.library.function:
        yield Scope(function.node_def, function, numbers)


def constant(node: Any) -> Any:
    """The value of a node as an array, None if it is no constant."""
    if node is None or node.op != "Const":
        return None
    from tensorflow.python.framework.tensor_util import MakeNdarray

    return MakeNdarray(node.attr["value"].tensor)


class Scope:
    """The nodes of a graph, or of a ``FunctionDef``, and their values.

    Values are named as in the inputs of nodes: ``node:0`` or ``node`` in a graph, in a function
    ``argument`` or ``node:name of the output:0``. Methods that add nodes return such names.
    """

    def __init__(self, nodes: Any, function: Any, numbers: Iterator[int]) -> None:
        self.nodes = nodes
        self._function = function
        # In ONNX, a loop can read the values outside of it, so that no name occurs twice.
        self._numbers = numbers

    @property
    def name(self) -> str:
        """The name of the function, empty for the graph."""
        return "" if self._function is None else str(self._function.signature.name)

    def node(self, value: str) -> Any:
        """The node that computes a value, None for an argument. Identities are followed."""
        name = value.split(":")[0]
        node = next((node for node in self.nodes if node.name == name), None)
        return self.node(node.input[0]) if node is not None and node.op == "Identity" else node

    def output(self, node: Any, position: int = 0) -> str:
        """The name of an output of a node with one output, or with one list of outputs."""
        if self._function is None:
            return f"{node.name}:{position}" if position else str(node.name)
        from tensorflow.python.framework import op_def_registry

        return f"{node.name}:{op_def_registry.get(node.op).output_arg[0].name}:{position}"

    def argument(self, position: int) -> str:
        """The name of an argument of the function."""
        return str(self._function.signature.input_arg[position].name)

    def argument_position(self, value: str) -> int | None:
        """The position of the argument that a value is, None if a node computes it."""
        node = next((node for node in self.nodes if node.name == value.split(":")[0]), None)
        if node is not None:
            return self.argument_position(node.input[0]) if node.op == "Identity" else None
        names = [item.name for item in self._function.signature.input_arg]
        return names.index(value) if value in names else None

    def returned(self, position: int) -> str:
        """The value that the function returns at a position."""
        return str(self._function.ret[self._function.signature.output_arg[position].name])

    def positions_returning(self, values: Collection[str]) -> list[int]:
        """The positions at which the function returns one of the values."""
        if self._function is None:
            return []
        results = self._function.signature.output_arg
        return [k for k, item in enumerate(results) if self._function.ret[item.name] in values]

    def consumers(self, value: str) -> list[Any]:
        """The nodes that have the value as an input."""
        names = {value, f"{value}:0"} if self._function is None else {value}
        return [node for node in self.nodes if names & set(node.input)]

    def set_type(self, position: int, dtype: int, *, returned: bool = False) -> None:
        """Give an argument another dtype, and with ``returned`` the result at this position."""
        signature = self._function.signature
        items = [signature.input_arg[position]]
        if returned:
            items.append(signature.output_arg[position])
        for item in items:
            item.type = dtype
            item.ClearField("handle_data")
        self._function.arg_attr.pop(position, None)

    def add_argument(self, name: str, dtype: int) -> str:
        """Add an argument after the others."""
        return self._added(self._function.signature.input_arg, name, dtype)

    def add_result(self, name: str, value: str, dtype: int) -> None:
        """Return a value after the other results."""
        name = self._added(self._function.signature.output_arg, f"{name}_result", dtype)
        self._function.ret[name] = value

    @staticmethod
    def _added(items: Any, name: str, dtype: int) -> str:
        name = f"{name}_{len(items)}"
        items.add(name=name, type=dtype)
        return name

    def replace(self, node: Any, value: str) -> None:
        """Let everything that reads the output of a node read ``value`` instead.

        What waits for the node without reading it, as constants of TensorFlow's own optimizer do,
        no longer waits: nodes have no effects.
        """
        old = self.output(node)
        names = {old, f"{old}:0"} if self._function is None else {old}
        for other in self.nodes:
            for position, name in enumerate(other.input):
                if name in names:
                    other.input[position] = value
            if f"^{node.name}" in other.input:
                other.input.remove(f"^{node.name}")
        if self._function is not None:
            for name in self._function.ret:
                if self._function.ret[name] == old:
                    self._function.ret[name] = value
        self.nodes.remove(node)

    def add(self, kind: str, inputs: Sequence[str], **attributes: int | bool) -> str:
        """Add a node with these attributes: dtypes, and the numbers of :data:`_NUMBERS`."""
        node = self.nodes.add(op=kind, name=f"edgeattn/{kind}_{next(self._numbers)}")
        node.input.extend(inputs)
        for key, value in attributes.items():
            if key in _NUMBERS:
                node.attr[key].i = value
            elif isinstance(value, bool):
                node.attr[key].b = value
            else:
                node.attr[key].type = value
        return self.output(node)

    def add_variable(self, loop: Any, initial: str, dtype: int) -> str:
        """Add a vector after the other variables to a loop: its last value.

        tf2onnx infers a wrong shape of what is selected by a vector of unknown rank.
        """
        loop.input.append(initial)
        loop.attr["T"].list.type.append(dtype)
        if loop.attr["output_shapes"].list.shape:
            loop.attr["output_shapes"].list.shape.add().dim.add(size=-1)
        return self.output(loop, len(loop.input) - 1)

    def constant(self, value: Any, dtype: int = DT_INT32) -> str:
        """Add a constant."""
        from tensorflow.python.framework.tensor_util import make_tensor_proto

        name = self.add("Const", [], dtype=dtype)
        tensor = make_tensor_proto(value, dtype)
        self.node(name).attr["value"].tensor.CopyFrom(tensor)
        return name

    def shape_of(self, value: str, dtype: int) -> str:
        """The shape, a vector of int32."""
        return self.add("Shape", [value], T=dtype, out_type=DT_INT32)

    def reshaped(self, value: str, shape: Sequence[int], dtype: int) -> str:
        """The values in another shape."""
        return self.add("Reshape", [value, self.constant(shape)], T=dtype, Tshape=DT_INT32)

    def expand(self, value: str, dtype: int) -> str:
        """The value with a first axis of one."""
        return self.add("ExpandDims", [value, self.constant(0)], T=dtype, Tdim=DT_INT32)

    def concatenated(self, values: Sequence[str], dtype: int) -> str:
        """The values one after the other along the first axis."""
        inputs = [*values, self.constant(0)]
        return self.add("ConcatV2", inputs, N=len(values), T=dtype, Tidx=DT_INT32)

    def filled(self, shape: str, dtype: int) -> str:
        """Zeros of this shape."""
        zero = self.constant(False if dtype == DT_BOOL else 0, dtype)
        return self.add("Fill", [shape, zero], T=dtype, index_type=DT_INT32)

    def largest(self, vector: str) -> str:
        """The largest of integers, a scalar."""
        return self.add("Max", [vector, self.constant([0])], T=DT_INT32, Tidx=DT_INT32)

    def element(self, values: str, index: str, dtype: int) -> str:
        """The rows of ``values`` at ``index``."""
        types = {"Tparams": dtype, "Tindices": DT_INT32, "Taxis": DT_INT32}
        return self.add("GatherV2", [values, index, self.constant(0)], batch_dims=0, **types)

    def updated(self, values: str, index: str, row: str, dtype: int) -> str:
        """``values`` with another row at the scalar ``index``."""
        inputs = [values, self.reshaped(index, [1, 1], DT_INT32), self.expand(row, dtype)]
        return self.add("TensorScatterUpdate", inputs, T=dtype, Tindices=DT_INT32)
