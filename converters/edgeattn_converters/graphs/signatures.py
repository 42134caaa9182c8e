"""Signatures of SavedModels with constants instead of variables, and the order of their inputs."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

CASE = ("Case", "StatelessCase")


def frozen(function: Any) -> Any:
    """A signature whose variables are constants."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with tf.init_scope(), _kept_switches():  # reads the values of variables
        return convert_variables_to_constants_v2(function, lower_control_flow=False)


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


def arguments_in_order(function: Any, constant: Any, inputs: Mapping[str, Any]) -> list[Any]:
    """The values of ``inputs``, by name, in the order of the inputs of a frozen signature."""
    names = [tensor.name.split(":")[0] for tensor in function.inputs]
    keywords = dict(zip(names, _keywords(function), strict=False))
    by_keyword = {keyword: inputs[name] for name, keyword in keywords_of(function).items()}
    return [by_keyword[keywords[tensor.name.split(":")[0]]] for tensor in constant.inputs]


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
