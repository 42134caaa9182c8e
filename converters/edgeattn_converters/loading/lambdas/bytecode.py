"""Symbolic execution of the bytecode of a small function: what does it compute?

Instructions operate on names and expressions instead of values; nothing is called. A function with
branches, loops or side effects is not recognized, nor are calls of functions without a signature.
No library of a compatible license does this for all Python versions without executing the code.
"""

from collections.abc import Mapping
from typing import Any

from edgeattn_converters.loading.lambdas import expressions, marshal_reader, opcodes
from edgeattn_converters.loading.lambdas.expressions import (
    Expression,
    NotRecognizedError,
    RandomNumbersError,
)
from edgeattn_converters.loading.lambdas.stack_machine import StackMachine


def recognize(
    data: bytes,
    *,
    defaults: tuple[Any, ...] = (),
    closure: tuple[Any, ...] = (),
    arguments: Mapping[str, Any],
) -> Expression:
    """What a function computes from its first argument, from its marshalled code.

    ``defaults`` are the default values of its last arguments, ``closure`` the values of variables
    of the enclosing function, and ``arguments`` those of further arguments by name. Raises
    :class:`NotRecognizedError` if the function is not known to only compute on tensors, or its
    bytes have different meanings in two Python versions.
    """
    try:
        codes = marshal_reader.read(data)
    except marshal_reader.UnreadableCodeError as error:
        raise NotRecognizedError(str(error)) from error
    meanings: list[Expression] = []
    reasons: list[tuple[int, NotRecognizedError]] = []
    for code in codes:
        for dialect in opcodes.DIALECTS:
            if dialect.layout != code.layout:
                continue
            machine = StackMachine(code, dialect, closure)
            try:
                expression = machine.run(_variables(code, defaults, arguments))
            # Manipulated code may refer to constants, names or operators that do not exist.
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                known = isinstance(error, RandomNumbersError)
                kind = RandomNumbersError if known else NotRecognizedError
                reasons.append((machine.position, kind(f"{dialect.name}: {error}")))
                continue
            if expression not in meanings:
                meanings.append(expression)
    if len(meanings) != 1:
        # The version that got furthest is most likely the one that wrote the bytecode.
        ambiguous = (0, NotRecognizedError("its bytecode is ambiguous"))
        raise max(reasons, key=lambda item: item[0], default=ambiguous)[1]
    return meanings[0]


def _variables(
    code: marshal_reader.Code, defaults: tuple[Any, ...], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the initial variables: the input, then default values and values by name."""
    names = code.variables[: code.arguments]
    if not names:
        raise NotRecognizedError("it takes no argument")
    values: dict[str, Any] = {names[0]: expressions.INPUT}
    if defaults:
        values |= {
            name: expressions.constant(value)
            for name, value in zip(names[-len(defaults) :], defaults, strict=False)
            if name != names[0]
        }
    values |= {
        name: expressions.constant(value) for name, value in arguments.items() if name in names[1:]
    }
    return values
