"""Lambda layers, replaced with a function of the user or with the expression they compute."""

from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config, registered_name, unqualified
from edgeattn_converters.loading.lambdas import expressions, recognition
from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognizedError
from edgeattn_converters.loading.migrate.context import (
    Context,
    Missing,
    keras_layer,
    placeholder,
    registered_layer,
    safe_name,
)
from edgeattn_converters.loading.migrate.keras2 import dtype_name


def migrate(item: Config, ctx: Context) -> dict[str, Any]:
    """Return a layer that computes the same as a Lambda.

    A function of the user that has the name of the layer, or of the stored function, comes first.
    A function that nobody defines is added to those that are missing in ``ctx``.

    Raises :class:`UnsupportedModelError` if a function of the user would replace different code, or
    a layer with a mask function.
    """
    config = item.get("config") or {}
    name = str(config.get("name") or item.get("name"))
    layer_name = safe_name(name)
    function_name = recognition.function_name(config)
    if function_name is not None:
        # Without the package under which it is registered.
        function_name = unqualified(function_name)
    for candidate in (recognition.identifier(name), name, function_name):
        if candidate and callable(ctx.custom_objects.get(candidate)):
            _check_mask(name, config)
            if candidate != function_name:
                _check_other(candidate, name, config, ctx)
            ctx.notes.append(f"{layer_name}: the Lambda calls {candidate}() from --custom-objects.")
            return _calling(candidate, layer_name, config)
    try:
        expression = recognition.recognize(config)
    except NotRecognizedError as error:
        ctx.missing.append(_missing(name, function_name, error, config))
        return placeholder(layer_name)
    ctx.notes.append(
        f"{layer_name}: replaced the Lambda with {expressions.describe(expression)}, recognized "
        "from its bytecode without running it."
    )
    return expression_layer(layer_name, expression, config)


def _missing(
    name: str, function_name: str | None, error: NotRecognizedError, config: Config
) -> Missing:
    unknown = recognition.UnknownCode(name, error, recognition.argument_names(config))
    if function_name is not None:
        return Missing(
            f"The Lambda layer {name!r} calls the function {function_name!r}, which is not stored "
            "in the file.",
            f"{function_name}({', '.join(('x', *unknown.arguments))})",
        )
    return Missing(
        recognition.refusal([unknown], recognition.CodeTrust()).message,
        unknown.definition,
        refused=True,
    )


def _check_other(function: str, name: str, config: Config, ctx: Context) -> None:
    """Raise :class:`UnsupportedModelError` if the function replaces another code already.

    Layers in different nested models can have the same name.
    """
    stored = config.get("function")
    first, other = ctx.replaced.setdefault(function, (name, stored))
    if other != stored:
        raise UnsupportedModelError(
            f"The function {function}() of --custom-objects would replace two Lambda layers with "
            f"different code, {first!r} and {name!r}.",
            hint="Give the Lambda layers of the model different names, and save it again.",
        )


def _check_mask(name: str, config: Config) -> None:
    """Raise :class:`UnsupportedModelError` if the layer computes a mask of its own.

    Keras 3 does not restore such a function, and the layers after it would get no mask.
    """
    if config.get("mask") is not None:
        raise UnsupportedModelError(
            f"The Lambda layer {name!r} has a mask function of its own, which no function of "
            "--custom-objects replaces.",
            hint="Replace the layer in the program with a class that defines compute_mask, and "
            "save the model again.",
        )


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
