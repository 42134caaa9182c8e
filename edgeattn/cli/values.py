"""Types of options whose errors say what is wrong with a value, and what may have been meant."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from typing import Any

import click

from edgeattn.api.input_sizes import parse_lengths, parse_shape
from edgeattn.errors import UsageError


def suggestion(name: str, names: Collection[str]) -> str | None:
    """A question with the most similar of ``names``; None if none is similar."""
    import difflib

    similar = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {similar[0]}?" if similar else None


class Choice(click.Choice):  # type: ignore[type-arg]
    """One of several names."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            question = suggestion(str(value), [str(choice) for choice in self.choices])
            self.fail(f"{error.message} {question}" if question else error.message, param, ctx)


class FilePath(click.Path):
    """A path. An empty one, as of a shell variable that is not set, is not the current folder."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        if value == "":
            self.fail("the path is empty.", param, ctx)
        return super().convert(value, param, ctx)


class Integer(click.IntRange):
    """An integer in a range."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r} is not an integer.", param, ctx)
        return super().convert(value, param, ctx)


class Number(click.FloatRange):
    """A finite number in a range: NaN is in every range, and infinity in those without an end."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number.", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return super().convert(number, param, ctx)


class _Sizes(click.ParamType):  # type: ignore[type-arg]
    """A text that ``parse`` reads; its errors are those of the option."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return value if isinstance(value, dict | tuple) else self._parse(str(value))
        except UsageError as error:
            self.fail(error.message, param, ctx)


TIME_STEPS = _Sizes("lengths", parse_lengths)
INPUT_SHAPE = _Sizes("text", parse_shape)
