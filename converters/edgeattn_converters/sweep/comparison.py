"""What changed between two tables of sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeattn.errors import UsageError
from edgeattn_converters.sweep import remote
from edgeattn_converters.sweep.table import Row, from_parquet

IDENTITY = ("model", "target", "lowering", "format", "scheme", "data")
# Columns that say what an artifact is worth.
COMPARED = ("status", "verdict", "achieved_scheme", "bytes", "score")


@dataclass(frozen=True)
class Change:
    """A row that is in one table only, or a value of it that changed.

    ``column`` is ``"row"`` for the former; then one of ``old`` and ``new`` is None.
    """

    label: str
    column: str
    old: Any
    new: Any

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_table(url: str) -> list[Row]:
    """The rows of an earlier table. Raises :class:`UsageError` if it is none."""
    try:
        return from_parquet(remote.read(remote.resolve(url, ".")))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(
            f"--compare: no such table: {url}", hint="Pass the table.parquet of a sweep."
        ) from error
    except ValueError as error:
        raise UsageError(f"--compare: {url} is not the table of a sweep: {error}") from error


def changes(old: Sequence[Row], new: Sequence[Row]) -> list[Change]:
    """What differs, in the order of the new table; removed rows last.

    Datasets are identified by their file names, so that rows of changed data are compared too.
    """
    before = {_identity(row): row for row in old}
    after = {_identity(row): row for row in new}
    found: list[Change] = []
    for key, row in after.items():
        if key in before:
            found += _differences(before[key], row)
        else:
            found.append(Change(label(row), "row", None, _outcome(row)))
    removed = [row for key, row in before.items() if key not in after]
    return found + [Change(label(row), "row", _outcome(row), None) for row in removed]


def label(row: Row) -> str:
    """``digits fused tflite int8 (test.npz)``."""
    lowering = None if row.get("lowering") in (None, "auto") else row["lowering"]
    parts = (row["model"], row.get("target"), lowering, row["format"], row["scheme"])
    data = f" ({row['data']})" if row.get("data") else ""
    return " ".join(part for part in parts if part) + data


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in IDENTITY)


def _outcome(row: Row) -> str:
    return str(row.get("verdict") or row.get("status"))


def _differences(old: Row, new: Row) -> Iterator[Change]:
    for name in COMPARED:
        if old.get(name) != new.get(name):
            yield Change(label(new), name, old.get(name), new.get(name))
