"""Checkpoints of an evaluation, from which it resumes after an interruption."""

import hashlib
import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn import files
from edgeattn.bundle.manifest import MALFORMED
from edgeattn.errors import SampleError, UsageError
from edgeattn.evaluation.shards import Shard
from edgeattn.samples.npz import read_npz, write_npz
from edgeattn.tensors import Array, Tensors

# Shortest time between two writes, in seconds.
SAVE_INTERVAL_S = 5.0
# Changes if the states of accumulators have other arrays.
STATE_LAYOUT = 5
_KEY, _SHARDS, _STOPPED = "key", "shards", "stopped"


@dataclass(frozen=True)
class Stored:
    """The content of a checkpoint.

    Attributes:
        shards: Batches that are part of the state, in order. Batches that ran on this machine are
            one shard from the first batch on.
        stopped: Messages of artifacts that stopped, by label, for each shard that has some.
        state: What was accumulated.
    """

    shards: tuple[Shard, ...]
    stopped: Mapping[Shard, Mapping[str, str]]
    state: Tensors


@dataclass(frozen=True)
class Checkpoint:
    """A file that stores an unfinished evaluation.

    ``key`` is a hash of everything that the result depends on: artifacts, data, limits, reference
    and runtimes.
    """

    path: Path
    key: str

    def load(self) -> Stored | None:
        """What the file contains; None if it does not exist.

        Raises :class:`UsageError` if the file is no checkpoint, or that of another evaluation.
        """
        if not self.path.exists():
            return None
        hint = "Remove it to start again, or name another file with --resume-file."
        try:
            state = dict(read_npz(self.path))
            key = _text(state.pop(_KEY))
            shards = _shards(state.pop(_SHARDS).tolist())
            by_number = dict(enumerate(shards))
            stopped = {
                by_number[number]: {label: errors[label] for label in sorted(errors)}
                for number, errors in json.loads(_text(state.pop(_STOPPED)))
            }
            if any(
                type(text) is not str for errors in stopped.values() for text in errors.values()
            ):
                raise ValueError
        except (SampleError, *MALFORMED) as error:
            raise UsageError(f"{self.path} is not an unfinished validation.", hint=hint) from error
        if key != self.key:
            raise UsageError(
                f"{self.path} is an unfinished validation of other artifacts, data or limits.",
                hint=hint,
            )
        return Stored(shards, stopped, state)

    def load_consecutive(self) -> Stored | None:
        """As :meth:`load`, if the batches are consecutive from the first on.

        Raises :class:`UsageError` if they are not, because Dask workers evaluated them.
        """
        stored, end = self.load(), 0
        for shard in () if stored is None else stored.shards:
            if shard.first != end:
                raise UsageError(
                    f"{self.path} is an unfinished validation by Dask workers.",
                    hint="Pass --scheduler to resume it, or remove the file to start again.",
                )
            end = shard.stop
        return stored

    def save(self, stored: Stored) -> None:
        """Replace the file atomically. Raises :class:`OutputError` if it cannot be written."""
        arrays = {
            _KEY: _bytes(self.key),
            _SHARDS: np.array([(shard.first, shard.stop) for shard in stored.shards], np.int64),
            _STOPPED: _bytes(
                json.dumps(
                    [
                        (stored.shards.index(shard), dict(errors))
                        for shard, errors in stored.stopped.items()
                    ]
                )
            ),
            **stored.state,
        }
        hint = "Choose another file with --resume-file, or omit --resume."
        with files.atomic_write(self.path, hint=hint) as file:
            write_npz(file, arrays)

    def remove(self) -> None:
        """Remove the file, if possible."""
        files.remove(self.path)


def first_errors(
    stopped: Mapping[Shard, Mapping[str, str]], last: Shard | None = None
) -> dict[str, str]:
    """The first message of each artifact that stopped, up to the shard ``last`` if it is given."""
    errors: dict[str, str] = {}
    for shard in sorted(stopped):
        if last is None or shard <= last:
            errors = {**stopped[shard], **errors}
    return errors


def checkpoint_key(*parts: Any) -> str:
    """A SHA-256 of values that JSON can represent."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _shards(pairs: Any) -> tuple[Shard, ...]:
    """Shards in order, at least one. Raises :class:`ValueError` if they are empty or overlap."""
    shards, end = [], 0
    for first, stop in pairs:
        if not end <= operator.index(first) < operator.index(stop):
            raise ValueError
        end = stop
        shards.append(Shard(first, stop))
    if not shards:
        raise ValueError
    return tuple(shards)


def _bytes(text: str) -> Array:
    return np.frombuffer(text.encode(), np.uint8)


def _text(array: Array) -> str:
    return bytes(array.tobytes()).decode()
