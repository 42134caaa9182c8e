"""Sizes of the free axes of inputs, in Python and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.errors import UsageError

# A sequence length, or that of each input by name.
Lengths = int | Mapping[str, int]
InputShapes = Mapping[str, Sequence[int]]


def parse_lengths(text: str) -> int | dict[str, int]:
    """A sequence length, or those of several inputs: ``20`` or ``text=20,chars=8``.

    Raises :class:`UsageError` for any other text.
    """
    if "=" not in text:
        if "," in text:
            raise UsageError(
                f"{text!r} is not of the form N or INPUT=N,INPUT=N. For several lengths of the "
                "same input, repeat the option."
            )
        return _size(text, text)
    lengths: dict[str, int] = {}
    for part in text.split(","):
        name, _, length = part.rpartition("=")
        if not name or name in lengths:
            raise UsageError(
                f"{text!r} is not of the form INPUT=N,INPUT=N.", hint="Name each input once."
            )
        lengths[name] = _size(length, text)
    return lengths


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The name of an input and its shape without the batch axis: ``image=64x64x3``.

    Raises :class:`UsageError` for any other text.
    """
    name, _, shape = text.rpartition("=")
    if not name:
        raise UsageError(f"{text!r} is not of the form INPUT=64x64x3.")
    return name, tuple(_size(size, text) for size in shape.split("x"))


def _size(digits: str, text: str) -> int:
    try:
        size = int(digits)
    except ValueError:
        raise UsageError(f"{digits!r} in {text!r} is not an integer.") from None
    if size < 1:
        raise UsageError(f"{size} in {text!r} is not at least 1.")
    return size


def joined_lengths(values: Sequence[int | dict[str, int]]) -> tuple[int | dict[str, int], ...]:
    """The values in which a mapping contains the next one, unless they name the same input."""
    lengths: list[int | dict[str, int]] = []
    for value in values:
        last = lengths[-1] if lengths else None
        if isinstance(value, dict) and isinstance(last, dict) and not value.keys() & last.keys():
            lengths[-1] = {**last, **value}
        else:
            lengths.append(value)
    return tuple(lengths)


def sizes_of_inputs(lengths: Lengths | None, shapes: InputShapes | None) -> dict[str, Any]:
    """The fields of a ``ModelSource`` for the free axes of inputs."""
    fixed = tuple((name, tuple(shape)) for name, shape in (shapes or {}).items())
    if isinstance(lengths, Mapping):
        return {"lengths": tuple(lengths.items()), "shapes": fixed}
    return {"time_steps": lengths, "shapes": fixed}
