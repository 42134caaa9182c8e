"""The arguments of ``call`` of a subclassed model that are inputs of the model."""

import ast
import inspect
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def in_call_order(model: Any, samples: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the samples in the order in which ``call`` unpacks a list of these names."""
    names = unpacked_names(model) if len(samples) > 1 else []
    return {name: samples[name] for name in names} if set(names) == set(samples) else samples


def unpacked_names(model: Any) -> list[str]:
    """The names of the items of a list that ``call`` takes, as in ``context, x = inputs``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(model).call)))
    except (OSError, TypeError, SyntaxError):
        return []  # a class without a file
    first = inputs(model)[:1]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)):
            continue
        names = [item.id for item in node.targets[0].elts if isinstance(item, ast.Name)]
        if isinstance(node.value, ast.Name) and [node.value.id] == first:
            return names
    return []


def list_note(model: Any, names: Sequence[str]) -> str:
    """The note about a model whose call takes a list of the samples' arrays, in this order."""
    note = f"call of {type(model).__name__} takes a list. Its inputs are the arrays of the samples "
    if unpacked_names(model) == list(names):
        return f"{note}in the order in which call unpacks them: {', '.join(names)}."
    return (
        f"{note}in the order of their file: {', '.join(names)}. If call takes them in another "
        "order, the model is wrong: save them in that order."
    )


def inputs(model: Any) -> list[str]:
    """The names of the inputs that ``call`` takes; ``mask`` may be one, if samples have it."""
    return [
        item.name
        for item in inspect.signature(model.call).parameters.values()
        if item.name != "training" and item.kind is not item.VAR_KEYWORD
    ]


def not_in_training(model: Any) -> dict[str, bool]:
    """The argument ``training`` for a ``call`` without a default for it, as ``predict`` passes."""
    training = inspect.signature(model.call).parameters.get("training")
    is_required = training is not None and training.default is inspect.Parameter.empty
    return {"training": False} if is_required else {}


def required(model: Any) -> list[str]:
    """The names of the inputs without a mask that has a default, which Keras passes."""
    parameters = inspect.signature(model.call).parameters
    return [
        name
        for name in inputs(model)
        if name != "mask" or parameters[name].default is inspect.Parameter.empty
    ]


def hint_for_others(model: Any, names: Iterable[str]) -> str:
    """What to do if arrays of samples, by name, are no arguments of ``call``; empty if all are."""
    others = [name for name in names if name not in inputs(model)]
    parameters = inspect.signature(model.call).parameters.values()
    if not others or any(item.kind is item.VAR_KEYWORD for item in parameters):
        return ""
    left_out = " ".join(f"--ignore {shlex.quote(name)}" for name in others)
    return (
        f"Name the arrays of the samples as the arguments of call ({', '.join(required(model))}), "
        f"or leave out those that are no inputs: {left_out}"
    )
