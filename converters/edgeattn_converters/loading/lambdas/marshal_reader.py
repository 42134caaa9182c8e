"""Code objects out of marshalled bytes, read and never made into anything that can run.

``marshal.loads`` may crash the process on hostile bytes, and reads only its own Python's. This
reader knows the layouts of Python 2.7 and 3.4 to 3.13, and stops at its limits. The format is that
of CPython's ``Python/marshal.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeattn_converters.loading.safety import size_limits as limits


class UnreadableCodeError(ValueError):
    """Bytes that are no code object of a layout known here."""


@dataclass(frozen=True)
class Code:
    """The parts of a code object that say what it computes.

    Attributes:
        layout: ``2.7``, ``3.4``, ``3.8`` or ``3.11``: the oldest Python that wrote it like this.
        arguments: how many positional arguments it takes.
        code: the instructions.
        consts: the constants; other code objects among them are ``Code`` too.
        names: globals and attributes.
        variables: arguments and locals.
        free: the variables of the function around it.
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
    """A value that no recognised expression may use: a set, a dictionary."""

    kind: str


# The counts in front of the instructions.
_HEADS = {
    "2.7": ("arguments", "locals", "stack", "flags"),
    "3.4": ("arguments", "keywords", "locals", "stack", "flags"),
    "3.8": ("arguments", "positional", "keywords", "locals", "stack", "flags"),
    "3.11": ("arguments", "positional", "keywords", "stack", "flags"),
}
LAYOUTS = tuple(_HEADS)


def read(data: bytes) -> list[Code]:
    """The code object in every layout that fits the bytes to the last one.

    Raises:
        UnreadableCodeError: none does.
    """
    found = []
    for layout in LAYOUTS:
        try:
            code = _Reader(data, layout).everything()
        except (ValueError, struct.error, IndexError):  # every way to not be of this layout
            continue
        found.append(code)
    if not found:
        raise UnreadableCodeError("no Python from 2.7 to 3.13 writes code like this")
    return found


def all_names(data: bytes) -> frozenset[str]:
    """The globals and attributes that the code uses, and the code within it, in any layout.

    Raises:
        UnreadableCodeError: no layout fits.
    """
    names: set[str] = set()
    rest: list[Any] = list(read(data))
    while rest:
        code = rest.pop()
        if isinstance(code, Code):
            names.update(code.names)
            rest.extend(code.consts)
    return frozenset(names)


class _Reader:
    """One pass over the bytes in one layout."""

    def __init__(self, data: bytes, layout: str) -> None:
        if len(data) > limits.MAX_CODE_BYTES:
            raise UnreadableCodeError(f"{len(data)} bytes of code")
        self._data, self._layout = data, layout
        self._position = self._objects = 0
        self._references: list[Any] = []
        self._strings: list[Any] = []  # Python 2 numbers its interned strings apart
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

    def everything(self) -> Code:
        """The one object that all the bytes make."""
        code = self._object(0)
        if not isinstance(code, Code) or self._position != len(self._data):
            raise UnreadableCodeError("not one code object")
        return code

    def _object(self, depth: int) -> Any:
        self._objects += 1
        if depth > limits.MAX_CODE_DEPTH or self._objects > limits.MAX_CODE_OBJECTS:
            raise UnreadableCodeError("too deep or too many objects")
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
            raise UnreadableCodeError(f"type {kind!r}")
        return self._readers[kind]()

    def _code(self, depth: int) -> Code:
        head = {name: self._number("<i") for name in _HEADS[self._layout]}
        code, consts, names, variables = (self._object(depth) for _ in range(4))
        free: tuple[str, ...] = ()
        if self._layout == "3.11":
            kinds = self._object(depth)
            if not isinstance(kinds, bytes) or len(kinds) != len(_texts(variables)):
                raise UnreadableCodeError("kinds of variables")
        else:
            outer, inner = self._object(depth), self._object(depth)
            free = (*_texts(inner), *_texts(outer))
        for _ in range(3 if self._layout == "3.11" else 2):
            self._object(depth)  # the file, the name, the qualified name
        self._number("<i")
        for _ in range(2 if self._layout == "3.11" else 1):
            self._object(depth)  # the tables of lines and exceptions
        if not isinstance(code, bytes) or not isinstance(consts, tuple):
            raise UnreadableCodeError("instructions or constants")
        if not 0 <= head["arguments"] <= len(_texts(variables)):
            raise UnreadableCodeError("arguments")
        return Code(self._layout, head["arguments"], code, consts, _texts(names),
                    _texts(variables), free)  # fmt: skip

    def _take(self, count: int) -> bytes:
        if count < 0 or self._position + count > len(self._data):
            raise UnreadableCodeError("cut short")
        taken = self._data[self._position : self._position + count]
        self._position += count
        return taken

    def _byte(self) -> int:
        return self._take(1)[0]

    def _size(self) -> int:
        size = int(struct.unpack("<i", self._take(4))[0])
        # Every element takes a byte at least: nothing is as long as the bytes left.
        if not 0 <= size <= len(self._data):
            raise UnreadableCodeError("a size")
        return size

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _complex(self) -> Unreadable:
        self._take(16)
        return Unreadable("complex")

    def _long(self) -> int:
        count = int(self._number("<i"))
        if abs(count) > 16:
            raise UnreadableCodeError("a very long number")
        total = sum(self._number("<H") << (15 * digit) for digit in range(abs(count)))
        return total if count >= 0 else -total

    def _interned(self) -> str:
        text = self._take(self._size()).decode("utf-8", "surrogatepass")
        self._strings.append(text)
        return text

    def _reference(self) -> Any:
        return self._references[self._size()]


def _texts(value: Any) -> tuple[str, ...]:
    """Names, which Python 2 kept as bytes."""
    if not isinstance(value, tuple):
        raise UnreadableCodeError("names")
    texts = tuple(v.decode("latin-1") if isinstance(v, bytes) else v for v in value)
    if not all(isinstance(text, str) for text in texts):
        raise UnreadableCodeError("names")
    return texts
