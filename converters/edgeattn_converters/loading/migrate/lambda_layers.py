"""Lambda layers, replaced with a function of the user or with the expression they compute."""

from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.custom_objects import registered_name
from edgeattn_converters.loading.lambdas import expressions, recognition
from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognizedError
from edgeattn_converters.loading.migrate.context import (
    Context,
    keras_layer,
    registered_layer,
    safe_name,
)
from edgeattn_converters.loading.migrate.keras2 import dtype_name


def migrate(item: Config, ctx: Context) -> dict[str, Any]:
    """Return a layer that computes the same as a Lambda.

    A function of the user that has the name of the layer, or of the stored function, comes first.

    Raises:
        UnsupportedModelError: the Lambda stores the name of a function that nobody defines.
        UnsafeModelError: it stores code that is not recognized and has no replacement.
    """
    config = item.get("config") or {}
    name = str(config.get("name") or item.get("name"))
    layer_name = safe_name(name)
    function_name = recognition.function_name(config)
    for candidate in (recognition.identifier(name), function_name):
        if candidate and callable(ctx.custom_objects.get(candidate)):
            ctx.notes.append(f"{layer_name}: the Lambda calls {candidate}() from --custom-objects.")
            return _calling(candidate, layer_name, config)
    try:
        expression = recognition.recognize(config)
    except NotRecognizedError as error:
        if function_name is not None:
            raise UnsupportedModelError(
                f"The Lambda layer {name!r} calls the function {function_name!r}, which is not "
                "stored in the file.",
                hint=f"Define {function_name}(x) in a Python file and pass it: "
                "--custom-objects FILE.py",
            ) from error
        raise recognition.refusal(name, error) from error
    ctx.notes.append(
        f"{layer_name}: replaced the Lambda with {expressions.describe(expression)}, recognized "
        "from its bytecode without running it."
    )
    return expression_layer(layer_name, expression, config)


def expression_layer(name: str, expression: Expression, config: Config) -> dict[str, Any]:
    """Return the layer that computes an expression, with the dtype of ``config``."""
    migrated = {"name": name, "expression": expression}
    if isinstance(dtype_name(config.get("dtype")), str):
        migrated["dtype"] = dtype_name(config["dtype"])
    return registered_layer(expressions.REGISTERED, migrated)


def _calling(function: str, name: str, config: Config) -> dict[str, Any]:
    """Return a Keras Lambda that calls a function of the user."""
    key = registered_name(function)
    arguments = config.get("arguments")
    return keras_layer(
        "Lambda",
        {
            "name": name,
            "arguments": arguments if isinstance(arguments, dict) else {},
            "function": {"module": "builtins", "class_name": "function", "config": key,
                         "registered_name": key},
        },
    )  # fmt: skip
