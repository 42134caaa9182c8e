"""Calls of functions of TensorFlow, and of operators of tensors, by the names that files have."""

from collections.abc import Mapping, Sequence

from edgeattn_converters.loading.lambdas import expressions, tensorflow_functions
from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognizedError

_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "div": "divide_of_type",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "matmul": "matmul",
    "neg": "negative", "abs": "abs", "lt": "less", "le": "less_equal", "gt": "greater",
    "ge": "greater_equal", "eq": "equal", "ne": "not_equal", "and": "logical_and",
    "or": "logical_or", "invert": "logical_not",
}  # fmt: skip
_UNARY = frozenset({"negative", "abs", "logical_not"})
# Their operands have one type; the condition of "where" is not one of them.
_OF_ONE_TYPE = frozenset(
    {"add", "subtract", "multiply", "divide", "divide_of_type", "floor_divide", "remainder",
     "power", "matmul", "maximum", "minimum", "squared_difference", "equal", "not_equal", "less",
     "less_equal", "greater", "greater_equal", "where"}
)  # fmt: skip
_REFLECTED = frozenset({"radd", "rsub", "rmul", "rtruediv", "rdiv", "rfloordiv", "rmod", "rpow"})
_TAKE_FUNCTIONS = frozenset(
    {"case", "cond", "foldl", "foldr", "map_fn", "rnn", "scan", "vectorized_map", "while_loop"}
)


def _reason_against(path: str) -> str:
    """Why an unknown function has no expression, as a clause."""
    if expressions.draws_random_numbers(path):
        return "it draws random numbers, in inference too"
    if path.rsplit(".", 1)[-1] in _TAKE_FUNCTIONS:
        return "the file does not contain the Python function that it calls"
    return "edgeattn does not know it"


def call_of(
    path: str, arguments: Sequence[Expression], named: Mapping[str, Expression]
) -> Expression:
    """Return a call of a function of TensorFlow by the name that files have.

    Raises :class:`NotRecognizedError` if it is unknown.
    """
    module, _, name = path.rpartition(".")
    if module != "__operators__":
        try:
            call = expressions.function(f"tf.{path.removeprefix('compat.v1.')}", arguments, named)
            if "tensorflow" not in call:
                return _with_types(call)
        except NotRecognizedError:
            if not tensorflow_functions.is_known(path):
                raise NotRecognizedError(_reason_against(path)) from None
        return expressions.tensorflow_call(path, arguments, named)
    if name == "getitem":
        if "slice_spec" not in named:
            raise NotRecognizedError("a slice without bounds")
        return expressions.item(arguments[0], named["slice_spec"])
    operation = _OPERATORS.get(name.removeprefix("r") if name in _REFLECTED else name)
    if operation is None:
        raise NotRecognizedError(f"unknown operator {name!r}")
    values = [*arguments, *(value for key, value in named.items() if key != "name")]
    if len(values) != (1 if operation in _UNARY else 2):
        # tf_keras stores no numbers that `==` and `!=` compare with, and cannot load its file.
        raise NotRecognizedError("the file does not contain both of its operands")
    return _with_types({"op": operation, "args": values[::-1] if name in _REFLECTED else values})


def _with_types(call: Expression) -> Expression:
    """The call with its list of constants, if it has one, as a tensor of the other operand's type.

    TensorFlow takes operands of one type; Keras would compute in the larger of two.
    """
    operands = call.get("args", ())[1:] if call.get("op") == "where" else call.get("args", ())
    constants = [value for value in operands if "tuple" in value]
    others = [value for value in operands if "tuple" not in value]
    if call.get("op") not in _OF_ONE_TYPE or len(constants) != 1 or len(others) != 1:
        return call
    typed = expressions.operation("constant_of_type", constants[0], others[0])
    return {**call, "args": [typed if x is constants[0] else x for x in call["args"]]}
