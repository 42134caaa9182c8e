"""Classes of the user that ask for Keras' backend, and may compute something else with each."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.own_code.own_classes import is_own_class, source_of


def backend_notes(model: Any, file: ModelFile) -> tuple[str, ...]:
    """Return a note on each class of the user, in a model of Keras 3, that asks for the backend.

    No file says with which backend it was trained, and Keras 2 computed with TensorFlow or says so.
    """
    if str(file.keras_version).startswith(("1", "2")):
        return ()
    layers = {type(layer): layer for layer in model._flatten_layers(include_self=False)}
    return tuple(
        f"{layer.name}: the class {cls.__name__} asks for Keras' backend, and may compute "
        "something else with each. It was computed with TensorFlow. If another backend trained "
        "the model, compare a converted file with its outputs: edgeattn validate FILE --reference "
        "OUTPUTS.npz."
        for cls, layer in layers.items()
        if any(map(_asks, filter(is_own_class, cls.__mro__)))
    )


def _asks(cls: type) -> bool:
    """Return whether a class, or a function or value of its file that it uses, has the backend."""
    try:
        tree = ast.parse(textwrap.dedent(source_of(cls)))
        of_file = ast.parse(inspect.getsource(inspect.getmodule(cls) or cls))
    except (OSError, SyntaxError, TypeError):
        return False
    names = {
        name
        for statement in of_file.body
        if not isinstance(statement, ast.ClassDef) and any(map(_is_backend, ast.walk(statement)))
        for name in _defined(statement)
    }
    return any(
        _is_backend(node) or (isinstance(node, ast.Name) and node.id in names)
        for node in ast.walk(tree)
    )


def _is_backend(node: ast.AST) -> bool:
    """Return whether an expression is a call such as ``keras.config.backend()``, or the setting."""
    if isinstance(node, ast.Call) and not node.args and not node.keywords:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else None
        return (function.id if isinstance(function, ast.Name) else name) == "backend"
    return isinstance(node, ast.Constant) and node.value == "KERAS_BACKEND"


def _defined(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef):
        yield statement.name
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
