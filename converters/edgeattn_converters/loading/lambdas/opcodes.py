"""The instructions that a recognized Lambda may contain, by their number in each Python version.

The numbers are those of the standard module ``opcode``. Recognition fails at any other instruction,
including jumps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_COMMON = """
POP_TOP=1 ROT_TWO=2 DUP_TOP=4 NOP=9 UNARY_POSITIVE=10 UNARY_NEGATIVE=11 BINARY_POWER=19
BINARY_MULTIPLY=20 BINARY_MODULO=22 BINARY_ADD=23 BINARY_SUBTRACT=24 BINARY_SUBSCR=25
BINARY_FLOOR_DIVIDE=26 BINARY_TRUE_DIVIDE=27 INPLACE_TRUE_DIVIDE=29 INPLACE_ADD=55
INPLACE_SUBTRACT=56 INPLACE_MULTIPLY=57 INPLACE_POWER=67 RETURN_VALUE=83 UNPACK_SEQUENCE=92
LOAD_CONST=100 LOAD_NAME=101 BUILD_TUPLE=102 BUILD_LIST=103 LOAD_ATTR=106 COMPARE_OP=107
IMPORT_NAME=108 IMPORT_FROM=109 LOAD_GLOBAL=116 LOAD_FAST=124 STORE_FAST=125 CALL_FUNCTION=131
BUILD_SLICE=133 LOAD_DEREF=136
"""
_SINCE_3_11 = """
CACHE=0 PUSH_NULL=2 NOP=9 POP_TOP=1 UNARY_POSITIVE=10 UNARY_NEGATIVE=11 BINARY_SUBSCR=25
RETURN_VALUE=83 UNPACK_SEQUENCE=92 LOAD_CONST=100 LOAD_NAME=101 BUILD_TUPLE=102 BUILD_LIST=103
LOAD_ATTR=106 COMPARE_OP=107 IMPORT_NAME=108 IMPORT_FROM=109 LOAD_GLOBAL=116 BINARY_OP=122
LOAD_FAST=124 STORE_FAST=125 BUILD_SLICE=133 LOAD_DEREF=137 COPY_FREE_VARS=149 RESUME=151
LIST_EXTEND=162 CALL=171 KW_NAMES=172 EXTENDED_ARG=144
"""


def _table(text: str) -> Mapping[int, str]:
    pairs = (entry.split("=") for entry in text.split())
    return {int(number): name for name, number in pairs}


@dataclass(frozen=True)
class Dialect:
    """The encoding of instructions in a range of Python versions, which is its name.

    ``layout`` is that of :class:`.marshal_reader.Code`, ``names`` are the instructions by number.
    With ``wide``, as before Python 3.6, arguments have two bytes and may be absent. ``caches`` is
    the number of cache entries (two zero bytes each) after an instruction, since 3.11.
    """

    name: str
    layout: str
    names: Mapping[int, str]
    wide: bool
    caches: Mapping[str, int]


_METHODS = "EXTENDED_ARG=144 CALL_FUNCTION_KW=141 LOAD_METHOD=160 CALL_METHOD=161 LIST_EXTEND=162"
_CACHES_3_12 = {"LOAD_GLOBAL": 4, "LOAD_ATTR": 9, "BINARY_SUBSCR": 1, "BINARY_OP": 1,
                "COMPARE_OP": 1, "CALL": 3, "UNPACK_SEQUENCE": 1}  # fmt: skip
DIALECTS = (
    Dialect(
        "Python 2.7", "2.7",
        _table(_COMMON + "SLICE+0=30 SLICE+1=31 SLICE+2=32 SLICE+3=33 BINARY_DIVIDE=21 "
               "INPLACE_DIVIDE=58 EXTENDED_ARG=145"),
        True, {},
    ),
    Dialect("Python 3.4 or 3.5", "3.4", _table(_COMMON + "BINARY_MATRIX_MULTIPLY=16"), True, {}),
    Dialect("Python 3.6 or 3.7", "3.4",
            _table(_COMMON + "BINARY_MATRIX_MULTIPLY=16 " + _METHODS), False, {}),
    Dialect("Python 3.8 to 3.10", "3.8",
            _table(_COMMON + "BINARY_MATRIX_MULTIPLY=16 " + _METHODS), False, {}),
    Dialect(
        "Python 3.11", "3.11", _table(_SINCE_3_11 + "LOAD_METHOD=160 PRECALL=166"), False,
        {"LOAD_GLOBAL": 5, "LOAD_ATTR": 4, "LOAD_METHOD": 10, "BINARY_SUBSCR": 4, "BINARY_OP": 1,
         "COMPARE_OP": 2, "PRECALL": 1, "CALL": 4, "UNPACK_SEQUENCE": 1},
    ),
    Dialect(
        "Python 3.12", "3.11",
        _table(_SINCE_3_11 + "BINARY_SLICE=26 RETURN_CONST=121 LOAD_FAST_CHECK=127"), False,
        _CACHES_3_12,
    ),
    Dialect(
        "Python 3.13", "3.11",
        _table("""
        CACHE=0 LOAD_FAST=85 LOAD_FAST_CHECK=87 LOAD_FAST_LOAD_FAST=88 STORE_FAST=110
        STORE_FAST_LOAD_FAST=111 STORE_FAST_STORE_FAST=112 LOAD_CONST=83 LOAD_GLOBAL=91
        LOAD_NAME=92 LOAD_ATTR=82 LOAD_DEREF=84 BUILD_SLICE=50 BUILD_TUPLE=52 BUILD_LIST=47
        LIST_EXTEND=81 BINARY_SUBSCR=5 BINARY_SLICE=4 BINARY_OP=45 UNARY_NEGATIVE=42 COMPARE_OP=58
        CALL=53 CALL_KW=57 PUSH_NULL=34 RESUME=149 COPY_FREE_VARS=62 NOP=30 POP_TOP=32
        RETURN_VALUE=36 RETURN_CONST=103 IMPORT_NAME=75 IMPORT_FROM=74 UNPACK_SEQUENCE=117
        EXTENDED_ARG=71
        """), False,
        _CACHES_3_12,
    ),
)  # fmt: skip
_FIRST_WITH_ARGUMENT = 90  # in the wide dialects


# What instructions outside the list are for, before Python 3.13.
_PURPOSES = {
    **dict.fromkeys((68, 93), "it has a loop"),
    **dict.fromkeys((110, 114, 115), "it has branches"),
    **dict.fromkeys((132, 135, 136), "it defines another function"),
}


class UnknownInstructionError(ValueError):
    """The code contains an instruction that is not in the list."""


def instructions(code: bytes, dialect: Dialect) -> Iterator[tuple[str, int]]:
    """Yield name and argument of each instruction.

    Raises :class:`UnknownInstructionError` for one that is not in the list.
    """
    yield from _wide(code, dialect) if dialect.wide else _narrow(code, dialect)


def _name(number: int, dialect: Dialect) -> str:
    if number not in dialect.names:
        purpose = None if dialect.name == "Python 3.13" else _PURPOSES.get(number)
        raise UnknownInstructionError(purpose or f"unknown instruction {number}")
    return dialect.names[number]


def _wide(code: bytes, dialect: Dialect) -> Iterator[tuple[str, int]]:
    position = 0
    while position < len(code):
        number = code[position]
        name = _name(number, dialect)
        if number < _FIRST_WITH_ARGUMENT:
            yield name, 0
            position += 1
            continue
        if position + 3 > len(code) or name == "EXTENDED_ARG":
            raise UnknownInstructionError("the code is cut short")
        yield name, code[position + 1] | code[position + 2] << 8
        position += 3


def _narrow(code: bytes, dialect: Dialect) -> Iterator[tuple[str, int]]:
    if len(code) % 2:
        raise UnknownInstructionError("the code is cut short")
    extended, position = 0, 0
    while position < len(code):
        name = _name(code[position], dialect)
        argument = extended << 8 | code[position + 1]
        position += 2
        if name == "EXTENDED_ARG":
            extended = argument
            continue
        extended = 0
        caches = dialect.caches.get(name, 0)
        # The number of cache entries also distinguishes Python 3.11 from 3.12.
        if code[position : position + 2 * caches] != bytes(2 * caches) or name == "CACHE":
            raise UnknownInstructionError(f"{name} has no cache entries of {dialect.name}")
        position += 2 * caches
        yield name, argument
