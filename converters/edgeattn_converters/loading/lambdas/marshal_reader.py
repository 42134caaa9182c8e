"""Read marshalled code objects as data that cannot be executed.

``marshal.loads`` may crash the process on hostile bytes and only reads code of its own Python
version. This reader supports the layouts of Python 2.7 and 3.4 to 3.13 within size limits; no
library of a compatible license reads them without executing anything. The format is that of
CPython's ``Python/marshal.c``.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_CODE_BYTES = 64 * 1024
MAX_CODE_OBJECTS = 5_000
MAX_CODE_DEPTH = 20


class UnreadableCodeError(ValueError):
    """The bytes are not a code object of a known layout."""


@dataclass(frozen=True)
class Code:
    """The parts of a code object that determine what it computes.

    ``layout`` is ``2.7``, ``3.4``, ``3.8`` or ``3.11``, the first Python version with this layout,
    and ``arguments`` the number of positional arguments. ``consts`` may contain nested ``Code``.
    ``names`` are those of globals and attributes, ``variables`` those of arguments and locals, and
    ``free`` those of variables of the enclosing function.
    """

    layout: str
    arguments: int
    code: bytes
    consts: tuple[Any, ...]
    names: tuple[str, ...]
    variables: tuple[str, ...]
    free: tuple[str, ...]


@dataclass(frozen=True)
class Unreadable:
    """A value that expressions cannot use, such as a set."""

    kind: str


# The integers that precede the instructions.
_HEADERS = {
    "2.7": ("arguments", "locals", "stack", "flags"),
    "3.4": ("arguments", "keywords", "locals", "stack", "flags"),
    "3.8": ("arguments", "positional", "keywords", "locals", "stack", "flags"),
    "3.11": ("arguments", "positional", "keywords", "stack", "flags"),
}
LAYOUTS = tuple(_HEADERS)


def read(data: bytes) -> list[Code]:
    """The code object in every layout that fits all bytes; :class:`UnreadableCodeError` if none."""
    codes = []
    for layout in LAYOUTS:
        try:
            code = _Reader(data, layout).read_code()
        except (ValueError, struct.error, IndexError):  # the bytes are not of this layout
            continue
        codes.append(code)
    if not codes:
        raise UnreadableCodeError("it is not code of Python 2.7 or 3.4 to 3.13")
    return codes


def all_names(data: bytes) -> frozenset[str]:
    """The globals and attributes that code and nested code use, in any layout; raises as
    :func:`read`."""
    names: set[str] = set()
    pending: list[Any] = list(read(data))
    while pending:
        code = pending.pop()
        if isinstance(code, Code):
            names.update(code.names)
            pending.extend(code.consts)
    return frozenset(names)


class _Reader:
    """One pass over the bytes in one layout."""

    def __init__(self, data: bytes, layout: str) -> None:
        if len(data) > MAX_CODE_BYTES:
            raise UnreadableCodeError(f"it has {len(data)} bytes of code")
        self._data, self._layout = data, layout
        self._position = self._objects = 0
        self._references: list[Any] = []
        self._strings: list[Any] = []  # Python 2 numbers interned strings separately
        self._readers: dict[bytes, Callable[[], Any]] = {
            b"N": lambda: None,
            b"T": lambda: True,
            b"F": lambda: False,
            b".": lambda: Ellipsis,
            b"S": lambda: Unreadable("StopIteration"),
            b"i": lambda: self._number("<i"),
            b"I": lambda: self._number("<q"),
            b"l": self._long,
            b"g": lambda: self._number("<d"),
            b"f": lambda: float(self._take(self._byte())),
            b"y": lambda: self._complex(),
            b"s": lambda: self._take(self._size()),
            b"u": lambda: self._take(self._size()).decode("utf-8", "surrogatepass"),
            b"a": lambda: self._take(self._size()).decode("latin-1"),
            b"A": lambda: self._take(self._size()).decode("latin-1"),
            b"z": lambda: self._take(self._byte()).decode("latin-1"),
            b"Z": lambda: self._take(self._byte()).decode("latin-1"),
            b"t": self._interned,
            b"R": lambda: self._strings[self._size()],
            b"r": lambda: self._reference(),
        }

    def read_code(self) -> Code:
        """Return the code object that consists of all the bytes."""
        code = self._object(0)
        if not isinstance(code, Code) or self._position != len(self._data):
            raise UnreadableCodeError("the bytes are not one code object")
        return code

    def _object(self, depth: int) -> Any:
        self._objects += 1
        if depth > MAX_CODE_DEPTH or self._objects > MAX_CODE_OBJECTS:
            raise UnreadableCodeError("too deeply nested or too many objects")
        flagged = self._byte()
        kind = bytes([flagged & 0x7F])
        slot = None
        if flagged & 0x80:
            slot = len(self._references)
            self._references.append(Unreadable("unfinished"))
        value = self._value(kind, depth)
        if slot is not None:
            self._references[slot] = value
        return value

    def _value(self, kind: bytes, depth: int) -> Any:
        if kind in (b"(", b")", b"[", b"<", b">"):
            count = self._byte() if kind == b")" else self._size()
            items = tuple(self._object(depth + 1) for _ in range(count))
            return items if kind in b"()" else Unreadable("collection")
        if kind == b"c":
            return self._code(depth + 1)
        if kind not in self._readers:
            raise UnreadableCodeError(f"unknown type {kind!r}")
        return self._readers[kind]()

    def _code(self, depth: int) -> Code:
        header = {name: self._number("<i") for name in _HEADERS[self._layout]}
        code, consts, names, variables = (self._object(depth) for _ in range(4))
        free: tuple[str, ...] = ()
        if self._layout == "3.11":
            kinds = self._object(depth)
            if not isinstance(kinds, bytes) or len(kinds) != len(_texts(variables)):
                raise UnreadableCodeError("invalid kinds of variables")
        else:
            outer, inner = self._object(depth), self._object(depth)
            free = (*_texts(inner), *_texts(outer))
        for _ in range(3 if self._layout == "3.11" else 2):
            self._object(depth)  # file name, name, qualified name
        self._number("<i")
        for _ in range(2 if self._layout == "3.11" else 1):
            self._object(depth)  # line table, exception table
        if not isinstance(code, bytes) or not isinstance(consts, tuple):
            raise UnreadableCodeError("invalid instructions or constants")
        if not 0 <= header["arguments"] <= len(_texts(variables)):
            raise UnreadableCodeError("invalid number of arguments")
        return Code(self._layout, header["arguments"], code, consts, _texts(names),
                    _texts(variables), free)  # fmt: skip

    def _take(self, count: int) -> bytes:
        if count < 0 or self._position + count > len(self._data):
            raise UnreadableCodeError("the code is cut short")
        data = self._data[self._position : self._position + count]
        self._position += count
        return data

    def _byte(self) -> int:
        return self._take(1)[0]

    def _size(self) -> int:
        size = int(struct.unpack("<i", self._take(4))[0])
        # Every element has at least one byte, so nothing has more elements than the data bytes.
        if not 0 <= size <= len(self._data):
            raise UnreadableCodeError("invalid size")
        return size

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _complex(self) -> Unreadable:
        self._take(16)
        return Unreadable("complex")

    def _long(self) -> int:
        count = int(self._number("<i"))
        if abs(count) > 16:
            raise UnreadableCodeError("an integer is too long")
        total = sum(self._number("<H") << (15 * digit) for digit in range(abs(count)))
        return total if count >= 0 else -total

    def _interned(self) -> str:
        text = self._take(self._size()).decode("utf-8", "surrogatepass")
        self._strings.append(text)
        return text

    def _reference(self) -> Any:
        return self._references[self._size()]


def _texts(value: Any) -> tuple[str, ...]:
    """Return names as text; Python 2 stores them as bytes."""
    if not isinstance(value, tuple):
        raise UnreadableCodeError("invalid names")
    texts = tuple(v.decode("latin-1") if isinstance(v, bytes) else v for v in value)
    if not all(isinstance(text, str) for text in texts):
        raise UnreadableCodeError("invalid names")
    return texts
