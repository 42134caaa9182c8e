"""What a recognized function computes, as plain data: ``{"op": "mean", "args": [...]}``.

An expression is one of ``{"input": None}`` (the argument of the layer), ``{"input": i}``,
``{"const": value}``, ``{"tuple": [...]}``, ``{"slice": [start, stop, step]}``,
``{"ellipsis": true}``, ``{"output": [expression, position]}``, ``{"op": name, "args": [...]}``,
``{"tensorflow": name, "args": [...], "named": {...}}`` for a function of TensorFlow itself,
``{"backend": name, "args": [...], "named": {...}}`` for one of the backend of Keras 2, and
``{"graph": name, "args": [...], "attributes": {...}}`` for a node of its graph.
``keras_operations`` evaluates them. The functions raise :class:`NotRecognizedError` for anything
that is not known.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn_converters.loading.lambdas import (
    backend_functions,
    signatures,
    tensorflow_functions,
)
from edgeattn_converters.loading.lambdas.signatures import REQUIRED

Expression = dict[str, Any]
INPUT: Expression = {"input": None}
REGISTERED = "edgeattn>Expression"

# Python 2 compiles these names as globals.
_CONSTANTS = {"True": True, "False": False, "None": None, "tf.newaxis": None, "np.newaxis": None}


class NotRecognizedError(ValueError):
    """The function is not known to only compute on tensors; the message is a clause: "it ..."."""


class RandomNumbersError(NotRecognizedError):
    """The function draws random numbers, which no artifact can reproduce."""


_RANDOM = re.compile(r"random|dropout|\.fractional_|sampled_softmax|nce_loss|truncated_normal")


def draws_random_numbers(path: str) -> bool:
    """Return whether the function at ``path``, such as ``K.random_normal``, does, by its name."""
    return _RANDOM.search(path) is not None


def constant(value: Any) -> Expression:
    """A constant of the code: a number, string, None, Ellipsis or tuple of these."""
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, tuple | list):
        return {"tuple": [constant(item) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"const": value}
    raise NotRecognizedError(f"it contains a constant of type {type(value).__name__}")


def operation(name: str, *arguments: Expression) -> Expression:
    """Return an operation applied to expressions."""
    return {"op": name, "args": list(arguments)}


def item(owner: Expression, key: Expression) -> Expression:
    """Return ``owner[key]``."""
    if "tuple" in owner and isinstance(key.get("const"), int):
        return dict(owner["tuple"][key["const"]])
    return {"op": "getitem", "args": [owner, key]}


def named_value(path: str) -> Expression:
    """A global used as a value: a dtype such as ``tf.float32``."""
    last = path.rsplit(".", 1)[-1]
    if "." in path and last in tensorflow_functions.DTYPES:
        return {"const": last}
    if path in _CONSTANTS:
        return {"const": _CONSTANTS[path]}
    raise NotRecognizedError(f"it uses {path!r}, whose value is not stored in the file")


def function(
    path: str, arguments: Sequence[Expression], named: Mapping[str, Expression]
) -> Expression:
    """A call of a function by its dotted name."""
    if path.endswith(".floatx") and not arguments:
        return {"const": "float32"}
    if path.endswith((".constant", ".convert_to_tensor")) and len(arguments) == 1 and not named:
        return tensor_of(arguments[0])
    if path == "slice" and not named:
        start = [] if len(arguments) > 1 else [{"const": None}]
        return {"slice": [*start, *arguments, {"const": None}][:3]}
    signature = signatures.find(path)
    root, _, name = path.partition(".")
    last = path.rpartition(".")[2]
    if signature is None and root in ("tf", "tensorflow") and tensorflow_functions.is_known(name):
        return tensorflow_call(name, arguments, named)
    if signature is None:
        if signatures.is_of_backend(path) and last in backend_functions.FUNCTIONS:
            return backend_call(last, arguments, named)
        if draws_random_numbers(path):
            raise RandomNumbersError(f"it calls {path!r}, which draws random numbers")
        raise NotRecognizedError(f"it calls {path!r}")
    try:
        return {"op": signature.operation, "args": _bind(path, signature, arguments, named)}
    except NotRecognizedError:
        if signatures.is_of_backend(path) and last in backend_functions.FUNCTIONS:
            return backend_call(last, arguments, named)
        raise


def backend_call(
    name: str, arguments: Sequence[Expression], named: Mapping[str, Expression]
) -> Expression:
    """A call of a function of the backend of Keras 2, which must be known."""
    settings = {key: value for key, value in named.items() if key != "name"}
    return {"backend": name, "args": list(arguments), "named": settings}


def tensorflow_call(
    name: str, arguments: Sequence[Expression], named: Mapping[str, Expression]
) -> Expression:
    """A call of a function of TensorFlow itself, which must be known.

    The name of its node is left out: a slice of a constant has one that no second node may have.
    """
    named = {key: value for key, value in named.items() if key != "name"}
    window = named.get("window_fn", {}).get("const")
    if isinstance(window, str) and window not in tensorflow_functions.WINDOWS:
        raise NotRecognizedError(f"its window_fn {window!r} is not stored in the file")
    if name.endswith("nn.embedding_lookup"):
        arguments, named = _with_one_table(arguments, named)
    return {"tensorflow": name, "args": list(arguments), "named": named}


def tensor_of(expression: Expression) -> Expression:
    """Return the expression, marked as one tensor if it is a list of numbers or of lists."""
    return {**expression, "tensor": True} if "tuple" in expression else expression


def _with_one_table(
    arguments: Sequence[Expression], named: Mapping[str, Expression]
) -> tuple[list[Expression], dict[str, Expression]]:
    """Return the arguments of ``tf.nn.embedding_lookup`` with its table as the first.

    Raises :class:`NotRecognizedError` for a list or tuple: its elements are tables if it is a list
    and rows if it is a tuple, and a file does not distinguish the two.
    """
    others = {key: value for key, value in named.items() if key != "params"}
    given = [named["params"], *arguments] if "params" in named else arguments
    if not given:
        raise NotRecognizedError("it has no table")
    [table, *positional] = given
    if "tuple" not in table or "tensor" in table:
        return [table, *positional], others
    if len(table["tuple"]) != 1:
        raise NotRecognizedError(
            "its table is a list or a tuple, which the file does not distinguish: TensorFlow reads "
            "the elements of a list as several tables, those of a tuple as rows of one"
        )
    return [table["tuple"][0], *positional], others


def _bind(
    path: str,
    signature: signatures.Signature,
    arguments: Sequence[Expression],
    named: Mapping[str, Expression],
) -> list[Expression]:
    """Return all arguments in the order of the signature, with defaults."""
    names = list(signature.arguments)
    if len(arguments) > len(names):
        raise NotRecognizedError(f"it calls {path!r} with {len(arguments)} arguments")
    bound = dict(zip(names, arguments, strict=False))
    for key, value in named.items():
        if key == "name" or (key == "dtype" and "dtype" not in names and _is_none(value)):
            continue
        argument = key if key in names else _alias(key, names)
        if argument is None or argument in bound:
            if _is_none(value) or value == {"const": False}:
                continue
            raise NotRecognizedError(f"it calls {path!r} with the arguments {sorted(named)}")
        bound[argument] = value
    values = []
    for name, default in signature.arguments.items():
        if name not in bound and default is REQUIRED:
            raise NotRecognizedError(f"it calls {path!r} without {name!r}")
        values.append(bound.get(name, {"const": default}))
    return values


def _alias(key: str, names: Sequence[str]) -> str | None:
    """Return the argument of the signature for a keyword of another version."""
    current = signatures.ALIASES.get(key, key)
    for name in names:
        if current == name or signatures.ALIASES.get(name) == current:
            return name
    return None


def _is_none(value: Expression) -> bool:
    return "const" in value and value["const"] is None


def method(
    name: str, owner: Expression, arguments: Sequence[Expression], named: Mapping[str, Expression]
) -> Expression:
    """A call of a method of a tensor: ``x.get_shape()`` or ``x.shape.as_list()``."""
    if named or arguments:
        raise NotRecognizedError(f"it calls the method {name!r}")
    if name == "get_shape":
        return {"op": "shape", "args": [owner]}
    if name == "as_list" and owner.get("op") == "shape":
        return owner
    raise NotRecognizedError(f"it calls the method {name!r}")


def describe(expression: Expression) -> str:
    """Return the expression as Python code, for messages."""
    if "input" in expression:
        return "x" if expression["input"] is None else f"x{expression['input']}"
    if "const" in expression:
        return repr(expression["const"])
    if "ellipsis" in expression:
        return "..."
    if "tuple" in expression:
        return "(" + ", ".join(describe(part) for part in expression["tuple"]) + ")"
    if "slice" in expression:
        parts = ["" if _is_none(part) else describe(part) for part in expression["slice"]]
        return ":".join(parts[:2] if not parts[2] else parts)
    arguments = [describe(part) for part in expression["args"]]
    if "tensorflow" in expression:
        named = [f"{key}={describe(part)}" for key, part in expression["named"].items()]
        return f"tf.{expression['tensorflow']}({', '.join([*arguments, *named])})"
    if "backend" in expression:
        named = [f"{key}={describe(part)}" for key, part in expression["named"].items()]
        return f"K.{expression['backend']}({', '.join([*arguments, *named])})"
    if expression["op"] == "getitem":
        key = arguments[1]
        return f"{arguments[0]}[{key[1:-1] if key.startswith('(') else key}]"
    return f"{expression['op']}({', '.join(arguments)})"
