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
from edgeattn.samples.npz import read_npz, write_npz
from edgeattn.tensors import Array, Tensors

# Shortest time between two writes, in seconds.
SAVE_INTERVAL_S = 5.0
# Changes if the states of accumulators have other arrays.
STATE_LAYOUT = 2
_KEY, _NEXT, _BROKEN = "key", "next", "broken"


@dataclass(frozen=True)
class Checkpoint:
    """A file that stores an unfinished evaluation.

    ``key`` is a hash of everything that the result depends on: artifacts, data, limits, reference
    and runtimes.
    """

    path: Path
    key: str

    def load(self) -> tuple[int, dict[str, str], Tensors] | None:
        """The next batch, errors by artifact, and the state; None if the file does not exist.

        Raises :class:`UsageError` if the file is no checkpoint, or that of another evaluation.
        """
        if not self.path.exists():
            return None
        hint = "Remove it to start again, or name another file with --resume-file."
        try:
            state = dict(read_npz(self.path))
            key = _text(state.pop(_KEY))
            next_batch = operator.index(state.pop(_NEXT)[()])
            errors = json.loads(_text(state.pop(_BROKEN)))
            if next_batch < 0 or any(type(text) is not str for text in errors.values()):
                raise ValueError
        except (SampleError, *MALFORMED) as error:
            raise UsageError(f"{self.path} is not an unfinished validation.", hint=hint) from error
        if key != self.key:
            raise UsageError(
                f"{self.path} is an unfinished validation of other artifacts, data or limits.",
                hint=hint,
            )
        return next_batch, errors, state

    def save(self, next_batch: int, errors: Mapping[str, str], state: Tensors) -> None:
        """Replace the file atomically. Raises :class:`OutputError` if it cannot be written."""
        arrays = {
            _KEY: _bytes(self.key),
            _NEXT: np.array(next_batch),
            _BROKEN: _bytes(json.dumps(dict(errors))),
            **state,
        }
        hint = "Choose another file with --resume-file, or omit --resume."
        with files.atomic_write(self.path, hint=hint) as file:
            write_npz(file, arrays)

    def remove(self) -> None:
        """Remove the file, if possible."""
        files.remove(self.path)


def checkpoint_key(*parts: Any) -> str:
    """A SHA-256 of values that JSON can represent."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _bytes(text: str) -> Array:
    return np.frombuffer(text.encode(), np.uint8)


def _text(array: Array) -> str:
    return bytes(array.tobytes()).decode()
