"""Text for terminals and pages: names and messages of others cannot control what is displayed.

Names of layers, files and devices, and the messages that contain them, are data of others. Printed
as they are, an escape sequence could clear the screen and a line feed could forge a verdict.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

# The version of files without one that only Keras 2.15 and tf_keras save.
SINCE_TF_KERAS = "2.16 or later"


class Text(str):
    """Text of several lines, each of which is printable; its line feeds are edgeattn's own."""

    __slots__ = ()


def printable(text: str) -> str:
    """``text`` on one line, with control and invisible characters as escapes such as ``\\x1b``.

    These are all characters that Unicode calls other or separators, except spaces: also line feeds,
    marks that reverse the direction of writing, and bytes of file names that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_safe(c) else ascii(c)[1:-1] for c in text)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 sample`` or ``2,000 samples``; ``plural`` if it is not ``noun`` with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def enumerated(words: Sequence[str], conjunction: Literal["and", "or"] = "and") -> str:
    """``a, b and c``; empty without words."""
    return f" {conjunction} ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def listed(numbers: Sequence[int], most: int = 4) -> str:
    """``0, 1, 3, 4, ...``: the first numbers, and whether there are more."""
    return ", ".join(map(str, numbers[:most])) + (", ..." if len(numbers) > most else "")


def keras_name(version: str) -> str:
    """``Keras 3.15.1``, or ``tf_keras 2.21.0``, which continues Keras 2 since 2.16.

    ``2.16 or later`` is that of files which do not contain it: those of Keras 2.15 are the same.
    """
    if version == SINCE_TF_KERAS:
        return "Keras 2.15 or tf_keras"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    return f"{'tf_keras' if (2, 16) <= numbers < (3,) else 'Keras'} {version}"


def _is_safe(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def join_lines(lines: Iterable[str]) -> Text:
    """Each of ``lines`` on a line of its own, printable; a :class:`Text` stays as it is."""
    return Text("\n".join(x if isinstance(x, Text) else printable(x) for x in lines))
