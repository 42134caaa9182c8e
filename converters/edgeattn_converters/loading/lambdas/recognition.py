"""Recognition of Lambda layers from the code they store, which is never run.

:mod:`.signatures` lists what is recognized. Any other Lambda is refused, unless the user provides a
function with the name of the layer.
"""

import base64
import binascii
import dataclasses
from collections.abc import Mapping
from typing import Any

from edgeattn.errors import UnsafeModelError
from edgeattn_converters.loading.lambdas import bytecode, expressions, marshal_reader
from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognizedError

Config = Mapping[str, Any]

# Names that code on tensors does not use, and that most other code cannot do without.
_SUSPICIOUS = frozenset(
    {"open", "exec", "eval", "compile", "input", "globals", "locals", "vars", "getattr",
     "setattr", "os", "sys", "subprocess", "socket", "shutil", "builtins", "importlib", "pathlib",
     "ctypes", "pickle", "marshal", "requests", "urllib", "http", "system", "popen", "breakpoint"}
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class StoredFunction:
    """The function that a Lambda layer stores: its marshalled code, or else its dotted name.

    ``defaults`` are default values of the last arguments, ``closure`` values of the variables of
    the enclosing function.
    """

    code: bytes | None
    name: str | None
    defaults: tuple[Any, ...] = ()
    closure: tuple[Any, ...] = ()


def stored_function(config: Config) -> StoredFunction:
    """The function in the config of a Lambda, of any Keras version; :class:`NotRecognizedError` if
    its form is unknown."""
    function = config.get("function")
    if isinstance(function, Mapping):
        inner = function.get("config")
        if function.get("class_name") == "__lambda__" and isinstance(inner, Mapping):
            return _decoded(inner.get("code"), inner.get("defaults"), inner.get("closure"))
        if isinstance(inner, str):
            return StoredFunction(None, _dotted(function.get("module"), inner))
    if isinstance(function, list) and function:
        return _decoded(*[*function, None, None][:3])
    if isinstance(function, str):
        if config.get("function_type", "function") == "function":
            return StoredFunction(None, _dotted(config.get("module"), function))
        return _decoded(function, None, None)
    raise NotRecognizedError("its function is stored in an unknown form")


def _dotted(module: Any, name: str) -> str:
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else name


def _decoded(code: Any, defaults: Any, closure: Any) -> StoredFunction:
    if not isinstance(code, str):
        raise NotRecognizedError("its code is not stored as text")
    try:
        data = base64.b64decode("".join(code.split()), validate=True)
    except (binascii.Error, ValueError):
        data = code.encode("raw_unicode_escape")  # the encoding of Keras 1
    return StoredFunction(data, None, _values(defaults), _values(closure))


def _values(stored: Any) -> tuple[Any, ...]:
    """Return defaults or closure values, which are stored as a list or a tagged tuple."""
    if isinstance(stored, Mapping) and isinstance(stored.get("items"), list):
        stored = stored["items"]
    return tuple(stored) if isinstance(stored, list) else ()


def recognize(config: Config) -> Expression:
    """What a Lambda layer computes; :class:`NotRecognizedError` if it is not known to only compute
    on tensors."""
    if config.get("mask") is not None:
        raise NotRecognizedError("it has its own mask function")
    function = stored_function(config)
    stored_arguments = config.get("arguments")
    arguments = stored_arguments if isinstance(stored_arguments, Mapping) else {}
    if function.name is not None:
        named = {key: expressions.constant(value) for key, value in arguments.items()}
        return expressions.function(function.name, [expressions.INPUT], named)
    return bytecode.recognize(
        function.code or b"",
        defaults=function.defaults,
        closure=function.closure,
        arguments=arguments,
    )


def check(name: str, config: Config, *, trusted: bool) -> None:
    """Refuse a Lambda whose code is not recognized.

    In a trusted file it is allowed, because the user may replace it with a function. Its code is
    never run.

    Raises :class:`UnsafeModelError` if the Lambda is refused; the message names the layer.
    """
    shape = config.get("output_shape")
    if config.get("output_shape_type") == "lambda" and not seems_harmless(shape):
        raise refusal(name, NotRecognizedError("its output_shape is suspicious code"))
    try:
        recognize(config)
    except NotRecognizedError as error:
        if not trusted and function_name(config) is None:
            raise refusal(name, error) from error


def seems_harmless(stored: Any) -> bool:
    """Whether code that is ignored, such as that of a loss, uses no suspicious names.

    ``stored`` is the code, a list that starts with it, or a dict with ``code``.
    """
    code = stored.get("code") if isinstance(stored, Mapping) else stored
    code = code[0] if isinstance(code, list) and code else code
    if not isinstance(code, str):
        return True
    try:
        names = marshal_reader.all_names(_decoded(code, None, None).code or b"")
    except (NotRecognizedError, marshal_reader.UnreadableCodeError):
        return False
    return not any(name in _SUSPICIOUS or name.startswith("__") for name in names)


def function_name(config: Config) -> str | None:
    """Return the name of the function if the Lambda stores only a name, else None."""
    try:
        name = stored_function(config).name
    except NotRecognizedError:
        return None
    return name.rsplit(".", 1)[-1] if name else None


def refusal(name: str, reason: Exception) -> UnsafeModelError:
    """Return the error for a Lambda layer whose code is not recognized."""
    return UnsafeModelError(
        f"Refused at {name!r}: the Lambda layer contains Python code that is not known to be "
        f"harmless ({str(reason)[:200]}).",
        hint=f"Define {identifier(name)}(x) in a Python file to replace the code, which is never "
        "run, and pass: --custom-objects FILE.py --trust SHA256",
    )


def identifier(name: str) -> str:
    """Return the name of the function that replaces the Lambda layer of that name."""
    return "".join(char if char.isalnum() else "_" for char in name)
