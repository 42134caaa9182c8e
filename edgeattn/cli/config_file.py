"""Config files: ``edgeattn.toml``, or ``[tool.edgeattn]`` of ``pyproject.toml``.

[convert]
scheme = ["float32", "int8"]

[recipes.pi5.convert]
target = "litert"
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn.cli.values import suggestion
from edgeattn.errors import UsageError

OWN, SHARED = "edgeattn.toml", "pyproject.toml"
TOOL = ("tool", "edgeattn")
RECIPES = "recipes"
# Folders that mark the root of a repository.
REPOSITORY = (".git", ".hg")
MAX_BYTES = 2**20

Table = Mapping[str, Any]


@dataclass(frozen=True)
class ConfigFile:
    """Options by command, and by recipe and command, as the file has them.

    ``named`` is whether the user passed the path. Otherwise the file was found in a folder, which
    another person may have made.
    """

    path: Path
    named: bool
    sha256: str
    commands: Mapping[str, Table]
    recipes: Mapping[str, Mapping[str, Table]]

    @property
    def tables(self) -> Iterator[tuple[str, str, Table]]:
        """The title, the command and the options of every table."""
        prefix = "" if self.path.name != SHARED else ".".join(TOOL) + "."
        for command, table in self.commands.items():
            yield f"{prefix}{command}", command, table
        for recipe, commands in self.recipes.items():
            for command, table in commands.items():
                yield f"{prefix}{RECIPES}.{recipe}.{command}", command, table

    def options(self, words: Sequence[str], recipe: str | None) -> Table:
        """The options of the command ``words``: those of the recipe before those of all.

        Raises :class:`UsageError` if there is no such recipe, or it has none for the command.
        """
        command = ".".join(words)
        general = _inner_table(self.commands, words) or {}
        if recipe is None:
            return general
        if recipe not in self.recipes:
            listed = ", ".join(self.recipes) or "none"
            raise UsageError(
                f"{self.path} has no recipe {recipe!r}. Its recipes: {listed}.",
                hint=suggestion(recipe, self.recipes)
                or f"Add a table [recipes.{recipe}.{command}].",
            )
        special = _inner_table(self.recipes[recipe], words)
        if special is None:
            listed = ", ".join(self.recipes[recipe])
            raise UsageError(
                f"{self.path}: the recipe {recipe!r} has no options of {command}, only of: "
                f"{listed}.",
                hint=f"Omit --recipe, or add a table [recipes.{recipe}.{command}].",
            )
        return {**general, **special}


def _inner_table(table: Table, words: Sequence[str]) -> Table | None:
    for word in words:
        if not isinstance(table, dict) or word not in table:
            return None
        table = table[word]
    return table


def find(folder: Path, commands: Collection[str]) -> ConfigFile | None:
    """The config file of the next folder that has one, from ``folder`` to the repository's root.

    Outside of repositories, only ``folder`` itself is searched: its parents may be writable by
    others. Raises :class:`UsageError` if the file is malformed, or the folder has two.
    """
    for candidate in _searched(folder.absolute()):
        relative = Path(os.path.relpath(candidate))
        own, shared = relative / OWN, relative / SHARED
        found = read(own, commands, named=False) if own.is_file() else None
        other = _read_shared(shared, commands, named=False) if shared.is_file() else None
        if found is not None and other is not None:
            raise UsageError(
                f"{candidate} has options of edgeattn in both {OWN} and {SHARED}.",
                hint="Move them to one of the two files.",
            )
        if found is not None or other is not None:
            return found or other
    return None


def _searched(folder: Path) -> tuple[Path, ...]:
    folders = (folder, *folder.parents)
    for number, candidate in enumerate(folders, 1):
        if any((candidate / name).exists() for name in REPOSITORY):
            return folders[:number]
    return folders[:1]


def read(path: Path, commands: Collection[str], *, named: bool = True) -> ConfigFile:
    """Read a config file whose tables have names of ``commands``.

    A file called ``pyproject.toml`` has them in ``[tool.edgeattn]``. Raises :class:`UsageError` if
    the file cannot be read or is malformed.
    """
    if path.name != SHARED:
        data = _content(path)
        return _parsed(path, data, _document(path, data), commands, named=named)
    config = _read_shared(path, commands, named=named)
    if config is None:
        raise UsageError(
            f"{path} has no table [{'.'.join(TOOL)}].", hint="Name a file that has options."
        )
    return config


def _read_shared(path: Path, commands: Collection[str], *, named: bool) -> ConfigFile | None:
    """The options in a ``pyproject.toml``; None if it has no table of edgeattn."""
    data = _content(path)
    if TOOL[1].encode() not in data:
        return None
    table: Any = _document(path, data)
    for key in TOOL:
        table = table.get(key) if isinstance(table, dict) else None
    return None if table is None else _parsed(path, data, table, commands, named=named)


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"No such config file: {path}", hint="Pass --config the path of a file.")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES:,} bytes, which no config file needs.")
    return data


def _document(path: Path, data: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        raise UsageError(
            f"{path} is not a valid TOML file: {reason}",
            hint="Correct it, or run without it: --no-config",
        ) from error


def _parsed(
    path: Path, data: bytes, document: Any, commands: Collection[str], *, named: bool
) -> ConfigFile:
    top = _table(path, "the table of edgeattn", document)
    recipes = {
        name: _tables(path, f"recipes.{name}.", table, commands)
        for name, table in _table(path, RECIPES, top.get(RECIPES, {})).items()
    }
    own = {name: table for name, table in top.items() if name != RECIPES}
    checked = _tables(path, "", own, commands, RECIPES)
    return ConfigFile(path, named, hashlib.sha256(data).hexdigest(), checked, recipes)


def _tables(
    path: Path, prefix: str, tables: Any, commands: Collection[str], *others: str
) -> dict[str, Table]:
    """The tables of commands in ``tables``."""
    for name in _table(path, prefix.rstrip("."), tables):
        if name not in commands:
            raise UsageError(
                f"{path}: {prefix}{name} is not a table of a command.",
                hint=suggestion(name, (*commands, *others))
                or f"The commands are {', '.join(commands)}.",
            )
    return {name: _table(path, f"{prefix}{name}", table) for name, table in tables.items()}


def _table(path: Path, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(
            f"{path}: {name} is {value!r}, not a table.", hint=f"Write a table: [{name}]"
        )
    return value
