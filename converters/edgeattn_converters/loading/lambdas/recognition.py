"""Recognition of Lambda layers from the code they store, which is never run.

:mod:`.signatures` lists what is recognized. Any other Lambda is refused, unless the user provides a
function with the name of the layer.
"""

import base64
import binascii
import dataclasses
import keyword
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsafeModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.lambdas import bytecode, expressions, marshal_reader
from edgeattn_converters.loading.lambdas.expressions import (
    Expression,
    NotRecognizedError,
    RandomNumbersError,
)

Config = Mapping[str, Any]

_LISTED_REASONS = 3
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
    if isinstance(function, list | tuple) and function:  # a tuple in SavedModel folders
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
    return tuple(stored) if isinstance(stored, list | tuple) else ()


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


@dataclasses.dataclass(frozen=True)
class CodeTrust:
    """Whether functions of the user may replace unknown code, and the SHA-256 that allows it."""

    sha256: str = "SHA256"
    trusted: bool = False


def unknown_code(config: Config, trust: CodeTrust) -> NotRecognizedError | None:
    """Return why a Lambda is refused, None if it is not.

    In a trusted file its code may be unknown, because the user may replace it with a function. It
    is never run.
    """
    shape = config.get("output_shape")
    if config.get("output_shape_type") == "lambda" and not seems_harmless(shape):
        return NotRecognizedError("its output_shape is suspicious code")
    try:
        recognize(config)
    except NotRecognizedError as error:
        if not trust.trusted and function_name(config) is None:
            return error
    return None


def seems_harmless(stored: Any) -> bool:
    """Whether code that is ignored, such as that of a loss, uses no suspicious names.

    ``stored`` is the code, a list that starts with it, or a dict with ``code``.
    """
    code = stored.get("code") if isinstance(stored, Mapping) else stored
    code = code[0] if isinstance(code, list | tuple) and code else code
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


@dataclasses.dataclass(frozen=True)
class UnknownCode:
    """A Lambda layer whose code is not recognized: its name, why, and its further arguments."""

    layer: str
    reason: Exception
    arguments: tuple[str, ...] = ()

    @property
    def definition(self) -> str:
        """The call of the function that replaces it: ``scaled(x, factor)``."""
        return f"{identifier(self.layer)}({', '.join(('x', *self.arguments))})"


def argument_names(config: Config) -> tuple[str, ...]:
    """Return the names of the arguments that a Lambda passes to its function beside the input."""
    arguments = config.get("arguments")
    if not isinstance(arguments, Mapping):
        return ()
    return tuple(name for name in arguments if isinstance(name, str) and name.isidentifier())


def refusal(unknown: Sequence[UnknownCode], trust: CodeTrust) -> UnsafeModelError:
    """Return the error for Lambda layers whose code is not recognized."""
    names = list(dict.fromkeys(item.layer for item in unknown))
    reasons = list(dict.fromkeys(error_text.beginning(item.reason, 200) for item in unknown))
    functions = enumerated(list(dict.fromkeys(item.definition for item in unknown)))
    layers = enumerated([repr(name) for name in names])
    is_random = any(isinstance(item.reason, RandomNumbersError) for item in unknown)
    by = " by something without random numbers, such as the mean" * is_random
    pronoun = "layer contains" if len(names) == 1 else "layers contain"
    return UnsafeModelError(
        f"Refused at {layers}: the Lambda {pronoun} Python code that is "
        f"not known to be harmless ({'; '.join(reasons[:_LISTED_REASONS])}).",
        hint=f"Define {functions} in a Python file to replace the code, which is never "
        f"run,{by and by + ','} and pass: --custom-objects FILE.py --trust {trust.sha256}",
    )


def identifier(name: str) -> str:
    """Return the name of the function that replaces the Lambda layer of that name.

    That of the layer ``lambda``, the first one that Keras names, is ``lambda_``.
    """
    text = "".join(char if char.isalnum() else "_" for char in name)
    text = f"layer_{text}" if text[:1].isdigit() else text
    return f"{text}_" if keyword.iskeyword(text) else text
