"""Lambda layers: recognised by their bytecode and replaced, or refused. Never run.

What is recognised is in ``signatures``; the rest a user can replace by a function of the layer's
name in their own file.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Mapping
from typing import Any

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading import custom_objects as custom
from edgeattn_converters.loading.lambdas import bytecode, expressions
from edgeattn_converters.loading.lambdas import marshal_reader as marshalled
from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognisedError
from edgeattn_converters.loading.migrate.context import Config, Context, safe_name


@dataclasses.dataclass(frozen=True)
class Payload:
    """The function a Lambda layer keeps.

    Attributes:
        code: its marshalled code, when it keeps code.
        name: its dotted name, when it keeps a name only.
        defaults: the values of its last arguments.
        closure: the values of the variables around it.
    """

    code: bytes | None
    name: str | None
    defaults: tuple[Any, ...] = ()
    closure: tuple[Any, ...] = ()


def payload(config: Config) -> Payload:
    """The function in a Lambda's config of any era.

    Raises:
        NotRecognisedError: it is kept in no known way.
    """
    function = config.get("function")
    if isinstance(function, Mapping):
        inner = function.get("config")
        if function.get("class_name") == "__lambda__" and isinstance(inner, Mapping):
            return _coded(inner.get("code"), inner.get("defaults"), inner.get("closure"))
        if isinstance(inner, str):
            return Payload(None, _dotted(function.get("module"), inner))
    if isinstance(function, list) and function:
        return _coded(*[*function, None, None][:3])
    if isinstance(function, str):
        if config.get("function_type", "function") == "function":
            return Payload(None, _dotted(config.get("module"), function))
        return _coded(function, None, None)
    raise NotRecognisedError("it keeps its function in an unknown way")


def _dotted(module: Any, name: str) -> str:
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else name


def _coded(code: Any, defaults: Any, closure: Any) -> Payload:
    if not isinstance(code, str):
        raise NotRecognisedError("its code is not text")
    try:
        data = base64.b64decode("".join(code.split()), validate=True)
    except (binascii.Error, ValueError):
        data = code.encode("raw_unicode_escape")  # as Keras 1 wrote it
    return Payload(data, None, _values(defaults), _values(closure))


def _values(stored: Any) -> tuple[Any, ...]:
    """Defaults and closures; a tuple in them is kept as a list, or marked."""
    if isinstance(stored, Mapping) and isinstance(stored.get("items"), list):
        stored = stored["items"]
    return tuple(stored) if isinstance(stored, list) else ()


def recognise(config: Config) -> Expression:
    """What a Lambda layer computes.

    Raises:
        NotRecognisedError: with what was met.
    """
    if config.get("mask") is not None:
        raise NotRecognisedError("it makes a mask of its own")
    found = payload(config)
    arguments = config.get("arguments")
    given = arguments if isinstance(arguments, Mapping) else {}
    if found.name is not None:
        named = {key: expressions.constant(value) for key, value in given.items()}
        return expressions.function(found.name, [expressions.INPUT], named)
    return bytecode.recognise(
        found.code or b"", defaults=found.defaults, closure=found.closure, given=given
    )


def check(name: str, config: Config, *, trusted: bool) -> None:
    """Refuse a Lambda whose code is not recognised.

    A trusted file may have such a layer, if the user gives the function; its code is not run all
    the same.

    Raises:
        UnsafeModelError: naming the layer.
    """
    shape = config.get("output_shape")
    if config.get("output_shape_type") == "lambda" and not seems_harmless(shape):
        raise _unsafe(name, NotRecognisedError("its output_shape is code with other aims"))
    try:
        recognise(config)
    except NotRecognisedError as error:
        if not trusted and not _keeps_name_only(config):
            raise _unsafe(name, error) from error


# What code on tensors has no use for, and code with other aims can hardly do without.
_TELLING = frozenset(
    {"open", "exec", "eval", "compile", "input", "globals", "locals", "vars", "getattr",
     "setattr", "os", "sys", "subprocess", "socket", "shutil", "builtins", "importlib", "pathlib",
     "ctypes", "pickle", "marshal", "requests", "urllib", "http", "system", "popen", "breakpoint"}
)  # fmt: skip


def seems_harmless(stored: Any) -> bool:
    """Whether code that is ignored anyway, such as of a loss, only uses innocent names.

    Takes the stored parts of a function: a list, or a dict with ``code``.
    """
    code = stored.get("code") if isinstance(stored, Mapping) else stored
    code = code[0] if isinstance(code, list) and code else code
    if not isinstance(code, str):
        return True
    try:
        names = marshalled.all_names(_coded(code, None, None).code or b"")
    except (NotRecognisedError, marshalled.UnreadableCodeError):
        return False
    return not any(name in _TELLING or name.startswith("__") for name in names)


def _keeps_name_only(config: Config) -> bool:
    try:
        return payload(config).name is not None
    except NotRecognisedError:
        return False


def _unsafe(name: str, reason: Exception) -> UnsafeModelError:
    return UnsafeModelError(
        f"refused at {name!r}: a Lambda layer with Python code in the file that is not one of "
        f"the harmless ones known here ({str(reason)[:200]})",
        hint=f"Its code is never run. Write it as a function {_identifier(name)}(x) into a file "
        "and pin the model: --custom-objects FILE.py --trust SHA256",
    )


def _identifier(name: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in name)


def layer(item: Config, ctx: Context) -> dict[str, Any]:
    """The layer that computes the same: the user's function, or an expression.

    Raises:
        UnsupportedModelError: a function by name that nobody gave.
        UnsafeModelError: code that is not recognised and that nobody gave.
    """
    config = item.get("config") or {}
    name = str(config.get("name") or item.get("name"))
    safe = safe_name(name)
    mine = _identifier(name)
    stored_name = _stored_name(config)
    for candidate in (mine, stored_name):
        if candidate and callable(ctx.custom.get(candidate)):
            ctx.note(f"{safe}: the Lambda calls {candidate}() of your own file.")
            return _users(safe, candidate, config)
    try:
        expression = recognise(config)
    except NotRecognisedError as error:
        if stored_name is not None:
            raise UnsupportedModelError(
                f"the Lambda layer {name!r} calls the function {stored_name!r}, which is not in "
                "the file",
                hint=f"Write {stored_name}(x) into a file: --custom-objects FILE.py",
            ) from error
        raise _unsafe(name, error) from error
    ctx.note(
        f"{safe}: the Lambda was recognised as {expressions.describe(expression)} and replaced; "
        "its code was not run."
    )
    return expression_layer(safe, expression, config)


def _stored_name(config: Config) -> str | None:
    try:
        name = payload(config).name
    except NotRecognisedError:
        return None
    return name.rsplit(".", 1)[-1] if name else None


def expression_layer(name: str, expression: Expression, config: Config) -> dict[str, Any]:
    """Our layer that computes an expression."""
    from edgeattn_converters.loading.migrate.keras2 import dtype

    new = {"name": name, "expression": expression}
    if isinstance(dtype(config.get("dtype")), str):
        new["dtype"] = dtype(config["dtype"])
    return {"module": None, "class_name": "Expression", "config": new,
            "registered_name": expressions.REGISTERED}  # fmt: skip


def _users(name: str, function: str, config: Config) -> dict[str, Any]:
    """Keras' own Lambda around the user's function."""
    key = custom.key(function)
    arguments = config.get("arguments")
    return {
        "module": "keras.layers", "class_name": "Lambda", "registered_name": None,
        "config": {
            "name": name, "arguments": arguments if isinstance(arguments, dict) else {},
            "function": {"module": "builtins", "class_name": "function", "config": key,
                         "registered_name": key},
        },
    }  # fmt: skip
