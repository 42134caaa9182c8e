"""The stack machine of Python, with names and expressions on its stack instead of values."""

from dataclasses import dataclass
from typing import Any

from edgeattn_converters.loading.lambdas import expressions, marshal_reader, opcodes
from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognizedError

# Of a function: values that it unpacks at once, instructions, and operations of its result, which
# assignments such as x = x + x double.
MAX_ITEMS, MAX_INSTRUCTIONS, MAX_OPERATIONS = 100, 500, 2_000
_OPERATORS = ("add", "and", "floor_divide", "lshift", "matmul", "multiply", "remainder", "or",
              "power", "rshift", "subtract", "divide", "xor")  # fmt: skip
_BINARY = {
    "ADD": "add", "SUBTRACT": "subtract", "MULTIPLY": "multiply", "TRUE_DIVIDE": "divide",
    "FLOOR_DIVIDE": "floor_divide", "MODULO": "remainder", "POWER": "power",
    "MATRIX_MULTIPLY": "matmul", "DIVIDE": "divide",
}  # fmt: skip
_COMPARISONS = ("less", "less_equal", "equal", "not_equal", "greater", "greater_equal")


@dataclass(frozen=True)
class _Name:
    """A global, a module, or an attribute of one: ``K.mean``."""

    path: str


@dataclass(frozen=True)
class _Attribute:
    """A method of a tensor, such as ``x.shape``."""

    owner: Expression
    name: str


class _Null:
    """The NULL that Python 3.11 and later push next to a callable."""


_NULL = _Null()


class StackMachine:
    """Follows the instructions of one function. ``position`` is that of the last one."""

    def __init__(
        self, code: marshal_reader.Code, dialect: opcodes.Dialect, closure: tuple[Any, ...]
    ) -> None:
        self._code, self._dialect, self._closure = code, dialect, closure
        self._stack: list[Any] = []
        self._keywords: tuple[str, ...] = ()
        self._prepared = False
        self.position = 0

    def run(self, variables: dict[str, Any]) -> Expression:
        """Follow the instructions to the return, which must be the last instruction."""
        steps = list(opcodes.instructions(self._code.code, self._dialect))
        if len(steps) > MAX_INSTRUCTIONS:
            raise NotRecognizedError(f"it has {len(steps)} instructions")
        for position, (name, argument) in enumerate(steps):
            self.position = position
            if name in ("RETURN_VALUE", "RETURN_CONST"):
                if position != len(steps) - 1:
                    raise NotRecognizedError("it returns in several places")
                if name == "RETURN_CONST":
                    self._stack.append(self._constant(argument))
                result = self._value(self._stack.pop())
                if _size(result, {}) > MAX_OPERATIONS:
                    raise NotRecognizedError("it repeats operations without end")
                return result
            self._step(name, argument, variables)
        raise NotRecognizedError("it does not return")

    def _step(self, name: str, argument: int, variables: dict[str, Any]) -> None:
        stack = self._stack
        if name in ("RESUME", "NOP", "COPY_FREE_VARS"):
            return
        if name.startswith(("LOAD_", "STORE_")) or name == "PUSH_NULL":
            self._move(name, argument, variables)
        elif name.startswith("IMPORT_"):
            self._import(name, argument)
        elif name.startswith(("CALL", "PRECALL", "KW_NAMES")):
            self._calling(name, argument)
        elif name in ("BUILD_TUPLE", "BUILD_LIST"):
            items = self._pop(argument)
            stack.append({"tuple": [self._value(item) for item in items]})
        elif name == "LIST_EXTEND":
            tail, head = self._value(stack.pop()), stack.pop()
            if head != {"tuple": []} or "tuple" not in tail or argument != 1:
                raise NotRecognizedError("it extends a list")
            stack.append(tail)
        elif name == "UNPACK_SEQUENCE":
            whole = self._value(stack.pop())
            if argument > MAX_ITEMS:
                raise NotRecognizedError(f"it unpacks {argument} values")
            for index in reversed(range(argument)):
                stack.append(expressions.item(whole, expressions.constant(index)))
        elif name == "POP_TOP":
            if not isinstance(stack.pop(), _Name):
                raise NotRecognizedError("it discards a value")
        elif name == "DUP_TOP":
            stack.append(stack[-1])
        elif name == "ROT_TWO":
            stack[-1], stack[-2] = stack[-2], stack[-1]
        else:
            self._compute(name, argument)

    def _move(self, name: str, argument: int, variables: dict[str, Any]) -> None:
        code, stack = self._code, self._stack
        if name == "PUSH_NULL":
            stack.append(_NULL)
        elif name in ("LOAD_FAST", "LOAD_FAST_CHECK"):
            stack.append(self._local(argument, variables))
        elif name == "STORE_FAST":
            variables[code.variables[argument]] = stack.pop()
        elif name in ("LOAD_FAST_LOAD_FAST", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST"):
            first, second = name.split("_FAST_")
            self._move(f"{first}_FAST", argument >> 4, variables)
            self._move(f"{second.removesuffix('_FAST')}_FAST", argument & 15, variables)
        elif name == "LOAD_CONST":
            stack.append(self._constant(argument))
        elif name in ("LOAD_GLOBAL", "LOAD_NAME"):
            shifted = name == "LOAD_GLOBAL" and code.layout == "3.11"
            if shifted and argument & 1:
                stack.append(_NULL)
            stack.append(_Name(code.names[argument >> 1 if shifted else argument]))
        elif name == "LOAD_DEREF":
            stack.append(self._outer(argument))
        elif name in ("LOAD_ATTR", "LOAD_METHOD"):
            # Since 3.12 LOAD_ATTR also loads methods; the lowest bit distinguishes them.
            both = self._dialect.name in ("Python 3.12", "Python 3.13")
            attribute = code.names[argument >> 1 if both else argument]
            owner = stack.pop()
            if name == "LOAD_METHOD" or (both and argument & 1):
                stack.append(_NULL)
            stack.append(self._attribute(owner, attribute))
        else:
            raise NotRecognizedError(f"it uses the instruction {name}")

    def _local(self, argument: int, variables: dict[str, Any]) -> Any:
        name = self._code.variables[argument]
        if name not in variables:
            raise NotRecognizedError(f"it uses {name!r} before assignment")
        return variables[name]

    def _outer(self, argument: int) -> Any:
        """Return a variable of the enclosing function, whose value the file stores."""
        if self._code.layout == "3.11":
            index = argument - (len(self._code.variables) - len(self._closure))
        else:
            index = argument
        if not 0 <= index < len(self._closure):
            raise NotRecognizedError(
                "it uses a variable of the enclosing function, whose value is not stored"
            )
        return expressions.constant(self._closure[index])

    def _constant(self, argument: int) -> Any:
        return expressions.constant(self._code.consts[argument])

    def _attribute(self, owner: Any, attribute: str) -> Any:
        if isinstance(owner, _Name):
            return _Name(f"{owner.path}.{attribute}")
        if attribute == "shape":
            return expressions.operation("shape", self._value(owner))
        return _Attribute(self._value(owner), attribute)

    def _import(self, name: str, argument: int) -> None:
        if name == "IMPORT_NAME":
            self._pop(2)  # import level, list of names
            self._stack.append(_Name(self._code.names[argument]))
        else:
            module = self._stack[-1]
            if not isinstance(module, _Name):
                raise NotRecognizedError(f"it uses the instruction {name}")
            self._stack.append(_Name(f"{module.path}.{self._code.names[argument]}"))

    def _calling(self, name: str, argument: int) -> None:
        """Perform a call as the Python version of the code encodes it."""
        stack = self._stack
        if name == "KW_NAMES":
            self._keywords = self._names(self._constant(argument))
            return
        if name == "PRECALL":
            self._prepared = True
            return
        keywords, self._keywords = self._keywords, ()
        if name in ("CALL_FUNCTION_KW", "CALL_KW"):
            keywords = self._names(stack.pop())
        if name == "CALL_FUNCTION" and self._dialect.wide:
            named = self._pop(2 * (argument >> 8))
            keywords = tuple(self._text(key) for key in named[::2])
            values = self._pop(argument & 0xFF) + named[1::2]
        else:
            values = self._pop(argument)
        if name in ("CALL", "CALL_KW"):
            if self._dialect.name == "Python 3.11" and not self._prepared:
                raise NotRecognizedError("its calls are not those of Python 3.11")
            self._prepared = False
            function = next((item for item in self._pop(2) if item is not _NULL), _NULL)
        else:
            function = stack.pop()
            if name == "CALL_METHOD" and stack and stack[-1] is _NULL:
                stack.pop()
        split = len(values) - len(keywords)
        arguments = [self._value(value) for value in values[:split]]
        named_values = {
            key: self._value(value) for key, value in zip(keywords, values[split:], strict=True)
        }
        stack.append(self._call(function, arguments, named_values))

    def _call(
        self, function: Any, arguments: list[Expression], named: dict[str, Expression]
    ) -> Expression:
        if isinstance(function, _Attribute):
            return expressions.method(function.name, function.owner, arguments, named)
        if not isinstance(function, _Name):
            raise NotRecognizedError("it calls the result of an expression")
        return expressions.function(function.path, arguments, named)

    def _compute(self, name: str, argument: int) -> None:
        stack = self._stack
        kind, _, what = name.partition("_")
        if name.startswith("SLICE+"):
            stop = self._value(stack.pop()) if name in ("SLICE+2", "SLICE+3") else _NONE
            start = self._value(stack.pop()) if name in ("SLICE+1", "SLICE+3") else _NONE
            stack.append(expressions.item(self._value(stack.pop()), _slice(start, stop)))
        elif name == "BUILD_SLICE":
            parts = [self._value(part) for part in self._pop(argument)]
            stack.append(_slice(*parts))
        elif name == "BINARY_SLICE":
            owner, start, stop = (self._value(part) for part in self._pop(3))
            stack.append(expressions.item(owner, _slice(start, stop)))
        elif name == "BINARY_SUBSCR":
            owner, key = (self._value(part) for part in self._pop(2))
            stack.append(expressions.item(owner, key))
        elif name == "UNARY_NEGATIVE":
            stack.append(expressions.operation("negative", self._value(stack.pop())))
        elif name == "UNARY_POSITIVE":
            self._value(stack[-1])
        elif name == "COMPARE_OP":
            shift = {"Python 3.12": 4, "Python 3.13": 5}.get(self._dialect.name, 0)
            self._binary(_COMPARISONS[argument >> shift])
        elif name == "BINARY_OP":
            self._binary(_OPERATORS[argument % len(_OPERATORS)])
        elif kind in ("BINARY", "INPLACE") and what in _BINARY:
            self._binary(_BINARY[what])
        else:
            raise NotRecognizedError(f"it uses the instruction {name}")

    def _binary(self, name: str) -> None:
        left, right = (self._value(part) for part in self._pop(2))
        self._stack.append(expressions.operation(name, left, right))

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise NotRecognizedError("its stack is empty")
        if count == 0:
            return []
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _names(self, value: Any) -> tuple[str, ...]:
        return tuple(self._text(item) for item in self._value(value).get("tuple", ()))

    def _text(self, value: Any) -> str:
        text = self._value(value).get("const")
        if not isinstance(text, str):
            raise NotRecognizedError("an argument name is not text")
        return text

    def _value(self, value: Any) -> Expression:
        """Return a stack item as an expression; of the globals only dtypes have a value."""
        if isinstance(value, _Name):
            return expressions.named_value(value.path)
        if isinstance(value, dict):
            return value
        raise NotRecognizedError("it uses a method as a value")


def _size(part: Any, known: dict[int, int]) -> int:
    """The number of expressions in ``part``, which may contain one of them many times."""
    if not isinstance(part, dict | list | tuple):
        return 0
    if id(part) not in known:
        children = part.values() if isinstance(part, dict) else part
        own = isinstance(part, dict)
        known[id(part)] = own + sum(_size(child, known) for child in children)
    return known[id(part)]


_NONE: Expression = {"const": None}


def _slice(start: Expression, stop: Expression, step: Expression = _NONE) -> Expression:
    return {"slice": [start, stop, step]}
