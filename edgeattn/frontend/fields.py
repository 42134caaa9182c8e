"""Strict parsing of tables (JSON objects, TOML tables) into frozen dataclasses.

The annotations of a dataclass are its schema: bool, int, float, str, ``Literal``, ``tuple[X, ...]``
and ``X | None``. An unknown key, a missing one or a value of another type is an error that names
its position.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from edgeattn.errors import UsageError

Table = TypeVar("Table")


def parse_table(cls: type[Table], data: Any, position: str) -> Table:
    """``data`` as ``cls``, whose values are checked by their types and by its ``__post_init__``.

    ``position`` names the table in errors, such as ``inputs.text, step 2``. Raises
    :class:`UsageError`; a ``__post_init__`` raises :class:`ValueError`.
    """
    if not isinstance(data, Mapping):
        raise _error(position, f"{data!r} is not a table")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, 1)
            known = ", ".join(fields)
            hint = f"Did you mean {close[0]!r}?" if close else f"Use only these keys: {known}."
            raise _error(position, f"unknown key {key!r}", hint)
    missing = [
        name
        for name, field in fields.items()
        if name not in data
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise _error(position, f"the key {missing[0]!r} is missing", f"Add {missing[0]} = ...")
    values = {key: _convert(value, hints[key], f"{position}: {key}") for key, value in data.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise _error(position, str(error)) from error


def table_of(table: Any) -> dict[str, Any]:
    """The values of a dataclass that are not the defaults, as JSON."""
    return {
        field.name: _plain(getattr(table, field.name))
        for field in dataclasses.fields(table)
        if getattr(table, field.name) != field.default
    }


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _convert(value: Any, hint: Any, position: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        matching = next((item for item in arguments if item is type(value)), arguments[0])
        return _convert(value, matching, position)
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(map(repr, arguments))
            raise _error(position, f"unknown value {value!r}", f"Choose one of {choices}.")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _error(position, f"{value!r} is not a list")
        return tuple(
            _convert(item, arguments[0], f"{position}[{index}]") for index, item in enumerate(value)
        )
    if hint is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise _error(position, f"{value!r} is not a finite number")
        return float(value)
    if type(value) is not hint:
        names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
        raise _error(position, f"{value!r} is not {names[hint]}")
    if hint is str and any("\ud800" <= character <= "\udfff" for character in value):
        raise _error(position, f"{value!r} is not valid Unicode text")
    return value


def _error(position: str, problem: str, hint: str | None = None) -> UsageError:
    return UsageError(f"{position}: {problem}.", hint=hint)
