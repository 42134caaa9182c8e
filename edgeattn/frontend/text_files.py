"""Text files with one entry per line: vocabularies and labels."""

from pathlib import Path
from typing import Literal

from edgeattn.errors import UsageError


def read_lines(path: Path, encoding: Literal["utf-8", "utf-8-sig"] = "utf-8") -> list[str]:
    """The lines of a text file; :class:`UsageError` if it cannot be read or is empty.

    So is a byte order mark in UTF-8, because a training may have read it as part of the first word.
    """
    try:
        lines = path.read_text(encoding).split("\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.", hint="Save it as UTF-8.") from error
    if lines[0].startswith("\ufeff"):
        raise UsageError(
            f"{path} begins with a byte order mark, which may be part of the first word or not.",
            hint="Save it as UTF-8 without a byte order mark.",
        )
    lines = [line.removesuffix("\r") for line in lines]
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UsageError(f"{path} is empty.")
    return lines


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of ``--labels``: one for each line. Raises :class:`UsageError`."""
    lines = [line.strip() for line in read_lines(path, "utf-8-sig")]
    for number, line in enumerate(lines, 1):
        if not line or line in lines[: number - 1]:
            problem = f"repeats the label {line!r}" if line else "is empty"
            raise UsageError(
                f"{path}: line {number} {problem}.",
                hint="Write one label per line, in the order of the model's outputs.",
            )
    return tuple(lines)
