"""Functions with constants instead of variables, and the order of the inputs of signatures."""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

IF = ("If", "StatelessIf")
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
CASE = ("Case", "StatelessCase")
# How TensorFlow's optimizer calls what it makes of a condition or body that it changes, and how
# TensorFlow calls the body of a loop in its own functions, such as the gradient of a CTC loss.
_REPEATED = re.compile(r"(if|case|while|for)_\w*function_\d+|\w+_Wrapper")


def frozen(function: Any) -> Any:
    """A signature whose variables are constants."""
    import tensorflow as tf

    with tf.init_scope(), _kept_switches():  # reads the values of variables
        return with_constants(function)


def with_constants(function: Any) -> Any:
    """A concrete function whose variables are constants.

    Control flow remains While and If, because TFLite has no Enter and Exit.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with _gathers_of_constants(), distinct_functions():
        return convert_variables_to_constants_v2(function, lower_control_flow=False)


@contextlib.contextmanager
def distinct_functions() -> Iterator[None]:
    """Within the context, graphs without variables have functions with names of their own.

    TensorFlow's optimizer calls the condition of a loop ``while_cond_function_0`` in every graph,
    and refuses two functions of one name that differ, as a body of a loop does behind the
    optimizer.
    """
    from tensorflow.python.framework import convert_to_constants

    original = convert_to_constants._construct_concrete_function

    def construct(function: Any, definition: Any, *arguments: Any) -> Any:
        _rename_functions(definition)
        return original(function, definition, *arguments)

    convert_to_constants._construct_concrete_function = construct
    try:
        yield
    finally:
        convert_to_constants._construct_concrete_function = original


def _rename_functions(definition: Any) -> None:
    """Add a number that follows from the content to names that are repeated, in place."""
    names = {}
    for function in definition.library.function:
        name = function.signature.name
        if _REPEATED.fullmatch(name):
            content = function.SerializeToString(deterministic=True)
            names[name] = f"{name}_{hashlib.sha256(content).hexdigest()[:12]}"
            function.signature.name = names[name]
    functions = [function.node_def for function in definition.library.function]
    for node in (node for nodes in (definition.node, *functions) for node in nodes):
        for value in node.attr.values():
            for called in [value.func] if value.HasField("func") else value.list.func:
                called.name = names.get(called.name, called.name)


@contextlib.contextmanager
def _kept_switches() -> Iterator[None]:
    """Keep operations that select one of several branches; TensorFlow keeps only If and While."""
    from tensorflow.python.framework import convert_to_constants

    original = convert_to_constants._CONTROL_FLOW_OPS
    convert_to_constants._CONTROL_FLOW_OPS = original | {*CASE}
    try:
        yield
    finally:
        convert_to_constants._CONTROL_FLOW_OPS = original


@contextlib.contextmanager
def _gathers_of_constants() -> Iterator[None]:
    """Also in loops, conditions and functions, gather rows of a constant instead of a variable.

    TensorFlow replaces these operations only outside of them.
    """
    from tensorflow.python.framework.convert_to_constants import _ResourceGather

    original = _ResourceGather.convert_variable_to_constant
    _ResourceGather.convert_variable_to_constant = _gather_of_constant
    try:
        yield
    finally:
        _ResourceGather.convert_variable_to_constant = original


def _gather_of_constant(gather: Any, *_: Any) -> None:
    """Replace a gather from a variable by one from the constant that its operand becomes."""
    import tensorflow as tf

    node, before = gather.converted_self().node, gather.node
    if node.op == "GatherV2":  # replaced for another call of the same function
        return
    inside = gather._function is not None
    scope = (gather._function or gather._enclosing_graph).converted_self()
    batch_axes = before.attr["batch_dims"].i
    axis = (scope.function.node_def if inside else scope.graph_def.node).add()
    axis.name, axis.op = f"{before.name}/axis", "Const"
    axis.attr["dtype"].type = tf.int32.as_datatype_enum
    axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(batch_axes, tf.int32))
    node.Clear()
    node.name, node.op = before.name, "GatherV2"
    node.input.extend([*before.input[:2], f"{axis.name}:output:0" if inside else axis.name])
    node.attr["Tparams"].CopyFrom(before.attr["dtype"])
    node.attr["Tindices"].CopyFrom(before.attr["Tindices"])
    node.attr["Taxis"].type = tf.int32.as_datatype_enum
    node.attr["batch_dims"].i = batch_axes


def arguments_in_order(
    function: Any, placeholders: Sequence[Any], inputs: Mapping[str, Any]
) -> list[Any]:
    """The values of ``inputs``, by name, in the order of the placeholders of a signature."""
    names = [tensor.name.split(":")[0] for tensor in function.inputs]
    keywords = dict(zip(names, _keywords(function), strict=False))
    by_keyword = {keyword: inputs[name] for name, keyword in keywords_of(function).items()}
    return [by_keyword[keywords[tensor.name.split(":")[0]]] for tensor in placeholders]


def keywords_of(function: Any) -> dict[str, str]:
    """The keywords with which a signature is called, by the names of its inputs.

    They differ for names that are no arguments in Python: ``{"sig_nal": "sig.nal"}``.
    """
    _, specs = function.structured_input_signature
    known = _keywords(function)
    return {name: spec.name if spec.name in known else name for name, spec in specs.items()}


def _keywords(function: Any) -> list[str]:
    """The names of the arguments of a signature, in the order of its inputs."""
    _, arguments = function.structured_input_signature
    return list(getattr(function, "_arg_keywords", None) or sorted(arguments))
